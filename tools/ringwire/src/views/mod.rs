//! What each command prints for people.

mod port;
mod ports;
mod stats;
mod status;
#[cfg(test)]
mod tests;

pub use port::port;
pub use ports::ports;
pub use stats::stats;
pub use status::status;

use snapshot::{Port, PortKind};

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

/// `ringwire backend set`: what the guest is connected to now.
pub fn connected(port: &Port) -> String {
    format!("{}: backend {}\n", port.name, backend(port))
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
