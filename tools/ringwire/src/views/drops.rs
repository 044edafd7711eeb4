//! `ringwire stats --explain`.

use std::collections::BTreeMap;

use serde::Serialize;
use snapshot::{DropReason, Port};

use crate::table::Table;
use crate::units::count;

/// One reason, what it means, and who has dropped for it.
#[derive(Serialize)]
struct Explained {
    reason: String,
    explanation: &'static str,
    /// Packets of all ports.
    packets: u64,
    /// Ports that have dropped any.
    ports: BTreeMap<String, u64>,
}

/// Every reason: those that packets were dropped for first.
pub fn explained(ports: &[Port]) -> String {
    let mut table =
        Table::new(0).words(&["", "DROP REASON"]).numbers(&["PACKETS"]).words(&["WHAT IT MEANS", "AT"]);
    for one in reasons(ports) {
        let mark = if one.packets > 0 { "!" } else { "" };
        let at: Vec<&str> = one.ports.keys().map(String::as_str).collect();
        table.row(vec![
            mark.to_owned(),
            one.reason,
            count(one.packets),
            one.explanation.to_owned(),
            at.join(" "),
        ]);
    }
    table.to_string()
}

/// The same for scripts.
pub fn explained_json(ports: &[Port]) -> String {
    serde_json::to_string(&reasons(ports)).map_or_else(|error| error.to_string(), |text| text + "\n")
}

fn reasons(ports: &[Port]) -> Vec<Explained> {
    let known = DropReason::ALL.map(|reason| reason.name().to_owned());
    let told = ports.iter().flat_map(|port| port.drops.keys().cloned());
    let mut reasons: Vec<Explained> = Vec::new();
    for reason in known.into_iter().chain(told) {
        if reasons.iter().any(|one| one.reason == reason) {
            continue;
        }
        let at = |port: &Port| port.drops.get(&reason).filter(|n| **n > 0).map(|n| (port.name.clone(), *n));
        let ports: BTreeMap<String, u64> = ports.iter().filter_map(at).collect();
        let explanation =
            DropReason::by_name(&reason).map_or("not known to this version of ringwire", DropReason::explain);
        reasons.push(Explained { explanation, packets: ports.values().sum(), ports, reason });
    }
    reasons.sort_by_key(|one| std::cmp::Reverse(one.packets));
    reasons
}
