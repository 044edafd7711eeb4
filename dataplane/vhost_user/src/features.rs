//! Feature bits: what is offered, what may be acknowledged, what they are called.
//!
//! A bit is offered only if everything it brings along is served. Not offered, and why: VHOST_F_LOG_ALL (not
//! implemented yet), GUEST_ANNOUNCE (QEMU then leaves it to the guest to say where it is, and sends no SEND_RARP, which
//! is how we learn the guest's address, and so can say the same when its backend changes; frontends that take the
//! config space from us do not serve the command on the control queue by which a guest acknowledges it),
//! RING_RESET (vhost-user has no message for it. A ring that is stopped by GET_VRING_BASE may be set up anew with
//! another size, but QEMU 7.2, told by its guest to reset a ring, says nothing to a vhost-user backend: after
//! `ethtool -G` in a Linux guest both sides disagree, and no packet passes), NOTIFICATION_DATA (a kick is an
//! eventfd, which carries no data).

use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_ANY_LAYOUT, VIRTIO_F_IN_ORDER,
    VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MTU, VIRTIO_NET_F_SPEED_DUPLEX, VIRTIO_NET_F_STATUS,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::DeviceOptions;

/// VHOST_USER_F_PROTOCOL_FEATURES: the frontend knows protocol features. No virtio feature; never the guest's.
pub const PROTOCOL_FEATURES: u32 = 30;

/// Protocol features offered to every frontend.
///
/// CONFIG: QEMU's virtio-net asks its backend for no config space. QEMU 7.2 then prints one warning
/// ("vhost-user backend supports VHOST_USER_PROTOCOL_F_CONFIG but QEMU does not"), leaves the bit out and
/// goes on. Other frontends (crosvm, cloud-hypervisor) take MAC, MTU and the number of queues from it; BACKEND_REQ is
/// for them, to be told when it has changed.
pub const PROTOCOL: Protocol = Protocol::MQ
    .union(Protocol::RARP)
    .union(Protocol::REPLY_ACK)
    .union(Protocol::MTU)
    .union(Protocol::BACKEND_REQ)
    .union(Protocol::CONFIG)
    .union(Protocol::CONFIGURE_MEM_SLOTS)
    .union(Protocol::RESET_DEVICE)
    .union(Protocol::STATUS);

const ALWAYS: [u32; 11] = [
    VIRTIO_F_VERSION_1,
    VIRTIO_F_ANY_LAYOUT,
    VIRTIO_F_RING_PACKED,
    VIRTIO_F_IN_ORDER,
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_NET_F_MRG_RXBUF,
    // These three are about the config space: QEMU and virtio-user provide their own, others pass ours on.
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_STATUS,
    VIRTIO_NET_F_SPEED_DUPLEX,
    PROTOCOL_FEATURES,
];

/// Checksum and segmentation offloads that can be offered, by the names QEMU has for them.
pub const OFFLOADS: [(&str, u32); 13] = [
    ("csum", VIRTIO_NET_F_CSUM),
    ("guest_csum", VIRTIO_NET_F_GUEST_CSUM),
    ("guest_tso4", VIRTIO_NET_F_GUEST_TSO4),
    ("guest_tso6", VIRTIO_NET_F_GUEST_TSO6),
    ("guest_ecn", VIRTIO_NET_F_GUEST_ECN),
    ("guest_ufo", VIRTIO_NET_F_GUEST_UFO),
    ("guest_uso4", VIRTIO_NET_F_GUEST_USO4),
    ("guest_uso6", VIRTIO_NET_F_GUEST_USO6),
    ("host_tso4", VIRTIO_NET_F_HOST_TSO4),
    ("host_tso6", VIRTIO_NET_F_HOST_TSO6),
    ("host_ecn", VIRTIO_NET_F_HOST_ECN),
    ("host_ufo", VIRTIO_NET_F_HOST_UFO),
    ("host_uso", VIRTIO_NET_F_HOST_USO),
];

/// The bits of all [`OFFLOADS`].
pub fn all_offloads() -> u64 {
    OFFLOADS.iter().fold(0, |bits, (_, bit)| bits | 1 << bit)
}

