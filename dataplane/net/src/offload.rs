//! What a virtio-net header asks for (virtio 1.2, 5.1.6).

use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN,
    VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6,
};

use crate::Checksum;
use crate::packet::{Network, Packet, Transport, word};

pub(crate) const NEEDS_CSUM: u8 = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
pub(crate) const DATA_VALID: u8 = VIRTIO_NET_HDR_F_DATA_VALID as u8;
pub(crate) const GSO_ECN: u8 = VIRTIO_NET_HDR_GSO_ECN as u8;

/// The first ten bytes of a virtio-net header: those that say what is left to do with the frame.
///
/// Everything in it is the sender's word; [`check`](Offload::check) verifies it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// VIRTIO_NET_HDR_F_*: NEEDS_CSUM, DATA_VALID, RSC_INFO.
    pub flags: u8,
    /// VIRTIO_NET_HDR_GSO_*.
    pub gso_type: u8,
    /// Length of all headers, in bytes; a hint.
    pub hdr_len: u16,
    /// Bytes each segment carries behind the headers (of an IP fragment: behind the IP header).
    pub gso_size: u16,
    /// Where what is summed begins, in bytes from the start of the frame.
    pub csum_start: u16,
    /// Where the checksum is, in bytes from there.
    pub csum_offset: u16,
}

impl Offload {
    /// Its length in bytes.
    pub const LEN: usize = 10;

    /// Nothing is left to do, and the checksums were found right.
    pub const VALID: Offload =
        Offload { flags: DATA_VALID, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };

    /// What is left to do with a TCP or UDP frame whose checksum field holds the pseudo header's sum only. `front` is
    /// the frame's first bytes, with all headers. `None` if it is no such frame. (UDP without a checksum has 0 in the
    /// field, which no pseudo header comes to: nothing is left to do with that.)
    pub fn partial(front: &[u8]) -> Option<Offload> {
        let layers = Packet::parse(front)?.layers;
        let csum_offset = layers.transport.checksum_offset();
        let at = layers.l4() + usize::from(csum_offset);
        if layers.transport == Transport::Udp && word(front, at) == Some(0) {
            return Some(Offload::default());
        }
        Some(Offload { flags: NEEDS_CSUM, csum_start: layers.l4() as u16, csum_offset, ..Offload::default() })
    }

    /// The same of a frame that was made of TCP segments of `size` bytes each; `None` if it is not TCP.
    pub fn coalesced(self, front: &[u8], size: u16) -> Option<Offload> {
        let layers = Packet::parse(front)?.layers;
        let gso_type = match (layers.transport, layers.network) {
            (Transport::Udp, _) => return None,
            (_, Network::V4) => VIRTIO_NET_HDR_GSO_TCPV4 as u8,
            (_, Network::V6) => VIRTIO_NET_HDR_GSO_TCPV6 as u8,
        };
        Some(Offload { gso_type, gso_size: size, hdr_len: layers.header_len() as u16, ..self })
    }

    /// Reads it: little endian, as every guest's we serve is.
    #[inline(always)]
    pub fn from_bytes(bytes: &[u8; Offload::LEN]) -> Offload {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Offload {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }

    /// Writes it.
    #[inline]
    pub fn to_bytes(self) -> [u8; Offload::LEN] {
        let mut bytes = [self.flags, self.gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
        let words = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset];
        for (field, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            field.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Whether the frame is complete as it is: nothing to sum, nothing to segment. What else the header says is
    /// then of no meaning, but for DATA_VALID.
    #[inline(always)]
    pub fn asks_nothing(&self) -> bool {
        u16::from_le_bytes([self.flags & NEEDS_CSUM, self.gso_type]) == 0
    }

    /// The checksum it leaves to complete. Of a header that was not checked, it may be outside the frame.
    #[inline]
    pub fn checksum(&self) -> Option<Checksum> {
        self.needs_csum().then(|| Checksum::new(self.csum_start, self.csum_offset))
    }

    #[inline]
    pub(crate) fn needs_csum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_and_written_little_endian() {
        let bytes = [1, 0x81, 2, 3, 4, 5, 6, 7, 8, 9];
        let offload = Offload {
            flags: 1,
            gso_type: 0x81,
            hdr_len: 0x302,
            gso_size: 0x504,
            csum_start: 0x706,
            csum_offset: 0x908,
        };
        assert_eq!(Offload::from_bytes(&bytes), offload);
        assert_eq!(offload.to_bytes(), bytes);
    }

    #[test]
    fn nothing_is_asked_without_needs_csum_and_gso() {
        // DATA_VALID and RSC_INFO ask for nothing, nor do values nobody uses.
        assert!(Offload { flags: 0xfe, csum_start: 1, gso_size: 1, ..Offload::default() }.asks_nothing());
        assert!(!Offload { flags: 1, ..Offload::default() }.asks_nothing());
        assert!(!Offload { gso_type: 0x80, ..Offload::default() }.asks_nothing());
    }
}
