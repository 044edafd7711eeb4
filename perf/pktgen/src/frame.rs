//! Frames: Ethernet, IPv4, UDP, and a stamp in the payload that the receiver checks.
//!
//! ```text
//!  0  destination MAC, source MAC, 0800     14  IPv4 (20 bytes)     34  UDP (8 bytes)
//! 42  flow (3 bytes), "RW", epoch (1 byte)  48  timestamp (8)       56  sequence number (4)
//! 60  filling
//! ```
//!
//! The stamp is in the host's byte order: it goes back to the program it came from, or to one like it on the
//! same host. A frame starts on a cache line, so what is written for each packet is in one line.

use crate::ring::{HEAD, HEADER_LEN};

/// Shortest frame: all of the stamp is in it. With the FCS it is Ethernet's shortest, 64.
pub const MIN: usize = 60;
/// Longest frame that can be described: IPv4's length field.
pub const MAX: usize = 65535 + ETHERNET;
const ETHERNET: usize = 14;
const IP_LENGTH: usize = 16;
const IP_CHECKSUM: usize = 24;
const IP_SOURCE: usize = 26;
const UDP_PORTS: usize = 34;
const UDP_LENGTH: usize = 38;
const UDP_CHECKSUM: usize = 40;
/// The virtio-net header (5.1.6) of a frame that is to be cut into IP fragments: the checksum is begun, UDP's and
/// where it is, bytes of each fragment.
pub const FRAGMENTED: [u8; HEADER_LEN] = {
    let (headers, fragment) = ((UDP_PORTS + 8) as u16, FRAGMENT.to_le_bytes());
    let [start, offset] = [UDP_PORTS as u16, (UDP_CHECKSUM - UDP_PORTS) as u16];
    [1, 3, headers as u8, 0, fragment[0], fragment[1], start as u8, 0, offset as u8, 0, 0, 0]
};
/// UDP's bytes in each fragment: what an MTU of 1500 leaves room for.
const FRAGMENT: u16 = 1480;
/// Frames that are longer may be asked to be cut.
pub const UNCUT: usize = 1514;
const KEY: usize = 42;
/// Where the timestamp is.
pub const TIMESTAMP: usize = 48;
/// Where the sequence number is.
pub const SEQUENCE: usize = 56;
/// Most flows there can be.
pub const FLOWS_MAX: u32 = 1 << 24;
const MARK: u64 = 0x5752 << 24;

/// Who sends to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Destination MAC.
    pub to: [u8; 6],
    /// Source MAC.
    pub from: [u8; 6],
    /// The second network of RFC 2544's two (198.18.0.0/16, 198.19.0.0/16) is the source.
    pub reverse: bool,
}

/// What is in the place of a frame's UDP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// 0: there is none.
    Absent,
    /// That of the frame.
    Full,
    /// The sum of the pseudo header: whoever cuts the frame into fragments, or receives it, is to do the rest.
    Begun,
}

/// What all frames of one sender have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Sizes without FCS, in the order in which they are sent, again and again.
    pub sizes: Vec<usize>,
    /// UDP 5-tuples, taken in turn.
    pub flows: u32,
    /// Number of the first one.
    pub flow_base: u32,
    /// Addresses.
    pub addresses: Addresses,
    /// What is in the place of the UDP checksum.
    pub checksum: Checksum,
    /// Tells a trial's packets from those of the one before.
    pub epoch: u8,
}

/// The 48 bits that say: ours, of this trial, of this flow.
pub fn key(flow: u32, epoch: u8) -> u64 {
    u64::from(flow) | MARK | u64::from(epoch) << 40
}

/// The key in a frame's word at [`KEY_WORD`].
#[inline(always)]
pub fn key_of(word: u64) -> u64 {
    word >> 16
}

/// Where to read a word that [`key_of`] takes.
pub const KEY_WORD: usize = KEY - 2;

/// Whether `key` is ours, whatever the trial; if so, flow and epoch.
pub fn split_key(key: u64) -> Option<(u32, u8)> {
    (key & 0xffff << 24 == MARK).then_some(((key & 0xff_ffff) as u32, (key >> 40) as u8))
}