/// Virtio features offered.
///
/// VIRTIO_NET_F_MQ asks for VIRTIO_NET_F_CTRL_VQ (virtio 1.2, 5.1.3.1), so both are offered together, as
/// rte_vhost does. The control queue itself is the VMM's in every vhost-user frontend for net we know (QEMU,
/// virtio-user and cloud-hypervisor answer it and send SET_VRING_ENABLE): its ring is never ours.
pub fn offered(options: &DeviceOptions) -> u64 {
    let more_queues = (options.rings() > 2).then_some([VIRTIO_NET_F_MQ, VIRTIO_NET_F_CTRL_VQ]);
    let mtu = options.mtu.map(|_| VIRTIO_NET_F_MTU);
    let bits = ALWAYS.into_iter().chain(more_queues.into_iter().flatten()).chain(mtu);
    bits.fold(options.offloads, |features, bit| features | 1 << bit)
}

/// The bits of `acked` that are not in `offered`: none, if a frontend keeps to the protocol.
pub fn never_offered(acked: u64, offered: u64) -> u64 {
    acked & !offered
}

/// Whether `features` has `bit`.
pub fn has(features: u64, bit: u32) -> bool {
    features & 1 << bit != 0
}

/// Whether the guest's rings are packed.
pub fn is_packed(features: u64) -> bool {
    has(features, VIRTIO_F_RING_PACKED)
}

const NAMES: [(u32, &str); 37] = [
    (0, "VIRTIO_NET_F_CSUM"),
    (1, "VIRTIO_NET_F_GUEST_CSUM"),
    (2, "VIRTIO_NET_F_CTRL_GUEST_OFFLOADS"),
    (3, "VIRTIO_NET_F_MTU"),
    (5, "VIRTIO_NET_F_MAC"),
    (6, "VIRTIO_NET_F_GSO"),
    (7, "VIRTIO_NET_F_GUEST_TSO4"),
    (8, "VIRTIO_NET_F_GUEST_TSO6"),
    (9, "VIRTIO_NET_F_GUEST_ECN"),
    (10, "VIRTIO_NET_F_GUEST_UFO"),
    (11, "VIRTIO_NET_F_HOST_TSO4"),
    (12, "VIRTIO_NET_F_HOST_TSO6"),
    (13, "VIRTIO_NET_F_HOST_ECN"),
    (14, "VIRTIO_NET_F_HOST_UFO"),
    (15, "VIRTIO_NET_F_MRG_RXBUF"),
    (16, "VIRTIO_NET_F_STATUS"),
    (17, "VIRTIO_NET_F_CTRL_VQ"),
    (18, "VIRTIO_NET_F_CTRL_RX"),
    (21, "VIRTIO_NET_F_GUEST_ANNOUNCE"),
    (22, "VIRTIO_NET_F_MQ"),
    (23, "VIRTIO_NET_F_CTRL_MAC_ADDR"),
    (24, "VIRTIO_F_NOTIFY_ON_EMPTY"),
    (26, "VHOST_F_LOG_ALL"),
    (27, "VIRTIO_F_ANY_LAYOUT"),
    (28, "VIRTIO_RING_F_INDIRECT_DESC"),
    (29, "VIRTIO_RING_F_EVENT_IDX"),
    (30, "VHOST_USER_F_PROTOCOL_FEATURES"),
    (32, "VIRTIO_F_VERSION_1"),
    (33, "VIRTIO_F_ACCESS_PLATFORM"),
    (34, "VIRTIO_F_RING_PACKED"),
    (35, "VIRTIO_F_IN_ORDER"),
    (36, "VIRTIO_F_ORDER_PLATFORM"),
    (38, "VIRTIO_F_NOTIFICATION_DATA"),
    (54, "VIRTIO_NET_F_GUEST_USO4"),
    (55, "VIRTIO_NET_F_GUEST_USO6"),
    (56, "VIRTIO_NET_F_HOST_USO"),
    (63, "VIRTIO_NET_F_SPEED_DUPLEX"),
];

/// Names of virtio feature bits, lowest first; a bit without a name is `bit N`.
pub fn feature_names(features: u64) -> Vec<String> {
    let name = |bit| NAMES.iter().find(|(named, _)| *named == bit).map(|(_, name)| name.to_string());
    let bits = (0..64).filter(|bit| has(features, *bit));
    bits.map(|bit| name(bit).unwrap_or_else(|| format!("bit {bit}"))).collect()
}

/// Names of protocol feature bits, lowest first, as the vhost-user specification spells them.
pub fn protocol_feature_names(features: u64) -> Vec<String> {
    let bits = (0..64).filter(|bit| has(features, *bit));
    let name = |bit| {
        let known = Protocol::from_bits(1u64 << bit)?;
        let name = known.iter_names().next()?.0;
        // The `vhost` crate has a shorter name for this one.
        let name = if known == Protocol::MTU { "NET_MTU" } else { name };
        Some(format!("VHOST_USER_PROTOCOL_F_{name}"))
    };
    bits.map(|bit| name(bit).unwrap_or_else(|| format!("bit {bit}"))).collect()
}

