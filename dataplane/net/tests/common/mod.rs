//! Frames to segment, and what is right about a packet, both told without the code under test.

#![allow(dead_code)] // no test uses all of it

pub mod check;

use net::{Action, Offload, Plan, Segments, Sum, Takes, decide};

pub const HEADER_MAX: usize = net::HEADER_MAX;

pub const TCPV4: u8 = 1;
pub const UDP: u8 = 3;
pub const TCPV6: u8 = 4;
pub const UDP_L4: u8 = 5;
pub const ECN: u8 = 0x80;

/// The extension header with the destination in it.
const ROUTED: (u8, u8) = (43, 2);

/// A packet to make.
#[derive(Clone, Debug)]
pub struct Shape {
    pub vlan_tags: usize,
    pub network: Network,
    pub transport: Transport,
    /// Bytes behind all headers.
    pub payload: usize,
    pub seed: u64,
}

#[derive(Clone, Debug)]
pub enum Network {
    /// With so many words of options.
    V4 { options: usize },
    /// With these extension headers: what each is, and its length behind the first 8 bytes, in units of 8. A routing
    /// header of two such units has an address, that of the destination.
    V6 { extensions: Vec<(u8, u8)> },
}

#[derive(Clone, Debug)]
pub enum Transport {
    /// With so many words of options.
    Tcp {
        options: usize,
        flags: u8,
    },
    Udp,
}

impl Shape {
    pub fn is_v4(&self) -> bool {
        matches!(self.network, Network::V4 { .. })
    }

    pub fn is_tcp(&self) -> bool {
        matches!(self.transport, Transport::Tcp { .. })
    }

    pub fn l2(&self) -> usize {
        14 + 4 * self.vlan_tags
    }

    pub fn l3(&self) -> usize {
        match &self.network {
            Network::V4 { options } => 20 + 4 * options,
            Network::V6 { extensions } => {
                40 + extensions.iter().map(|(_, more)| 8 + 8 * usize::from(*more)).sum::<usize>()
            }
        }
    }

    /// Where TCP or UDP begins.
    pub fn l4(&self) -> usize {
        self.l2() + self.l3()
    }

    pub fn header(&self) -> usize {
        self.l4() + if let Transport::Tcp { options, .. } = self.transport { 20 + 4 * options } else { 8 }
    }

    pub fn csum_offset(&self) -> usize {
        if self.is_tcp() { 16 } else { 6 }
    }

    pub fn outline(&self) -> check::Outline {
        check::Outline {
            v4: self.is_v4(),
            tcp: self.is_tcp(),
            l2: self.l2(),
            l4: self.l4(),
            header: self.header(),
            destination: self.destination(),
            error: 0,
        }
    }

    /// Where the last destination's address is, if there is a routing header.
    pub fn destination(&self) -> Option<usize> {
        let Network::V6 { extensions } = &self.network else { return None };
        let at = extensions.iter().rposition(|extension| *extension == ROUTED)?;
        let before = extensions[..at].iter().map(|(_, more)| 8 + 8 * usize::from(*more)).sum::<usize>();
        Some(self.l2() + 40 + before + 8)
    }

