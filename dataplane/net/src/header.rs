//! The virtio-net header (virtio 1.2, section 5.1.6).

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;

use crate::Offload;

/// Whether a packet for the guest may span several of its buffers.
pub fn mergeable(features: u64) -> bool {
    has(features, VIRTIO_NET_F_MRG_RXBUF)
}

pub(crate) fn has(features: u64, bit: u32) -> bool {
    features & 1 << bit != 0
}

/// The header in front of a frame for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; 12],
    len: u8,
}

impl Header {
    /// A header that asks for nothing: no checksum to complete, no segmentation. The acknowledged `features`
    /// shape it: 12 bytes with VERSION_1 or MRG_RXBUF, else 10.
    pub fn plain(features: u64) -> Header {
        let long = has(features, VIRTIO_F_VERSION_1) || mergeable(features);
        Header { bytes: [0; 12], len: if long { 12 } else { 10 } }
    }

    /// The same header, with what is left to the guest.
    #[inline]
    pub fn with(mut self, offload: Offload) -> Header {
        self.bytes[..Offload::LEN].copy_from_slice(&offload.to_bytes());
        self
    }

    /// Its length in bytes.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> u32 {
        u32::from(self.len)
    }

    /// Its bytes for a packet that spans `buffers` of the guest's receive buffers. (Without MRG_RXBUF the
    /// field is 1 under VERSION_1, and absent else: virtio 1.2, 5.1.6.4.1.)
    #[inline(always)]
    pub fn spanning(&mut self, buffers: u16) -> &[u8] {
        self.bytes[10..12].copy_from_slice(&buffers.to_le_bytes());
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_as_long_as_the_features_say() {
        let merge = 1 << VIRTIO_NET_F_MRG_RXBUF;
        let modern = 1 << VIRTIO_F_VERSION_1;
        for (features, len) in [(0, 10), (merge, 12), (modern, 12), (merge | modern, 12)] {
            assert_eq!(Header::plain(features).len(), len);
        }
    }

    #[test]
    fn leaves_to_the_guest_what_it_is_told() {
        let offload = Offload { flags: 1, csum_start: 34, csum_offset: 16, ..Offload::default() };
        let mut header = Header::plain(1 << VIRTIO_F_VERSION_1).with(offload);
        assert_eq!(header.spanning(2), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 2, 0]);
    }

    #[test]
    fn says_how_many_buffers_it_spans() {
        assert_eq!(
            Header::plain(1 << VIRTIO_F_VERSION_1).spanning(0x102),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1]
        );
        assert_eq!(Header::plain(0).spanning(1), [0; 10]);
    }
}
