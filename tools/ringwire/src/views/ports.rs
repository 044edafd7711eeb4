//! `ringwire port list`.

use snapshot::Port;

use super::{backend, kind};
use crate::table::Table;
use crate::units::NOTHING;

/// One line a port.
pub fn ports(ports: &[Port]) -> String {
    let columns = ["PORT", "KIND", "STATE", "BACKEND", "QUEUE PAIRS", "AT"];
    let mut table = Table::new(0).words(&columns);
    for port in ports {
        let (pairs, at) = match (&port.guest, &port.nic) {
            (Some(guest), _) => {
                let pairs = guest.queues.chunks(2);
                let enabled = pairs.clone().filter(|pair| pair.iter().all(|queue| queue.enabled));
                let pairs = format!("{} of {} enabled", enabled.count(), pairs.len());
                (pairs, guest.socket.clone())
            }
            (None, Some(nic)) => (nic.queue_pairs.to_string(), nic.device.clone()),
            (None, None) => match &port.interface {
                Some(part) => (part.queue_pairs.to_string(), part.name.clone()),
                None => (NOTHING.to_owned(), NOTHING.to_owned()),
            },
        };
        let (kind, state) = (kind(port), port.state.clone());
        table.row(vec![port.name.clone(), kind, state, backend(port), pairs, at]);
    }
    table.to_string()
}
