//! `ringwire worker`.

use snapshot::{Assigned, Worker};

use crate::table::Table;
use crate::units::{NOTHING, percent, rate};

/// Every worker in one line.
pub fn workers(workers: &[Worker]) -> String {
    let columns = ["CORE", "LANES", "BUSY ROUNDS", "ROUNDS/S"];
    let mut table = Table::new(0).words(&["WORKER", "ASSIGNED"]).numbers(&columns);
    for worker in workers {
        let assigned = worker.assigned.join(" ");
        table.row(vec![
            worker.name.clone(),
            if assigned.is_empty() { NOTHING.to_owned() } else { assigned },
            worker.core.to_string(),
            worker.lanes.to_string(),
            worker.rates.map_or(NOTHING.to_owned(), |rates| percent(rates.busy_percent)),
            worker.rates.map_or(NOTHING.to_owned(), |rates| rate(rates.rounds_per_second, "")),
        ]);
    }
    table.to_string()
}

/// What became of `pair` when it was assigned, or that was taken back.
pub fn assigned(pair: &str, answer: &Assigned) -> String {
    let Some(core) = answer.core else {
        return match answer.moved.is_empty() {
            true => format!("{pair}: any worker\n"),
            false => format!(
                "{pair}: any worker, but another pair of its lane is assigned: {}\n",
                answer.moved.join(" ")
            ),
        };
    };
    let others: Vec<&str> = answer.moved.iter().map(String::as_str).filter(|other| *other != pair).collect();
    match (answer.moved.is_empty(), others.is_empty()) {
        (true, _) => format!("{pair}: worker:{core}, as soon as it is polled: it is not now\n"),
        (false, true) => format!("{pair}: worker:{core}\n"),
        (false, false) => {
            format!("{pair}: worker:{core}, and with it, of the same lane: {}\n", others.join(" "))
        }
    }
}
