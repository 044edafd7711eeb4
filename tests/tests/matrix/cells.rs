//! The matrix's frames: what is in them, and how long they are. Each has a source address of its own, by which the
//! judge knows what became of it.

use tests::offload_guest::NetHeader;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
    /// TCP over IPv4 behind a VLAN tag.
    VlanTcp4,
    /// Behind hop-by-hop options and destination options.
    ExtTcp6,
    ExtUdp6,
}

/// All of them.
pub const KINDS: [Kind; 7] =
    [Kind::Tcp4, Kind::Tcp6, Kind::Udp4, Kind::Udp6, Kind::VlanTcp4, Kind::ExtTcp6, Kind::ExtUdp6];

/// How long a frame is, and what is left to do with it besides its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 64 bytes, or the headers and one byte.
    Least,
    /// As the usual MTU of 1500 allows.
    Mtu,
    /// As an MTU of 9000 allows.
    Jumbo,
    /// 64 KiB to be cut as for the usual MTU: TSO, or USO.
    Cut,
    /// 64 KiB to be cut as for jumbo frames.
    CutJumbo,
    /// 64 KiB to be cut into IP fragments: UFO.
    Fragments,
}

/// All of them.
pub const SIZES: [Size; 6] =
    [Size::Least, Size::Mtu, Size::Jumbo, Size::Cut, Size::CutJumbo, Size::Fragments];

/// Where all frames go to, and where they come from unless the kernel has made them.
pub const TO_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const FROM_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The tag's.
pub const VLAN: u8 = 5;
/// MTUs of networks.
pub const USUAL: usize = 1500;
pub const JUMBO: usize = 9000;
/// Longest IP packet: with Ethernet header and VLAN tag less than 64 KiB. What is longer Linux cuts on its way
/// (GSO_MAX_SIZE), and scapy when it reads it.
const LONGEST: usize = u16::MAX as usize - 18;
/// Bytes of an IPv6 fragment header, and what fragments are multiples of.
const FRAGMENT: usize = 8;

/// Options that fill 8 bytes: the next header comes first.
const NO_OPTIONS: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];
/// A timestamp, aligned.
const TCP_OPTIONS: [u8; 12] = [1, 1, 8, 10, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
/// FIN, PSH, ACK: the first two belong to the last segment.
const TCP_FLAGS: u8 = 0x19;

impl Kind {
    pub fn is_tcp(self) -> bool {
        !matches!(self, Kind::Udp4 | Kind::Udp6 | Kind::ExtUdp6)
    }

    fn is_v4(self) -> bool {
        matches!(self, Kind::Tcp4 | Kind::Udp4 | Kind::VlanTcp4)
    }

    fn has_extensions(self) -> bool {
        matches!(self, Kind::ExtTcp6 | Kind::ExtUdp6)
    }

    /// Lengths of what is before IP, of IP, and of TCP or UDP.
    fn headers(self) -> [usize; 3] {
        let ip = if self.is_v4() { 20 } else { 40 };
        [
            if self == Kind::VlanTcp4 { 18 } else { 14 },
            if self.has_extensions() { ip + 16 } else { ip },
            if self.is_tcp() { 20 + TCP_OPTIONS.len() } else { 8 },
        ]
    }

    /// What an MTU leaves for payload.
    fn room(self, mtu: usize) -> usize {
        let [_, ip, l4] = self.headers();
        mtu - ip - l4
    }

    pub fn payload(self, size: Size) -> usize {
        match size {
            Size::Least => 64_usize.saturating_sub(self.headers().iter().sum()).max(1),
            Size::Mtu => self.room(USUAL),
            Size::Jumbo => self.room(JUMBO),
            Size::Cut | Size::CutJumbo | Size::Fragments => self.room(LONGEST),
        }
    }

    /// What the virtio-net header asks for: type and size of the segments.
    fn gso(self, size: Size) -> (u8, usize) {
        let cut = if !self.is_tcp() {
            5
        } else if self.is_v4() {
            1
        } else {
            4
        };
        match size {
            Size::Least | Size::Mtu | Size::Jumbo => (0, 0),
            Size::Cut => (cut, self.room(USUAL)),
            Size::CutJumbo => (cut, self.room(JUMBO)),
            Size::Fragments => {
                let room = USUAL - self.headers()[1] - if self.is_v4() { 0 } else { FRAGMENT };
                (3, room / FRAGMENT * FRAGMENT)
            }
        }
    }
}

/// One frame of the matrix: its number is part of its addresses and ports, and its payload's seed.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub kind: Kind,
    pub size: Size,
    pub number: u8,
}

impl Cell {
    /// All there are.
    pub fn all() -> Vec<Cell> {
        let pairs = KINDS.iter().flat_map(|kind| SIZES.iter().map(move |size| (*kind, *size)));
        // Numbers are the last part of an address.
        (1..).zip(pairs).map(|(number, (kind, size))| Cell { kind, size, number }).collect()
    }

