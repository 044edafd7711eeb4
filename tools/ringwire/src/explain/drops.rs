//! What entered a port and was dropped: by which reason, and what to do about it.

use snapshot::{DropReason, Port};

use super::Check;
use super::sight::Seen;
use crate::units::count;

/// What a reason means.
struct Reason {
    /// Whether later packets like these will be dropped as well.
    lasting: bool,
    meaning: &'static str,
    advice: &'static str,
}

/// What `reason` means; nothing is said of one that this ringwire does not know.
fn about(reason: Option<DropReason>) -> Reason {
    let lasting = |meaning, advice| Reason { lasting: true, meaning, advice };
    let passing = |meaning, advice| Reason { lasting: false, meaning, advice };
    let Some(reason) = reason else {
        return lasting(
            "a reason that this ringwire does not know",
            "compare ringwire --version with ringwired's",
        );
    };
    match reason {
        DropReason::Runt => lasting("shorter than an Ethernet header", "what sends them is broken"),
        DropReason::Oversize => lasting(
            "longer than the other end's MTU allows",
            "give both ends the same MTU: mtu under [[nic]], or in the guest: ip link set DEVICE mtu N",
        ),
        DropReason::GuestBufferTooSmall => lasting(
            "longer than the guest's receive buffers",
            "QEMU: mrg_rxbuf=on; or a smaller mtu under [[nic]], or at whoever sends",
        ),
        DropReason::BadOffload => lasting(
            "they leave a checksum or segmentation to us that they do not allow",
            "a bug of the guest's driver; turn its offloads off: offloads = \"off\" under [[guest]]",
        ),
        DropReason::OffloadRefused => lasting(
            "the NIC's driver refused the checksum or segmentation that was left to it",
            "a limit of that driver; turn the guest's offloads off: offloads = \"off\" under [[guest]]",
        ),
        DropReason::SocketError => lasting(
            "the kernel refused to send them",
            "compare the interface's MTU with the guest's: ip link",
        ),
        DropReason::PuntFull => passing(
            "the exception path was full",
            "more goes there than a host can answer: punt_classes under [[guest]]",
        ),
        DropReason::WireRemoved => passing("ringwired was stopping", "nothing"),
        DropReason::BackendChanged => {
            passing("the guest's backend was replaced meanwhile", "nothing: it was asked for")
        }
        DropReason::NotConnected => {
            passing("they arrived while the port was nobody's backend", "nothing: it is now")
        }
    }
}

/// Drops that go on, or that took all there was. What is not dropped leaves through `peer`.
pub fn drops(port: Seen<Port>, peer: Option<Seen<Port>>) -> Vec<Check> {
    let reasons = port.now.drops.keys();
    let mut checks: Vec<Check> = reasons.filter_map(|reason| by_reason(port, peer, reason)).collect();
    if checks.is_empty() {
        let past = port.now.drops.iter().filter(|(_, packets)| **packets > 0);
        let past: Vec<String> =
            past.map(|(reason, packets)| format!("{reason} {}", count(*packets))).collect();
        let past =
            if past.is_empty() { "none so far".to_owned() } else { format!("so far: {}", past.join(", ")) };
        checks.push(Check::ok("drops", port.name(), format!("nothing was dropped just now ({past})")));
    }
    checks
}

fn by_reason(port: Seen<Port>, peer: Option<Seen<Port>>, name: &str) -> Option<Check> {
    let Reason { lasting, meaning, advice } = about(DropReason::by_name(name));
    let dropped = |port: &Port| port.drops.get(name).copied().unwrap_or(0);
    let (moved, total) = (port.moved(dropped), dropped(port.now));
    // Counters are not read all at the same moment, so what entered and what was dropped are not compared.
    let all_now = moved > 0 && peer.is_some_and(|peer| peer.moved(|port| port.tx_packets) == 0);
    let all_ever = total > 0 && peer.is_some_and(|peer| peer.now.tx_packets == 0);
    if lasting && (all_now || all_ever) {
        let found = format!("drops all packets that enter here as {name}: {meaning}");
        return Some(Check::fail("drops", port.name(), found, advice));
    }
    let some = format!("{} of {} packets", count(moved), count(port.moved(|port| port.rx_packets)));
    let found = format!("dropped {some} that entered here as {name}: {meaning}");
    (moved > 0).then(|| Check::note("drops", port.name(), found, advice))
}