    /// The segmentations there are for it.
    pub fn gso_types(&self) -> &'static [u8] {
        match (&self.transport, &self.network) {
            (Transport::Tcp { .. }, Network::V4 { .. }) => &[TCPV4, TCPV4 | ECN],
            (Transport::Tcp { .. }, Network::V6 { .. }) => &[TCPV6, TCPV6 | ECN],
            (Transport::Udp, _) => &[UDP_L4, UDP],
        }
    }

    /// A header that leaves the checksum to complete, and segments of `gso_size`.
    pub fn offload(&self, gso_type: u8, gso_size: u16) -> Offload {
        Offload {
            flags: 1,
            gso_type,
            hdr_len: self.header() as u16,
            gso_size,
            csum_start: self.l4() as u16,
            csum_offset: self.csum_offset() as u16,
        }
    }

    /// The frame, with the pseudo header's sum where the checksum belongs.
    pub fn partial(&self) -> Vec<u8> {
        let mut frame = self.bare();
        let at = self.l4() + self.csum_offset();
        let sum = self.outline().pseudo_header(&frame, frame.len() - self.l4());
        put(&mut frame, at, sum);
        frame
    }

    /// The frame, complete.
    pub fn complete(&self) -> Vec<u8> {
        let mut frame = self.partial();
        let value = !sum_words(&frame[self.l4()..]);
        put(&mut frame, self.l4() + self.csum_offset(), if value == 0 { 0xffff } else { value });
        frame
    }

    fn bare(&self) -> Vec<u8> {
        let mut random = Random(self.seed | 1);
        // Unicast, locally administered.
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for tag in 0..self.vlan_tags {
            let ethertype: [u8; 2] = if tag + 1 < self.vlan_tags { [0x88, 0xa8] } else { [0x81, 0] };
            frame.extend(ethertype);
            frame.extend([0, 5 + tag as u8]);
        }
        self.push_ip(&mut frame, &mut random);
        self.push_l4(&mut frame, &mut random);
        frame.extend((0..self.payload).map(|_| random.byte()));
        if let Network::V4 { .. } = self.network {
            let (l2, l4) = (self.l2(), self.l4());
            let value = !sum_words(&frame[l2..l4]);
            put(&mut frame, l2 + 10, value);
        }
        frame
    }

    fn push_ip(&self, frame: &mut Vec<u8>, random: &mut Random) {
        let protocol = if self.is_tcp() { 6 } else { 17 };
        let behind = (self.header() - self.l4() + self.payload) as u16;
        match &self.network {
            Network::V4 { options } => {
                let len = (20 + 4 * options) as u16;
                frame.extend([8, 0, 0x45 + *options as u8, 0]);
                frame.extend((len + behind).to_be_bytes());
                frame.extend([random.byte(), random.byte(), 0x40, 0, 64, protocol, 0, 0]);
                frame.extend([10, 0, 0, random.byte(), 10, 0, 1, random.byte()]);
                frame.extend(std::iter::repeat_n(1, 4 * options)); // no operation
            }
            Network::V6 { extensions } => {
                let first = extensions.first().map_or(protocol, |(next, _)| *next);
                frame.extend([0x86, 0xdd, 0x60, 0, 0, random.byte()]);
                frame.extend(((self.l3() - 40) as u16 + behind).to_be_bytes());
                frame.extend([first, 64]);
                for end in [1, 2] {
                    frame.extend([0xfd, 0, 0, 0, 0, 0, 0, end, 0, 0, 0, 0, 0, 0, 0, random.byte()]);
                }
                for (at, (_, more)) in extensions.iter().enumerate() {
                    let next = extensions.get(at + 1).map_or(protocol, |(next, _)| *next);
                    // One PadN option, or a type of routing and the segments left.
                    let kind = match extensions[at] {
                        ROUTED => [0, 1],
                        (43, _) => [253, 0],
                        _ => [1, 4 + 8 * *more],
                    };
                    frame.extend([next, *more, kind[0], kind[1], 0, 0, 0, 0]);
                    let routing = extensions[at].0 == 43;
                    frame.extend((0..8 * *more).map(|byte| if routing { byte } else { 0 }));
                }
            }
        }
    }

    fn push_l4(&self, frame: &mut Vec<u8>, random: &mut Random) {
        frame.extend([0x30, random.byte(), 0x40, random.byte()]);
        match &self.transport {
            Transport::Tcp { options, flags } => {
                frame.extend((0..8).map(|_| random.byte()));
                frame.extend([(5 + *options as u8) << 4, *flags, 0x20, 0, 0, 0, 0, 0]);
                frame.extend(std::iter::repeat_n(1, 4 * options)); // no operation
            }
            Transport::Udp => {
                frame.extend(((8 + self.payload) as u16).to_be_bytes());
                frame.extend([0, 0]);
            }
        }
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u8
    }
}