/// The frame length that a frame's IPv4 header says, from the word at byte 16.
#[inline(always)]
pub fn stated_length(word_at_16: u32) -> usize {
    usize::from((word_at_16 as u16).swap_bytes()) + ETHERNET
}

/// Where to read the word that [`stated_length`] takes.
pub const LENGTH_WORD: usize = IP_LENGTH;

/// The filling's byte at `at`.
fn filling(at: usize) -> u8 {
    (at as u8).wrapping_mul(37).wrapping_add(11)
}

/// The filling of the longest frame, behind the head; sizes differ only in where it ends.
pub fn tail(room: usize) -> Vec<u8> {
    (HEAD..room.max(HEAD)).map(filling).collect()
}

/// One's complement sum of 16-bit words in the host's order, as if `bytes` began at an even offset.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let odd = words.remainder().first().map_or(0, |b| u64::from(u16::from_ne_bytes([*b, 0])));
    words.map(|w| u64::from(u16::from_ne_bytes([w[0], w[1]]))).sum::<u64>() + odd
}

fn fold(sum: u64) -> u16 {
    // Sums here are of less than 2^17 words.
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    ((twice & 0xffff) + (twice >> 16)) as u16
}

/// What a UDP checksum adds up besides the bytes from the IP addresses on: protocol, and the length again.
fn pseudo(udp_length: usize) -> u64 {
    u64::from(17u16.to_be()) + u64::from((udp_length as u16).to_be())
}

/// A frame's first 64 bytes, but for flow, time and number, and what is needed to fill those in.
#[derive(Clone, Debug)]
pub struct Template {
    /// Bytes of the frame.
    pub size: usize,
    head: [u8; HEAD],
    ip_sum: u64,
    tail_sum: u64,
    pseudo: u64,
    checksum: Checksum,
    reverse: bool,
}

impl Template {
    /// For frames of `size` bytes.
    pub fn new(size: usize, addresses: Addresses, checksum: Checksum) -> Template {
        let mut head = [0; HEAD];
        for (at, byte) in head.iter_mut().enumerate().take(size).skip(MIN) {
            *byte = filling(at);
        }
        let ip = (size - ETHERNET).min(0xffff);
        let networks = if addresses.reverse { [19, 18] } else { [18, 19] };
        let put = |head: &mut [u8; HEAD], at: usize, bytes: &[u8]| {
            head[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(&mut head, 0, &addresses.to);
        put(&mut head, 6, &addresses.from);
        put(&mut head, 12, &[8, 0, 0x45, 0]);
        put(&mut head, IP_LENGTH, &(ip as u16).to_be_bytes());
        // Identification, no fragments, time to live, UDP.
        put(&mut head, 18, &[0, 0, 0x40, 0, 64, 17]);
        put(&mut head, IP_SOURCE, &[198, networks[0], 0, 0, 198, networks[1], 0, 1]);
        put(&mut head, UDP_LENGTH, &((ip - 20) as u16).to_be_bytes());
        let filler: Vec<u8> = (HEAD..size).map(filling).collect();
        Template {
            size,
            head,
            ip_sum: sum(&head[14..34]),
            tail_sum: sum(&filler) + pseudo(ip - 20),
            pseudo: pseudo(ip - 20),
            checksum,
            reverse: addresses.reverse,
        }
    }

    /// The first 64 bytes of a packet of `flow`.
    #[inline(always)]
    pub fn head(&self, flow: u32, epoch: u8, timestamp: u64, sequence: u32) -> [u8; HEAD] {
        let mut head = self.head;
        // Hosts and ports differ by flow, so that both kinds of RSS (addresses, addresses and ports) spread
        // them; the network stays.
        let host = ((flow % 65000 + 1) as u16).to_be_bytes();
        head[IP_SOURCE + 2..IP_SOURCE + 4].copy_from_slice(&host);
        let ip = !fold(self.ip_sum + u64::from(u16::from_ne_bytes(host)));
        head[IP_CHECKSUM..IP_CHECKSUM + 2].copy_from_slice(&ip.to_ne_bytes());
        let ports = [10_000 + (flow % 50_000) as u16, 9000 + (flow / 50_000) as u16];
        head[UDP_PORTS..UDP_PORTS + 2].copy_from_slice(&ports[usize::from(self.reverse)].to_be_bytes());
        head[UDP_PORTS + 2..UDP_PORTS + 4].copy_from_slice(&ports[usize::from(!self.reverse)].to_be_bytes());
        head[KEY..KEY + 6].copy_from_slice(&key(flow, epoch).to_le_bytes()[..6]);
        head[TIMESTAMP..TIMESTAMP + 8].copy_from_slice(&timestamp.to_ne_bytes());
        head[SEQUENCE..SEQUENCE + 4].copy_from_slice(&sequence.to_ne_bytes());
        let udp = match self.checksum {
            Checksum::Absent => return head,
            Checksum::Begun => fold(self.pseudo + sum(&head[IP_SOURCE..UDP_PORTS])),
            // 0 would mean that there is none.
            Checksum::Full => match !fold(self.tail_sum + sum(&head[IP_SOURCE..])) {
                0 => 0xffff,
                udp => udp,
            },
        };
        head[UDP_CHECKSUM..UDP_CHECKSUM + 2].copy_from_slice(&udp.to_ne_bytes());
        head
    }
}

/// Adds up a received frame, piece by piece, to check its UDP checksum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checker {
    sum: u64,
    length: usize,
}

impl Checker {
    /// The next bytes of the frame.
    pub fn add(&mut self, bytes: &[u8]) {
        let skip = IP_SOURCE.saturating_sub(self.length).min(bytes.len());
        let counted = &bytes[skip..];
        let part = u64::from(fold(sum(counted)));
        // A piece that starts at an odd offset has its bytes in the other halves of the words.
        let odd = (self.length + skip) % 2 == 1;
        self.sum += if odd { u64::from((part as u16).swap_bytes()) } else { part };
        self.length += bytes.len();
    }

