//! What a NIC does about checksums and segments: which of its offloads are asked for, which of those serve, and how it
//! is told of a packet.

use dpdk::ethdev::{Device, DeviceInfo, Port, offload};
use dpdk::mbuf::{Mbuf, TxOffload, flags};
use net::{Layers, Network, Offload, Takes, Transport};

/// Offloads of what is received, by DPDK's names. LRO is asked for beside, if it is wanted.
const RX: [(u64, &str); 3] = [
    (offload::RX_TCP_CKSUM, "RX_TCP_CKSUM"),
    (offload::RX_UDP_CKSUM, "RX_UDP_CKSUM"),
    (offload::RX_TCP_LRO, "RX_TCP_LRO"),
];

/// Offloads of what is sent. Not UDP_TSO: it means fragments to some drivers, and datagrams to others.
const TX: [(u64, &str); 5] = [
    (offload::TX_IPV4_CKSUM, "TX_IPV4_CKSUM"),
    (offload::TX_TCP_CKSUM, "TX_TCP_CKSUM"),
    (offload::TX_UDP_CKSUM, "TX_UDP_CKSUM"),
    (offload::TX_TCP_TSO, "TX_TCP_TSO"),
    (offload::TX_MULTI_SEGS, "TX_MULTI_SEGS"),
];

/// What a driver says it can do, and is not asked for.
struct Exception {
    driver: &'static str,
    /// The first release of DPDK, such as 2311 for 23.11.
    since: u32,
    tx: u64,
}

/// Found in DPDK's sources (22.11 to 26.07), each with its reason.
const EXCEPTIONS: [Exception; 2] = [
    // It cuts by librte_gso. That sends TCP over IPv6 uncut, and leaves CWR set in all segments. And where segments with
    // their headers are longer than the MTU, which those of full size are, or more than 64, the driver refuses the
    // packet whenever it is sent: nothing goes out any more.
    Exception { driver: "net_tap", since: 0, tx: offload::TX_TCP_TSO },
    // To sum a packet it takes the headers off, and if the kernel does not take the packet then, gives it back without.
    Exception {
        driver: "net_tap",
        since: 2311,
        tx: offload::TX_IPV4_CKSUM | offload::TX_TCP_CKSUM | offload::TX_UDP_CKSUM,
    },
];

/// Drivers that say RX_L4_CKSUM_NONE, as DPDK has it, of packets whose checksum field holds the pseudo header's sum only.
/// (`net_hinic` says so of packets that it has not looked at, `net_tap` of UDP without a checksum.)
const PARTIAL: [&str; 3] = ["net_virtio", "net_virtio_user", "net_vhost"];

/// Asks a device for what serves, and for LRO if that is wanted.
pub(super) fn request(device: &mut Device, lro: bool) {
    let all = |offloads: &[(u64, &str)]| offloads.iter().fold(0, |bits, (bit, _)| bits | bit);
    let rx = if lro { all(&RX) } else { all(&RX) & !offload::RX_TCP_LRO };
    let tx = all(&TX) & !excepted(&device.info().driver, dpdk::RELEASE);
    device.request_offloads(rx, tx);
}

/// What a driver is not asked for in a release of DPDK.
fn excepted(driver: &str, release: u32) -> u64 {
    let known = EXCEPTIONS.iter().filter(|it| it.driver == driver && release >= it.since);
    known.fold(0, |bits, it| bits | it.tx)
}

/// The names of those that are in force, as DPDK has them.
pub fn names(port: &Port) -> Vec<&'static str> {
    let of = |offloads: &[(u64, &'static str)], bits: u64| -> Vec<&'static str> {
        offloads.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect()
    };
    [of(&RX, port.rx_offloads()), of(&TX, port.tx_offloads())].concat()
}

/// What a NIC does with packets that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sending {
    /// What may be left to it.
    pub takes: Takes,
    /// It sums the IPv4 headers of the segments it makes. (A driver that does not say so keeps them right by itself.)
    ipv4_cksum: bool,
    /// Bytes of an mbuf.
    room: u16,
    /// The most mbufs of a packet that it cuts.
    seg_max: u16,
    /// The most mbufs that a segment may be in.
    mtu_seg_max: u16,
}

impl Sending {
    /// All it is given is complete.
    pub const NOTHING: Sending =
        Sending { takes: Takes::NOTHING, ipv4_cksum: false, room: 1, seg_max: 1, mtu_seg_max: 1 };

    /// What is in force of a started device with mbufs of `room` bytes.
    pub fn of(port: &Port, room: u16) -> Sending {
        Sending::new(port.tx_offloads(), port.info(), room)
    }

