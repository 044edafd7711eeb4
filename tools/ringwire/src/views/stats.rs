//! `ringwire stats`.

use snapshot::Port;

use super::pairs::{pairs, queues};
use super::{dropped, drops, kind};
use crate::table::Table;
use crate::units::count;

/// The counters of `ports`, and their drops by reason.
pub fn stats(ports: &[Port]) -> String {
    let numbers = ["RX PACKETS", "RX BYTES", "TX PACKETS", "TX BYTES", "HELD", "DROPS"];
    let mut table = Table::new(0).words(&["PORT", "KIND"]).numbers(&numbers);
    for port in ports {
        table.row(vec![
            port.name.clone(),
            kind(port),
            count(port.rx_packets),
            count(port.rx_bytes),
            count(port.tx_packets),
            count(port.tx_bytes),
            count(port.held),
            count(dropped(port)),
        ]);
    }
    format!("{table}{}", drops(ports))
}

/// Those of one port, of each of its queue pairs and virtqueues too.
pub fn stats_of(port: &Port) -> String {
    format!("{}{}{}", stats(std::slice::from_ref(port)), pairs(&port.pairs), queues(port))
}