const STATUS: [(u32, &str); 6] = [
    (VIRTIO_CONFIG_S_ACKNOWLEDGE, "ACKNOWLEDGE"),
    (VIRTIO_CONFIG_S_DRIVER, "DRIVER"),
    (VIRTIO_CONFIG_S_DRIVER_OK, "DRIVER_OK"),
    (VIRTIO_CONFIG_S_FEATURES_OK, "FEATURES_OK"),
    (VIRTIO_CONFIG_S_NEEDS_RESET, "DEVICE_NEEDS_RESET"),
    (VIRTIO_CONFIG_S_FAILED, "FAILED"),
];

/// Names of the bits of a device status (virtio 1.2, 2.1), lowest first; a bit without a name is `bit N`.
pub fn status_names(status: u8) -> Vec<String> {
    let name =
        |bit: &u32| STATUS.iter().find(|(named, _)| *named == 1 << bit).map(|(_, name)| name.to_string());
    let bits = (0..8).filter(|bit| has(status.into(), *bit));
    bits.map(|bit| name(&bit).unwrap_or_else(|| format!("bit {bit}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(queue_pairs: u16, mtu: Option<u16>) -> DeviceOptions {
        DeviceOptions { name: "vm".into(), queue_pairs, mac: [2, 0, 0, 0, 0, 1], mtu, offloads: 0 }
    }

    #[test]
    fn offers_the_offloads_it_is_told_to() {
        let all = DeviceOptions { offloads: all_offloads(), ..options(1, None) };
        let names = feature_names(offered(&all) & !offered(&options(1, None)));
        let expected: Vec<String> =
            OFFLOADS.iter().map(|(name, _)| format!("VIRTIO_NET_F_{}", name.to_uppercase())).collect();
        assert_eq!(names.len(), expected.len());
        assert!(expected.iter().all(|name| names.contains(name)), "{names:?}");
    }

    #[test]
    fn offers_what_is_served_and_no_more() {
        let one = offered(&options(1, None));
        assert_eq!(
            feature_names(one),
            [
                "VIRTIO_NET_F_MAC",
                "VIRTIO_NET_F_MRG_RXBUF",
                "VIRTIO_NET_F_STATUS",
                "VIRTIO_F_ANY_LAYOUT",
                "VIRTIO_RING_F_INDIRECT_DESC",
                "VIRTIO_RING_F_EVENT_IDX",
                "VHOST_USER_F_PROTOCOL_FEATURES",
                "VIRTIO_F_VERSION_1",
                "VIRTIO_F_RING_PACKED",
                "VIRTIO_F_IN_ORDER",
                "VIRTIO_NET_F_SPEED_DUPLEX",
            ]
        );
        let more = offered(&options(2, Some(9000)));
        assert_eq!(
            feature_names(more & !one),
            ["VIRTIO_NET_F_MTU", "VIRTIO_NET_F_CTRL_VQ", "VIRTIO_NET_F_MQ"]
        );
        assert_eq!(never_offered(more, one), more & !one);
        assert_eq!(never_offered(one, more), 0);
    }

    #[test]
    fn names_every_protocol_feature_and_unknown_bits() {
        assert_eq!(
            protocol_feature_names(PROTOCOL.bits() | 1 << 63),
            [
                "VHOST_USER_PROTOCOL_F_MQ",
                "VHOST_USER_PROTOCOL_F_RARP",
                "VHOST_USER_PROTOCOL_F_REPLY_ACK",
                "VHOST_USER_PROTOCOL_F_NET_MTU",
                "VHOST_USER_PROTOCOL_F_BACKEND_REQ",
                "VHOST_USER_PROTOCOL_F_CONFIG",
                "VHOST_USER_PROTOCOL_F_RESET_DEVICE",
                "VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS",
                "VHOST_USER_PROTOCOL_F_STATUS",
                "bit 63",
            ]
        );
        assert_eq!(feature_names(1 << 50), ["bit 50"]);
    }

    #[test]
    fn names_the_status_and_unknown_bits_of_it() {
        assert_eq!(status_names(0xf), ["ACKNOWLEDGE", "DRIVER", "DRIVER_OK", "FEATURES_OK"]);
        assert_eq!(status_names(0xf0), ["bit 4", "bit 5", "DEVICE_NEEDS_RESET", "FAILED"]);
        assert!(status_names(0).is_empty());
    }
}
