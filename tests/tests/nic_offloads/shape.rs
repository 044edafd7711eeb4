//! TCP and UDP frames, with the virtio-net headers that leave something of them to be done.

/// Bytes of a virtio-net header.
pub const HEADER: usize = 12;

/// A frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub v6: bool,
    pub tcp: bool,
    /// VLAN tags.
    pub tags: usize,
    /// Bytes of IPv6 destination options.
    pub options: usize,
    /// Bytes behind all headers.
    pub payload: usize,
    /// Bytes of it in each segment; 0: it is not to be cut.
    pub segment: usize,
    /// Differs in each frame of a test; TCP's and UDP's source port.
    pub id: u16,
}

impl Shape {
    fn l2(self) -> usize {
        14 + 4 * self.tags
    }

    fn l4(self) -> usize {
        self.l2() + if self.v6 { 40 + self.options } else { 20 }
    }

    /// Where the payload begins.
    pub fn header(self) -> usize {
        self.l4() + if self.tcp { 20 } else { 8 }
    }

    /// How many packets it becomes.
    pub fn packets(self) -> usize {
        if self.segment == 0 { 1 } else { self.payload.div_ceil(self.segment) }
    }

    /// The payload.
    pub fn content(self) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(self.id.into());
        let mut bytes = vec![0; self.payload];
        random.fill(&mut bytes);
        bytes
    }

    /// The frame, with the pseudo header's sum where the checksum goes.
    pub fn frame(self) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        (0..self.tags).for_each(|_| bytes.extend([0x81, 0, 0, 5]));
        let (l4, l4_len) = (self.l4(), self.header() - self.l4() + self.payload);
        let protocol = if self.tcp { 6 } else { 17 };
        let addresses = if self.v6 {
            let next = if self.options > 0 { 60 } else { protocol };
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(((self.options + l4_len) as u16).to_be_bytes());
            bytes.extend([next, 64]);
            bytes.extend([0xfd; 16]);
            bytes.extend([0xfc; 16]);
            if self.options > 0 {
                // Padding only.
                bytes.extend([protocol, (self.options / 8 - 1) as u8, 1, (self.options - 4) as u8]);
                bytes.resize(l4, 0);
            }
            self.l2() + 8..self.l2() + 40
        } else {
            bytes.extend([8, 0, 0x45, 0]);
            bytes.extend((20 + l4_len as u16).to_be_bytes());
            bytes.extend([1, 2, 0x40, 0, 64, protocol, 0, 0, 10, 79, 9, 1, 10, 79, 9, 2]);
            let sum = !sum(&bytes[self.l2()..]);
            bytes[self.l2() + 10..][..2].copy_from_slice(&sum.to_be_bytes());
            self.l2() + 12..self.l2() + 20
        };
        let mut pseudo = bytes[addresses].to_vec();
        pseudo.extend((l4_len as u32).to_be_bytes());
        pseudo.extend([0, protocol]);
        bytes.extend(self.id.to_be_bytes());
        bytes.extend([0x30, 0x39]);
        if self.tcp {
            bytes.extend([0, 0, 0, 9, 0, 0, 0, 7, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        } else {
            bytes.extend((l4_len as u16).to_be_bytes());
            bytes.extend([0, 0]);
        }
        bytes[l4 + self.offset()..][..2].copy_from_slice(&sum(&pseudo).to_be_bytes());
        bytes.extend(self.content());
        bytes
    }

    /// Where the checksum is in TCP's or UDP's header.
    fn offset(self) -> usize {
        if self.tcp { 16 } else { 6 }
    }

    /// The header that leaves the checksum, and the cutting.
    pub fn virtio_header(self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = 1;
        header[1] = match (self.segment, self.tcp, self.v6) {
            (0, ..) => 0,
            (_, true, false) => 1,
            (_, true, true) => 4,
            (_, false, _) => 5,
        };
        let words = [self.header(), self.segment, self.l4(), self.offset()];
        for (field, word) in header[2..].chunks_exact_mut(2).zip(words) {
            field.copy_from_slice(&(word as u16).to_le_bytes());
        }
        header
    }

    /// Whether a frame that arrived was made of this one.
    pub fn is_of(self, frame: &[u8]) -> bool {
        frame.get(self.l4()..self.l4() + 2) == Some(&self.id.to_be_bytes())
            && frame[..self.l2()] == self.frame()[..self.l2()]
    }
}

/// The one's complement sum of words.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}
