//! What a tap may hand out, by what the guest takes.

use nix::libc::{TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_TSO6, TUN_F_UFO, TUN_F_USO4, TUN_F_USO6};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
};

/// What kernels before 6.2 do not know. Newer ones take both or none.
pub(super) const UDP_SEGMENTATION: u32 = TUN_F_USO4 | TUN_F_USO6;

/// TUN_F_ bits for a guest that acknowledged `features`.
pub(super) fn accepted(features: u64) -> u32 {
    let has = |bit: u32| features & 1 << bit != 0;
    // All else needs the checksum to be completed by the guest (virtio 1.2, 5.1.3.1).
    if !has(VIRTIO_NET_F_GUEST_CSUM) {
        return 0;
    }
    let mut accepted = TUN_F_CSUM;
    for (feature, offload) in [
        (VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4),
        (VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6),
        (VIRTIO_NET_F_GUEST_UFO, TUN_F_UFO),
    ] {
        if has(feature) {
            accepted |= offload;
        }
    }
    if has(VIRTIO_NET_F_GUEST_ECN) && accepted & (TUN_F_TSO4 | TUN_F_TSO6) != 0 {
        accepted |= TUN_F_TSO_ECN;
    }
    if has(VIRTIO_NET_F_GUEST_USO4) && has(VIRTIO_NET_F_GUEST_USO6) {
        accepted |= UDP_SEGMENTATION;
    }
    accepted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_what_the_guest_takes() {
        let bits = |bits: &[u32]| bits.iter().fold(0u64, |all, bit| all | 1 << bit);
        for (features, expected) in [
            (bits(&[]), 0),
            (bits(&[VIRTIO_NET_F_GUEST_CSUM]), TUN_F_CSUM),
            (bits(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4]), TUN_F_CSUM | TUN_F_TSO4),
            (bits(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN]), TUN_F_CSUM),
            (
                bits(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN]),
                TUN_F_CSUM | TUN_F_TSO6 | TUN_F_TSO_ECN,
            ),
            (bits(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_UFO]), TUN_F_CSUM | TUN_F_UFO),
            (bits(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_USO4]), TUN_F_CSUM),
            (
                bits(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6]),
                TUN_F_CSUM | UDP_SEGMENTATION,
            ),
            // Segmentation without checksums is none.
            (bits(&[VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_UFO]), 0),
        ] {
            assert_eq!(accepted(features), expected, "{features:#x}");
        }
    }
}
