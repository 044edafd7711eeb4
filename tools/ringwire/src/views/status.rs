//! `ringwire status`.

use snapshot::{Status, Worker};

use super::{backend, dropped, drops, kind};
use crate::notes::notes;
use crate::table::Table;
use crate::units::{NOTHING, count, duration, percent, rate, yes};

/// The whole picture.
pub fn status(status: &Status) -> String {
    let mut text = format!(
        "ringwired {}  pid {}  up {}  hugepages {}\n\n{}\n{}{}",
        status.version,
        status.pid,
        duration(status.uptime_seconds),
        yes(status.hugepages),
        workers(&status.workers),
        ports(status),
        drops(&status.ports),
    );
    let notes = notes(status);
    if !notes.is_empty() {
        text.push_str("\nWHERE PACKETS STOP\n");
        for note in notes {
            text.push_str(&format!("{note}\n"));
        }
    }
    text
}

fn workers(workers: &[Worker]) -> Table {
    let columns = ["CORE", "LANES", "BUSY ROUNDS", "ROUNDS/S", "UTILISATION", "CYCLES/PACKET"];
    let mut table = Table::new(0).words(&["WORKER"]).numbers(&columns);
    for worker in workers {
        let rates = worker.rates;
        table.row(vec![
            worker.name.clone(),
            worker.core.to_string(),
            worker.lanes.to_string(),
            rates.map_or(NOTHING.to_owned(), |rates| percent(rates.busy_percent)),
            rates.map_or(NOTHING.to_owned(), |rates| rate(rates.rounds_per_second, "")),
            rates.map_or(NOTHING.to_owned(), |rates| percent(rates.utilisation_percent)),
            rates
                .and_then(|rates| rates.cycles_per_packet)
                .map_or(NOTHING.to_owned(), |cycles| format!("{cycles:.0}")),
        ]);
    }
    table
}

fn ports(status: &Status) -> Table {
    let words = ["PORT", "KIND", "STATE", "BACKEND"];
    let numbers = ["RX PPS", "RX BIT/S", "TX PPS", "TX BIT/S", "RX PACKETS", "TX PACKETS", "HELD", "DROPS"];
    let mut table = Table::new(0).words(&words).numbers(&numbers);
    for port in &status.ports {
        let rates = |number: fn(&snapshot::Rates) -> f64, unit| {
            port.rates.map_or(NOTHING.to_owned(), |rates| rate(number(&rates), unit))
        };
        table.row(vec![
            port.name.clone(),
            kind(port),
            port.state.clone(),
            backend(port),
            rates(|rates| rates.rx_pps, "pps"),
            rates(|rates| rates.rx_bps, "bit/s"),
            rates(|rates| rates.tx_pps, "pps"),
            rates(|rates| rates.tx_bps, "bit/s"),
            count(port.rx_packets),
            count(port.tx_packets),
            count(port.held),
            count(dropped(port)),
        ]);
    }
    table
}