    /// Its frame, its checksum left to complete, behind a header that says so.
    pub fn packet(&self) -> (NetHeader, Vec<u8>) {
        let payload = self.payload();
        let frame = self.frame(0..payload.len(), TCP_FLAGS);
        let [l2, ip, l4] = self.kind.headers();
        let (gso_type, gso_size) = self.kind.gso(self.size);
        let checksum = if self.kind.is_tcp() { 16 } else { 6 };
        let words = [if gso_type == 0 { 0 } else { l2 + ip + l4 }, gso_size, l2 + ip, checksum];
        let mut header = [1, gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
        for (field, word) in header[2..].chunks_exact_mut(2).zip(words) {
            field.copy_from_slice(&(word as u16).to_le_bytes());
        }
        (header, frame)
    }

    /// What a cut frame of TCP is cut into, complete: what is to be judged right.
    pub fn segments(&self) -> Vec<Vec<u8>> {
        let (len, unit) = (self.payload().len(), self.kind.gso(self.size).1);
        let starts = (0..len).step_by(unit);
        let segment = |(n, start)| {
            let last = start + unit >= len;
            let frame = self.frame(start..len.min(start + unit), if last { TCP_FLAGS } else { 0x10 });
            self.finished(frame, n)
        };
        (0..).zip(starts).map(segment).collect()
    }

    /// Completes the checksum of a frame, and counts its identification up.
    fn finished(&self, mut frame: Vec<u8>, n: u16) -> Vec<u8> {
        let [l2, ip, _] = self.kind.headers();
        let at = l2 + ip + if self.kind.is_tcp() { 16 } else { 6 };
        let value = !sum(&[&frame[l2 + ip..]]);
        frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
        if self.kind.is_v4() {
            let id = self.id().wrapping_add(n);
            frame[l2 + 4..l2 + 6].copy_from_slice(&id.to_be_bytes());
            put_ipv4_checksum(&mut frame[l2..l2 + ip]);
        }
        frame
    }

    fn payload(&self) -> Vec<u8> {
        let mut payload = vec![0; self.kind.payload(self.size)];
        fastrand::Rng::with_seed(self.number.into()).fill(&mut payload);
        payload
    }

    fn id(&self) -> u16 {
        // Some go beyond 2^16.
        0xff00 + u16::from(self.number)
    }

    /// The frame with this part of the payload, the pseudo header's sum where its checksum belongs.
    fn frame(&self, part: std::ops::Range<usize>, flags: u8) -> Vec<u8> {
        let payload = &self.payload()[part.clone()];
        let [_, ip, l4] = self.kind.headers();
        let len = (l4 + payload.len()) as u16;
        let mut frame = [TO_MAC, FROM_MAC].concat();
        if self.kind == Kind::VlanTcp4 {
            frame.extend([0x81, 0, 0, VLAN]);
        }
        let addresses = self.addresses();
        let protocol = if self.kind.is_tcp() { 6 } else { 17 };
        if self.kind.is_v4() {
            let total = (ip as u16 + len).to_be_bytes();
            let id = self.id().to_be_bytes();
            frame.extend([8, 0, 0x45, 0, total[0], total[1], id[0], id[1], 0, 0, 64, protocol, 0, 0]);
            frame.extend(&addresses);
            let at = frame.len() - ip;
            put_ipv4_checksum(&mut frame[at..]);
        } else {
            let behind = (ip as u16 - 40 + len).to_be_bytes();
            let next = if self.kind.has_extensions() { 0 } else { protocol };
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, behind[0], behind[1], next, 64]);
            frame.extend(&addresses);
            if self.kind.has_extensions() {
                frame.push(60);
                frame.extend(NO_OPTIONS);
                frame.push(protocol);
                frame.extend(NO_OPTIONS);
            }
        }
        let pseudo = sum(&[&addresses, &len.to_be_bytes(), &[0, protocol]]).to_be_bytes();
        frame.extend((5000 + u16::from(self.number)).to_be_bytes());
        frame.extend(6000_u16.to_be_bytes());
        if self.kind.is_tcp() {
            // It goes beyond 2^32 on the way.
            let sequence = 0xffff_f000_u32.wrapping_add(part.start as u32);
            frame.extend(sequence.to_be_bytes());
            frame.extend([0, 0, 0, 1, 0x80, flags, 0x7f, 0xff, pseudo[0], pseudo[1], 0, 0]);
            frame.extend(TCP_OPTIONS);
        } else {
            frame.extend(len.to_be_bytes());
            frame.extend(pseudo);
        }
        frame.extend(payload);
        frame
    }

    /// Source and destination.
    fn addresses(&self) -> Vec<u8> {
        match self.kind {
            Kind::VlanTcp4 => [[10, 79, 9, self.number], [10, 79, 9, 250]].concat(),
            _ if self.kind.is_v4() => [[10, 79, 8, self.number], [10, 79, 8, 250]].concat(),
            _ => {
                let address = |last| [0xfd, 0x79, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
                [address(self.number), address(250)].concat()
            }
        }
    }
}

fn put_ipv4_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let value = !sum(&[header]);
    header[10..12].copy_from_slice(&value.to_be_bytes());
}

/// The one's complement sum; all parts but the last have an even length.
fn sum(parts: &[&[u8]]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let sum: u32 = parts.iter().flat_map(|part| part.chunks(2)).map(word).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}