    fn new(in_force: u64, info: &DeviceInfo, room: u16) -> Sending {
        let has = |bits: u64| in_force & bits == bits;
        let when = |bits, takes| if has(bits) { takes } else { Takes::NOTHING };
        // Without ECN: some keep CWR in all segments.
        let takes = when(offload::TX_TCP_CKSUM, Takes::TCP_CSUM)
            | when(offload::TX_UDP_CKSUM, Takes::UDP_CSUM)
            | when(offload::TX_TCP_TSO | offload::TX_MULTI_SEGS, Takes::TSO4 | Takes::TSO6);
        let seg_max = info.tx_seg_max.min(SEG_MAX);
        let ipv4_cksum = has(offload::TX_IPV4_CKSUM);
        Sending { takes, ipv4_cksum, room, seg_max, mtu_seg_max: info.tx_mtu_seg_max }
    }

    /// Whether a frame that it is to cut is not too much for it, nor the segments too small.
    pub fn carries(&self, len: usize, segment: u16) -> bool {
        let mbufs = |bytes: usize| bytes.div_ceil(usize::from(self.room));
        // A segment begins and ends anywhere in an mbuf, and its headers are in another one.
        segment >= SEGMENT_MIN
            && mbufs(len) <= self.seg_max.into()
            && mbufs(segment.into()) + 2 <= self.mtu_seg_max.into()
    }

    /// Tells it to do what `offload` asks for, of a packet with these headers.
    pub fn mark(&self, mbuf: &mut Mbuf, layers: &Layers, offload: &Offload) {
        let cut = offload.gso_type != 0;
        let network = match layers.network {
            Network::V4 if cut && self.ipv4_cksum => flags::TX_IPV4 | flags::TX_IP_CKSUM,
            Network::V4 => flags::TX_IPV4,
            Network::V6 => flags::TX_IPV6,
        };
        let transport = match layers.transport {
            Transport::Tcp if cut => flags::TX_TCP_SEG,
            Transport::Tcp => flags::TX_TCP_CKSUM,
            Transport::Udp => flags::TX_UDP_CKSUM,
        };
        mbuf.set_ol_flags(network | transport);
        mbuf.set_tx_offload(TxOffload {
            // Within HEADER_MAX, all three.
            l2_len: layers.l2_len as u8,
            l3_len: layers.l3_len,
            l4_len: layers.l4_len as u8,
            tso_segsz: offload.gso_size,
        });
    }
}

/// The most mbufs of a packet that is left to a NIC to be cut: 64 KiB in mbufs of 2 KiB are 33. A ring has to have room
/// for all at once, or it never goes out: the smallest that NICs have are of 64.
const SEG_MAX: u16 = 48;

/// The least payload of a segment, in bytes, that every driver takes: it is net_i40e's.
const SEGMENT_MIN: u16 = 256;

/// What a NIC says about what it has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdicts {
    /// It leaves checksums to complete.
    pub partial: bool,
    /// It makes one packet of several.
    pub lro: bool,
}

impl Verdicts {
    /// What is in force of a started device; none if it says nothing.
    pub fn of(port: &Port) -> Option<Verdicts> {
        let has = |bits| port.rx_offloads() & bits != 0;
        let lro = has(offload::RX_TCP_LRO);
        let partial = PARTIAL.contains(&port.info().driver.as_str());
        (lro || has(offload::RX_TCP_CKSUM | offload::RX_UDP_CKSUM)).then_some(Verdicts { partial, lro })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_not_asked_for_what_it_does_wrong() {
        let sums = offload::TX_IPV4_CKSUM | offload::TX_TCP_CKSUM | offload::TX_UDP_CKSUM;
        assert_eq!(excepted("net_tap", 2211), offload::TX_TCP_TSO);
        assert_eq!(excepted("net_tap", 2411), offload::TX_TCP_TSO | sums);
        assert_eq!(excepted("net_virtio", 2411), 0);
    }

    #[test]
    fn a_nic_is_left_no_more_mbufs_than_it_takes() {
        let sending = |seg_max, mtu_seg_max| Sending {
            takes: Takes::TSO4,
            ipv4_cksum: true,
            room: 2048,
            seg_max,
            mtu_seg_max,
        };
        assert!(sending(33, 3).carries(65_550, 1448));
        assert!(!sending(32, 3).carries(65_550, 1448));
        assert!(!sending(33, 2).carries(65_550, 1448));
        assert!(!sending(33, 3).carries(65_550, 255));
        assert!(sending(33, 7).carries(65_550, 8948));
        assert!(!sending(33, 6).carries(65_550, 8948));
    }
}
