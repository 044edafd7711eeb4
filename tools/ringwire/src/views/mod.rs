//! What each command prints for people.

mod drops;
mod pairs;
mod port;
mod ports;
mod stats;
mod status;
#[cfg(test)]
mod tests;
mod workers;

pub use drops::{explained, explained_json};
pub use port::port;
pub use ports::ports;
pub use stats::{stats, stats_of};
pub use status::status;
pub use workers::{assigned, workers};

use snapshot::{Port, PortKind, Queue};

use crate::table::Table;
use crate::units::{NOTHING, count};

fn kind(port: &Port) -> String {
    match port.kind {
        PortKind::Guest => "guest",
        PortKind::Nic => "nic",
        PortKind::Tap => "tap",
        PortKind::Raw => "raw",
    }
    .to_owned()
}

fn backend(port: &Port) -> String {
    port.guest.as_ref().map_or(NOTHING, |guest| &guest.backend).to_owned()
}

fn direction(queue: &Queue) -> &'static str {
    if queue.index.is_multiple_of(2) { "to guest" } else { "from guest" }
}

/// `ringwire backend set`: what the guest is connected to now.
pub fn connected(port: &Port) -> String {
    format!("{}: backend {}\n", port.name, backend(port))
}

/// `ringwire guest offloads`: what is in force, and since when not.
pub fn offloads(port: &Port) -> String {
    let Some(guest) = &port.guest else { return String::new() };
    let shown = |features: &[String]| {
        let names: Vec<&str> = features.iter().filter_map(|name| offload(name)).collect();
        if names.is_empty() { NOTHING.to_owned() } else { names.join(" ") }
    };
    let when = "in force from the frontend's next connection";
    let mut text = format!("{}: offloads offered, {when}: {}\n", port.name, shown(&guest.offered));
    if guest.connected {
        text += &format!("{}: negotiated, and kept until then: {}\n", port.name, shown(&guest.features));
    }
    text
}

/// What is offload about a feature's name: VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4 and their kind.
fn offload(feature: &str) -> Option<&str> {
    let name = feature.strip_prefix("VIRTIO_NET_F_")?;
    let kinds = ["CSUM", "TSO4", "TSO6", "ECN", "UFO", "USO", "USO4", "USO6"];
    let kind = name.strip_prefix("GUEST_").or(name.strip_prefix("HOST_")).unwrap_or(name);
    kinds.contains(&kind).then_some(name)
}

fn dropped(port: &Port) -> u64 {
    port.drops.values().sum()
}

/// Drops by port and reason; empty when there are none.
fn drops(ports: &[Port]) -> String {
    let mut table = Table::new(0).words(&["DROPPED AFTER ENTERING", "REASON"]).numbers(&["PACKETS"]);
    let mut any = false;
    for port in ports {
        for (reason, packets) in port.drops.iter().filter(|(_, packets)| **packets > 0) {
            table.row(vec![port.name.clone(), reason.clone(), count(*packets)]);
            any = true;
        }
    }
    if any { format!("\n{table}") } else { String::new() }
}
