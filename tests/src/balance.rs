//! Packets of one guest that goes from backend to backend: all that came in has gone out, is held, or was dropped
//! under a name.

use std::collections::BTreeMap;

use snapshot::{Port, PortKind};

use crate::daemon::drops;

/// What is lost where backends change, and why nothing else may be.
pub const LOST_BY_CHANGE: [&str; 2] = ["not_connected", "backend_changed"];

/// Asserts it of `ports`, which are at rest: one guest, and all that are its backend in turn.
pub fn assert_adds_up(ports: &[Port]) {
    let (guests, backends): (Vec<&Port>, Vec<&Port>) =
        ports.iter().partition(|port| port.kind == PortKind::Guest);
    assert_eq!(guests.len(), 1, "one guest");
    let sum = |ports: &[&Port], count: fn(&Port) -> u64| ports.iter().map(|port| count(port)).sum::<u64>();
    for (from, to) in [(&guests, &backends), (&backends, &guests)] {
        let entered = sum(from, |port| port.rx_packets);
        let accounted = sum(to, |port| port.tx_packets) + sum(from, |port| port.held) + sum(from, drops);
        assert_eq!(entered, accounted, "rx of {}: {}", names(from), table(ports));
    }
}

fn names(ports: &[&Port]) -> String {
    ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Drops of all ports by `PORT REASON`; those that there were.
pub fn drops_by_name(ports: &[Port]) -> BTreeMap<String, u64> {
    let all =
        ports.iter().flat_map(|port| port.drops.iter().map(move |(reason, count)| (port, reason, *count)));
    all.filter(|(_, _, count)| *count > 0)
        .map(|(port, reason, count)| (format!("{} {reason}", port.name), count))
        .collect()
}

/// Asserts that nothing was dropped but by the change of backends.
pub fn assert_lost_by_change(ports: &[Port]) {
    for (name, count) in drops_by_name(ports) {
        let reason = name.split(' ').next_back().expect("a reason");
        assert!(LOST_BY_CHANGE.contains(&reason), "{name}: {count}: {}", table(ports));
    }
}

/// Asserts that no counter of packets has fallen from `before` to `after`.
pub fn assert_grew(before: &[Port], after: &[Port]) {
    for (before, after) in before.iter().zip(after) {
        let counts = |port: &Port| [port.rx_packets, port.tx_packets, port.rx_bytes, port.tx_bytes];
        let fell = counts(before).iter().zip(counts(after)).any(|(before, after)| after < *before)
            || before.drops.iter().any(|(reason, count)| after.drops[reason] < *count);
        assert!(!fell, "counters of {} have fallen: {before:?}, then {after:?}", before.name);
    }
}

/// A line a port.
pub fn table(ports: &[Port]) -> String {
    let mut table = format!("\n{:<8}{:>12}{:>12}{:>7}  drops\n", "port", "rx", "tx", "held");
    for port in ports {
        let dropped: Vec<String> = port
            .drops
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        let Port { name, rx_packets, tx_packets, held, .. } = port;
        table += &format!("{name:<8}{rx_packets:>12}{tx_packets:>12}{held:>7}  {}\n", dropped.join(", "));
    }
    table
}