    /// Whether the checksum is right.
    pub fn good(&self) -> bool {
        self.length >= MIN && fold(self.sum + pseudo(self.length - ETHERNET - 20)) == 0xffff
    }
}

/// Swaps destination and source MAC at the start of a frame.
pub fn swap_macs(head: &mut [u8]) {
    if let Some(macs) = head.get_mut(..12) {
        macs.rotate_left(6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: Addresses =
        Addresses { to: [2, 0, 0, 0, 0, 2], from: [2, 0, 0, 0, 0, 1], reverse: false };

    fn frame(size: usize, flow: u32) -> Vec<u8> {
        let head = Template::new(size, ADDRESSES, Checksum::Full).head(flow, 7, 0x1234_5678_9abc, 99);
        let mut frame = head.to_vec();
        frame.extend(tail(size));
        frame.truncate(size);
        frame
    }

    #[test]
    fn headers_are_right() {
        for size in [60, 61, 64, 65, 570, 1514, 9000] {
            for flow in [0, 1, 64_999, 65_000, 1_000_000] {
                let frame = frame(size, flow);
                assert_eq!(frame.len(), size);
                assert_eq!(fold(sum(&frame[14..34])), 0xffff, "IPv4 checksum, {size} bytes, flow {flow}");
                let mut checker = Checker::default();
                checker.add(&frame);
                assert!(checker.good(), "UDP checksum, {size} bytes, flow {flow}");
                let word = |at: usize| u64::from_ne_bytes(frame[at..at + 8].try_into().expect("8 bytes"));
                assert_eq!(key_of(word(KEY_WORD)), key(flow, 7));
                assert_eq!(split_key(key(flow, 7)), Some((flow, 7)));
                assert_eq!(stated_length(word(LENGTH_WORD) as u32), size);
            }
        }
    }

    #[test]
    fn any_changed_byte_is_noticed_in_any_pieces() {
        let good = frame(131, 5);
        for cut in [1, 20, 26, 27, 63, 64, 100] {
            let mut checker = Checker::default();
            checker.add(&good[..cut]);
            checker.add(&good[cut..]);
            assert!(checker.good(), "in two pieces, cut at {cut}");
        }
        for at in IP_SOURCE..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let mut checker = Checker::default();
            checker.add(&bad);
            assert!(!checker.good(), "byte {at}");
        }
    }

    #[test]
    fn what_is_not_ours_is_not_ours() {
        assert_eq!(split_key(0), None);
        assert_eq!(split_key(u64::MAX), None);
    }
}
