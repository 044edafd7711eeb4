//! What the guest's driver has negotiated.

use snapshot::{Guest, Port};

use super::Check;
use super::frontend::quoted;
use super::sight::{Seen, Sight};

/// Bytes that every Ethernet link carries.
const USUAL_MTU: u32 = 1500;

/// Whether the guest has acknowledged features, and those that its backend needs.
pub fn features(sight: &Sight, port: Seen<Port>) -> Vec<Check> {
    let Some(guest) = port.guest() else { return Vec::new() };
    if guest.features.is_empty() {
        return vec![none(port, guest)];
    }
    let has = |name: &str| guest.features.iter().any(|feature| feature == name);
    let mtu = sight.peer(port).map_or(0, |peer| mtu(peer.now));
    let mut checks = Vec::new();
    if !has("VIRTIO_F_VERSION_1") {
        let found = "VIRTIO_F_VERSION_1 was not negotiated: a legacy device";
        let advice = "QEMU: disable-legacy=on on the device, and a driver of virtio 1.0 or later";
        checks.push(Check::note("features", port.name(), found, advice));
    }
    if mtu > USUAL_MTU && !has("VIRTIO_NET_F_MRG_RXBUF") {
        let found = format!(
            "VIRTIO_NET_F_MRG_RXBUF was not negotiated, and {} has an MTU of {mtu}: what is longer than one of the \
             guest's receive buffers is dropped",
            guest.backend
        );
        checks.push(Check::note("features", port.name(), found, "QEMU: mrg_rxbuf=on on the device"));
    }
    if checks.is_empty() {
        let ring = if has("VIRTIO_F_RING_PACKED") { "packed" } else { "split" };
        let found = format!("{} negotiated, {ring} rings", guest.features.len());
        checks.push(Check::ok("features", port.name(), found));
    }
    checks
}

fn none(port: Seen<Port>, guest: &Guest) -> Check {
    let refused = quoted(guest, &["SET_FEATURES"]);
    if refused.is_empty() {
        let found = "the guest's driver is not up: it has not acknowledged features yet";
        let advice = "let the guest boot, and load its driver (Linux: modprobe virtio_net, then ip link)";
        return Check::fail("driver", port.name(), found, advice);
    }
    let found = format!("no features are negotiated{refused}");
    let advice = "the VMM's device options ask for more than ringwired offers: turn those features off there, or, \
                  for offloads, on in [[guest]]";
    Check::fail("features", port.name(), found, advice)
}

fn mtu(port: &Port) -> u32 {
    let nic = port.nic.as_ref().map(|nic| u32::from(nic.mtu));
    nic.or(port.interface.as_ref().map(|interface| interface.mtu)).unwrap_or(0)
}
