//! `ringwire port show NAME`.

use std::collections::BTreeMap;

use snapshot::{Guest, Interface, Nic, Port, Queue};

use super::pairs::pairs;
use super::{drops, kind};
use crate::table::Table;
use crate::units::{NOTHING, bytes, count, memory, rate, yes};

/// Everything about one port.
pub fn port(port: &Port) -> String {
    let mut text = format!("{}  {}  {}\n\n", port.name, kind(port), port.state);
    let mut facts = Table::new(0).words(&["", ""]);
    if let Some(guest) = &port.guest {
        guest_facts(&mut facts, guest);
    }
    if let Some(nic) = &port.nic {
        nic_facts(&mut facts, nic);
    }
    if let Some(interface) = &port.interface {
        interface_facts(&mut facts, interface);
    }
    text.push_str(&format!("{facts}\n{}{}", counters(port), drops(std::slice::from_ref(port))));
    text.push_str(&pairs(&port.pairs));
    if let Some(guest) = &port.guest {
        text.push_str(&queues(&guest.queues));
    }
    if let Some(nic) = &port.nic {
        text.push_str(&device_counters("DEVICE COUNTER", &nic.device_stats));
        text.push_str(&device_counters("DRIVER COUNTER", &nic.xstats));
    }
    if let Some(interface) = &port.interface {
        text.push_str(&device_counters("KERNEL COUNTER", &interface.kernel_stats));
    }
    text
}

fn fact(facts: &mut Table, name: &str, value: impl ToString) {
    facts.row(vec![name.to_owned(), value.to_string()]);
}

/// The names in one cell a line, so that a long list stays a column.
fn fact_list(facts: &mut Table, name: &str, values: &[String]) {
    let lines = values.chunks(3).map(|names| names.join(" "));
    let lines = if values.is_empty() { vec![NOTHING.to_owned()] } else { lines.collect() };
    for (index, line) in lines.iter().enumerate() {
        fact(facts, if index == 0 { name } else { "" }, line);
    }
}

fn guest_facts(facts: &mut Table, guest: &Guest) {
    let connected = if guest.connected { "connected" } else { "not connected" };
    let (connections, regions) = (count(guest.connections), guest.memory_regions);
    fact(facts, "backend", &guest.backend);
    if let Some(fallback) = &guest.fallback {
        fact(facts, "fallback", format!("{fallback}, in place of {}", guest.backend_wanted));
    }
    fact(facts, "socket", &guest.socket);
    fact(facts, "frontend", format!("{connected} (frontends so far: {connections})"));
    fact(facts, "memory", format!("{} in regions: {regions}", memory(guest.memory_bytes)));
    if let Some(mtu) = guest.frontend_mtu {
        fact(facts, "mtu", format!("{mtu}, set by the frontend"));
    }
    if guest.announced > 0 {
        fact(facts, "announced", format!("times: {}", count(guest.announced)));
    }
    if !guest.device_status.is_empty() {
        fact(facts, "status", guest.device_status.join(" "));
    }
    fact_list(facts, "offered", &guest.offered);
    fact_list(facts, "features", &guest.features);
    fact_list(facts, "protocol features", &guest.protocol_features);
}

fn nic_facts(facts: &mut Table, nic: &Nic) {
    let speed = match nic.link_speed_mbps {
        0 => String::new(),
        speed => format!(", {}", rate(f64::from(speed) * 1e6, "bit/s")),
    };
    let link = if nic.link_up { "up" } else { "down" };
    fact(facts, "device", &nic.device);
    fact(facts, "driver", &nic.driver);
    fact(facts, "link", format!("{link}{speed}"));
    fact(facts, "mac", &nic.mac);
    fact(facts, "mtu", nic.mtu);
    fact(facts, "queue pairs", nic.queue_pairs);
    fact(facts, "promiscuous", yes(nic.promiscuous));
    fact_list(facts, "offloads", &nic.offloads);
}

fn interface_facts(facts: &mut Table, part: &Interface) {
    fact(facts, "interface", &part.name);
    fact(facts, "driver", &part.driver);
    fact(facts, "mtu", part.mtu);
    fact(facts, "queue pairs", part.queue_pairs);
}

fn counters(port: &Port) -> Table {
    let mut table = Table::new(0).words(&[""]).numbers(&["PACKETS", "BYTES", "PPS", "BIT/S"]);
    let rates = port.rates.as_ref();
    let shown = |number: Option<f64>, unit| number.map_or(NOTHING.to_owned(), |number| rate(number, unit));
    table.row(vec![
        "rx (entered here)".to_owned(),
        count(port.rx_packets),
        bytes(port.rx_bytes),
        shown(rates.map(|rates| rates.rx_pps), "pps"),
        shown(rates.map(|rates| rates.rx_bps), "bit/s"),
    ]);
    table.row(vec![
        "tx (left here)".to_owned(),
        count(port.tx_packets),
        bytes(port.tx_bytes),
        shown(rates.map(|rates| rates.tx_pps), "pps"),
        shown(rates.map(|rates| rates.tx_bps), "bit/s"),
    ]);
    let nothing = || NOTHING.to_owned();
    table.row(vec!["held".to_owned(), count(port.held), nothing(), nothing(), nothing()]);
    table
}

fn queues(queues: &[Queue]) -> String {
    if queues.is_empty() {
        return String::new();
    }
    let mut table = Table::new(0)
        .numbers(&["QUEUE"])
        .words(&["DIRECTION", "ENABLED", "OWNER", "FORMAT"])
        .numbers(&["SIZE", "USED", "KICKS", "CALLS", "CALLS SUPPRESSED"]);
    for queue in queues {
        table.row(vec![
            queue.index.to_string(),
            super::direction(queue).to_owned(),
            yes(queue.enabled),
            queue.owner.clone(),
            queue.format.clone(),
            queue.size.to_string(),
            count(queue.used),
            count(queue.kicks),
            count(queue.calls),
            count(queue.calls_suppressed),
        ]);
    }
    let mut text = format!("\n{table}");
    for queue in queues {
        if let Some(violation) = &queue.violation {
            text.push_str(&format!("queue {} was stopped: {violation}\n", queue.index));
        }
        for (reason, times) in &queue.violations {
            text.push_str(&format!(
                "queue {}: stopped for {reason}, times: {}\n",
                queue.index,
                count(*times)
            ));
        }
    }
    text
}

/// Only what is not zero: drivers have hundreds of them.
fn device_counters(title: &str, counters: &BTreeMap<String, u64>) -> String {
    let mut table = Table::new(0).words(&[title]).numbers(&["VALUE"]);
    let shown: Vec<_> = counters.iter().filter(|(_, value)| **value > 0).collect();
    if shown.is_empty() {
        return String::new();
    }
    for (name, value) in shown {
        table.row(vec![name.clone(), count(*value)]);
    }
    format!("\n{table}")
}
