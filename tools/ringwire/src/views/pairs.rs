//! What is counted for each queue pair, and for each virtqueue.

use snapshot::{Passed, Port, Queue, QueuePair, Sizes};

use crate::table::Table;
use crate::units::{NOTHING, bytes, count, nanoseconds};

/// Two lines a pair in each of two tables: what passed it, and of which sizes.
pub fn pairs(pairs: &[QueuePair]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let mut passed = Table::new(0)
        .numbers(&["PAIR"])
        .words(&["WAY"])
        .numbers(&["PACKETS", "BYTES", "BURSTS", "FILL", "HELD", "HELD FOR", "DROPS"]);
    let mut sizes =
        Table::new(0).numbers(&["PAIR"]).words(&["WAY"]).numbers(&Sizes::NAMES).words(&["OCTETS WITH FCS"]);
    for pair in pairs {
        let drops = count(pair.drops.values().sum());
        for (way, direction, drops) in [("rx", &pair.rx, drops), ("tx", &pair.tx, NOTHING.to_owned())] {
            let mut row = vec![pair.index.to_string(), way.to_owned()];
            row.extend(cells(direction));
            row.push(drops);
            passed.row(row);
            let mut row = vec![pair.index.to_string(), way.to_owned()];
            row.extend(direction.sizes.classes().map(count));
            row.push(String::new());
            sizes.row(row);
        }
    }
    format!("\n{passed}\n{sizes}")
}

fn cells(passed: &Passed) -> [String; 6] {
    let fill = match passed.bursts {
        0 => NOTHING.to_owned(),
        bursts => format!("{:.1}", passed.packets as f64 / bursts as f64),
    };
    [
        count(passed.packets),
        bytes(passed.bytes),
        count(passed.bursts),
        fill,
        count(passed.held),
        nanoseconds(passed.held_ns),
    ]
}

/// One line a virtqueue.
pub fn queues(port: &Port) -> String {
    let queues: &[Queue] = port.guest.as_ref().map_or(&[], |guest| &guest.queues);
    if queues.is_empty() {
        return String::new();
    }
    let mut table = Table::new(0).numbers(&["QUEUE"]).words(&["DIRECTION"]).numbers(&[
        "USED",
        "KICKS",
        "CALLS",
        "CALLS SUPPRESSED",
    ]);
    for queue in queues {
        let numbers = [queue.used, queue.kicks, queue.calls, queue.calls_suppressed].map(count);
        let mut row = vec![queue.index.to_string(), super::direction(queue).to_owned()];
        row.extend(numbers);
        table.row(row);
    }
    format!("\n{table}")
}