/// A frame, and what its header asks for.
pub struct Case {
    pub shape: Shape,
    pub offload: Offload,
    pub frame: Vec<u8>,
}

impl Case {
    pub fn name(&self) -> String {
        let (gso, size) = (self.offload.gso_type, self.offload.gso_size);
        format!("{:?} gso_type {gso:#x} gso_size {size}", self.shape)
    }
}

/// Every kind of packet, a checksum alone and every segmentation, lengths from one byte to the most there can be.
pub fn matrix() -> Vec<Case> {
    let networks = [
        Network::V4 { options: 0 },
        Network::V4 { options: 3 },
        Network::V6 { extensions: vec![] },
        Network::V6 { extensions: vec![(0, 0), ROUTED, (60, 2)] },
    ];
    // Everything but RST, SYN and URG.
    let tcp = |options| Transport::Tcp { options, flags: 0xd9 };
    let transports = [tcp(0), tcp(3), Transport::Udp];
    let mut cases = Vec::new();
    for (vlan_tags, network) in (0..=2).flat_map(|tags| networks.iter().map(move |it| (tags, it))) {
        for transport in &transports {
            for (payload, size) in [(1, 700), (1449, 1448), (20_000, 1001), (usize::MAX, 1448)] {
                let (network, transport) = (network.clone(), transport.clone());
                let mut shape =
                    Shape { vlan_tags, network, transport, payload, seed: cases.len() as u64 * 7919 };
                // An IPv4 packet is no longer; longer than 64 KiB, a tap takes no frame.
                shape.payload = payload.min(65_535 - shape.header());
                let frame = shape.partial();
                cases.extend([0].iter().chain(shape.gso_types()).map(|gso_type| {
                    let size = match *gso_type {
                        0 => 0,
                        UDP => size / 8 * 8,
                        _ => size,
                    };
                    let offload = shape.offload(*gso_type, size);
                    Case { shape: shape.clone(), offload, frame: frame.clone() }
                }));
            }
        }
    }
    cases
}

/// What is in force for a source that may leave everything to us.
pub fn plan(offload: Offload, frame: &[u8]) -> Plan {
    offload.check(&frame[..frame.len().min(HEADER_MAX)], frame.len(), Takes::ALL).expect("a good header")
}

/// All segments of `frame`, complete.
pub fn complete_segments(plan: &Plan, frame: &[u8]) -> Vec<Vec<u8>> {
    let mut segments = Segments::new(plan, [frame]);
    let mut frames = Vec::new();
    while let Some(segment) = segments.next_complete(|part| Sum::of(&frame[part])) {
        assert!(segment.offload.asks_nothing());
        frames.push([segment.header, &frame[segment.payload]].concat());
    }
    frames
}

/// All segments of `frame` with their checksums left to complete, and what their headers say.
pub fn partial_segments(plan: &Plan, frame: &[u8]) -> Vec<(Offload, Vec<u8>)> {
    let mut segments = Segments::new(plan, [frame]);
    let mut frames = Vec::new();
    while let Some(segment) = segments.next_partial() {
        frames.push((segment.offload, [segment.header, &frame[segment.payload]].concat()));
    }
    frames
}

/// What a destination that takes nothing gets.
pub fn in_software(plan: &Plan, frame: &[u8]) -> Vec<Vec<u8>> {
    match decide(plan, Takes::NOTHING) {
        Action::PassOn(offload) => {
            assert_eq!(offload, Offload::default());
            vec![frame.to_vec()]
        }
        Action::Checksum(checksum) => {
            let mut frame = frame.to_vec();
            checksum.complete(&mut frame);
            vec![frame]
        }
        Action::Segment { partial } => {
            assert!(!partial);
            complete_segments(plan, frame)
        }
    }
}

/// The one's complement sum, word by word.
pub fn sum_words(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u64 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

pub fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}
