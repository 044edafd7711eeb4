//! Why packets are dropped: every reason there is.

/// Why a packet that entered a port left through none. It is counted at the port that it entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Shorter than an Ethernet header.
    Runt,
    /// Longer than the nic's MTU allows.
    Oversize,
    /// Longer than the guest's receive buffers.
    GuestBufferTooSmall,
    /// Still held when the wire it was on was taken down for good.
    WireRemoved,
    /// Still held when the guest's backend was replaced by another one.
    BackendChanged,
    /// Arrived while the port was no guest's backend.
    NotConnected,
    /// Its virtio-net header, or the NIC it came from, asks for a checksum or a segmentation that the frame does not
    /// allow.
    BadOffload,
    /// The NIC's driver refused to do with it what the guest left to be done.
    OffloadRefused,
    /// The kernel refused to send it: too long for the interface, or no such destination.
    SocketError,
    /// The queue of the exception path was full.
    PuntFull,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [DropReason; 10] = [
        DropReason::Runt,
        DropReason::Oversize,
        DropReason::GuestBufferTooSmall,
        DropReason::WireRemoved,
        DropReason::BackendChanged,
        DropReason::NotConnected,
        DropReason::BadOffload,
        DropReason::OffloadRefused,
        DropReason::SocketError,
        DropReason::PuntFull,
    ];

    /// Name in statistics.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::Runt => "runt",
            DropReason::Oversize => "oversize",
            DropReason::GuestBufferTooSmall => "guest_buffer_too_small",
            DropReason::WireRemoved => "wire_removed",
            DropReason::BackendChanged => "backend_changed",
            DropReason::NotConnected => "not_connected",
            DropReason::BadOffload => "bad_offload",
            DropReason::OffloadRefused => "offload_refused",
            DropReason::SocketError => "socket_error",
            DropReason::PuntFull => "punt_full",
        }
    }

    /// What it means, in one line.
    pub fn explain(self) -> &'static str {
        match self {
            DropReason::Runt => "the frame is shorter than an Ethernet header (14 bytes)",
            DropReason::Oversize => {
                "the frame is longer than what it was for takes: the guest's MTU is larger than the NIC's"
            }
            DropReason::GuestBufferTooSmall => {
                "the frame is longer than the guest's receive buffers: turn mrg_rxbuf on, or make the MTU smaller"
            }
            DropReason::WireRemoved => "it still waited for room when ringwired let go of the port for good",
            DropReason::BackendChanged => "it still waited for room when the guest got another backend",
            DropReason::NotConnected => "it arrived while the port was no guest's backend",
            DropReason::BadOffload => {
                "the frame is not one that the checksum or segmentation it asks for can be done with"
            }
            DropReason::OffloadRefused => {
                "the NIC's driver refused the checksum or segmentation that was left to it"
            }
            DropReason::SocketError => {
                "the kernel refused the frame: too long for the interface, or it asks for what cannot be"
            }
            DropReason::PuntFull => {
                "the queue of the exception path was full: more came than the host, or the guest, took"
            }
        }
    }

    /// The reason of that name.
    pub fn by_name(name: &str) -> Option<DropReason> {
        DropReason::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter is found by its number.
    #[test]
    fn each_reason_is_where_its_number_says() {
        for (number, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
            assert_eq!(DropReason::by_name(reason.name()), Some(reason));
        }
        assert_eq!(DropReason::by_name("no such reason"), None);
    }

    #[test]
    fn each_is_explained_in_a_line() {
        for reason in DropReason::ALL {
            let text = reason.explain();
            assert!(!text.contains('\n') && (20..=110).contains(&text.len()), "{text}");
        }
    }

    /// README.md has them all, in the same words.
    #[test]
    fn the_readme_lists_them() {
        let readme = include_str!("../../../README.md");
        let row = |reason: DropReason| format!("| `{}` | {} |", reason.name(), reason.explain());
        let expected = DropReason::ALL.map(row);
        let (_, table) =
            readme.split_once("| drop reason | what it means |\n|---|---|\n").expect("the table");
        let rows: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
        assert_eq!(rows, expected);
    }
}
