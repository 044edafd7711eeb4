//! What may be left to do with a frame, as a set.

use std::ops::BitOr;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
    VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_UFO,
    VIRTIO_NET_F_HOST_USO,
};

use crate::header::has;

/// What a destination takes off us, or a source may leave to us: checksums and segmentations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takes(u16);

impl Takes {
    /// Nothing: every frame must be complete.
    pub const NOTHING: Takes = Takes(0);
    /// A checksum of TCP over IP, behind any VLAN tags, but not behind IPv6 extension headers: what a NIC does.
    pub const TCP_CSUM: Takes = Takes(1 << 0);
    /// The same of UDP.
    pub const UDP_CSUM: Takes = Takes(1 << 1);
    /// A checksum anywhere in the frame, by `csum_start` and `csum_offset` alone: within a tunnel, behind extension
    /// headers.
    pub const ANY_CSUM: Takes = Takes(1 << 2);
    /// The word that all checksums were found right (VIRTIO_NET_HDR_F_DATA_VALID).
    pub const DATA_VALID: Takes = Takes(1 << 3);
    /// Segmentation of TCP over IPv4.
    pub const TSO4: Takes = Takes(1 << 4);
    /// Segmentation of TCP over IPv6.
    pub const TSO6: Takes = Takes(1 << 5);
    /// The same of TCP segments with CWR set, which only the first may keep.
    pub const ECN: Takes = Takes(1 << 6);
    /// UDP datagrams to be cut into IP fragments.
    pub const UFO: Takes = Takes(1 << 7);
    /// Many UDP datagrams in one, over IPv4.
    pub const USO4: Takes = Takes(1 << 8);
    /// Many UDP datagrams in one, over IPv6.
    pub const USO6: Takes = Takes(1 << 9);
    /// Everything: what Linux takes behind a tap, or an AF_PACKET socket with PACKET_VNET_HDR. (USO: from 6.2 on.)
    pub const ALL: Takes = Takes((1 << 10) - 1);
    /// More datagrams in one than Linux has a place for (UDP_MAX_SEGMENTS). In no destination's set.
    pub(crate) const LONG_USO: Takes = Takes(1 << 10);

    /// Any checksum, and the word that they are right.
    const CSUM: Takes = Takes::TCP_CSUM.and(Takes::UDP_CSUM).and(Takes::ANY_CSUM);

    /// What a guest takes that acknowledged `features`, as VIRTIO_NET_F_GUEST_* say. Without GUEST_CSUM, nothing.
    pub fn to_guest(features: u64) -> Takes {
        let bits = [
            (VIRTIO_NET_F_GUEST_TSO4, Takes::TSO4),
            (VIRTIO_NET_F_GUEST_TSO6, Takes::TSO6),
            (VIRTIO_NET_F_GUEST_ECN, Takes::ECN),
            (VIRTIO_NET_F_GUEST_UFO, Takes::UFO),
            (VIRTIO_NET_F_GUEST_USO4, Takes::USO4),
            (VIRTIO_NET_F_GUEST_USO6, Takes::USO6),
        ];
        let csum = Takes::CSUM | Takes::DATA_VALID;
        Takes::of(features, VIRTIO_NET_F_GUEST_CSUM, csum, &bits)
    }

    /// What a guest may leave to us that acknowledged `features`: VIRTIO_NET_F_CSUM and _HOST_*. Its word that a
    /// checksum is right does not count.
    pub fn from_guest(features: u64) -> Takes {
        let bits = [
            (VIRTIO_NET_F_HOST_TSO4, Takes::TSO4),
            (VIRTIO_NET_F_HOST_TSO6, Takes::TSO6),
            (VIRTIO_NET_F_HOST_ECN, Takes::ECN),
            (VIRTIO_NET_F_HOST_UFO, Takes::UFO),
            (VIRTIO_NET_F_HOST_USO, Takes::USO4 | Takes::USO6),
        ];
        Takes::of(features, VIRTIO_NET_F_CSUM, Takes::CSUM, &bits)
    }

    /// Every segmentation feature asks for the checksum feature (virtio 1.2, 5.1.3.1).
    fn of(features: u64, csum_bit: u32, csum: Takes, bits: &[(u32, Takes)]) -> Takes {
        if !has(features, csum_bit) {
            return Takes::NOTHING;
        }
        bits.iter().filter(|(bit, _)| has(features, *bit)).fold(csum, |all, (_, takes)| all.and(*takes))
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Takes) -> Takes {
        Takes(self.0 | other.0)
    }

    /// This, without `other`.
    #[must_use]
    pub const fn without(self, other: Takes) -> Takes {
        Takes(self.0 & !other.0)
    }

    /// Whether all of `other` is in it.
    #[inline]
    pub const fn contains(self, other: Takes) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether nothing is in it.
    pub const fn is_nothing(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Takes {
    type Output = Takes;

    fn bitor(self, other: Takes) -> Takes {
        self.and(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_takes_what_it_negotiated() {
        assert_eq!(Takes::to_guest(0), Takes::NOTHING);
        assert_eq!(Takes::to_guest(1 << VIRTIO_NET_F_GUEST_CSUM), Takes::CSUM | Takes::DATA_VALID);
        let tso4 = Takes::to_guest(1 << VIRTIO_NET_F_GUEST_CSUM | 1 << VIRTIO_NET_F_GUEST_TSO4);
        assert_eq!(tso4, Takes::CSUM | Takes::DATA_VALID | Takes::TSO4);
        assert_eq!(Takes::to_guest(u64::MAX), Takes::ALL);
        // What it may send is another matter.
        let host = 1 << VIRTIO_NET_F_CSUM | 1 << VIRTIO_NET_F_HOST_TSO4 | 1 << VIRTIO_NET_F_HOST_USO;
        assert_eq!(Takes::to_guest(host), Takes::NOTHING);
        assert_eq!(Takes::from_guest(host), Takes::CSUM | Takes::TSO4 | Takes::USO4 | Takes::USO6);
        assert_eq!(Takes::from_guest(u64::MAX), Takes::ALL.without(Takes::DATA_VALID));
    }

    #[test]
    fn segmentation_without_checksum_is_nothing() {
        assert_eq!(Takes::to_guest(1 << VIRTIO_NET_F_GUEST_TSO4), Takes::NOTHING);
        assert_eq!(Takes::from_guest(1 << VIRTIO_NET_F_HOST_TSO4), Takes::NOTHING);
    }
}
