//! Fills in a [`snapshot::Status`] from what control knows and what the owners of the queues have counted.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use port::counters::{DropReason, PairCounters, RingCounters};
use port::guest::GuestCounters;
use port::nic::Nic;
use snapshot::{Port, PortKind, Queue, Status};

use crate::config::NicConfig;
use crate::frontend::Guest;
use crate::{Datapath, NicPort};

impl Datapath {
    /// What the datapath looks like now. Reading it costs the packet path nothing.
    pub fn status(&self) -> Status {
        let workers = self.workers.iter().enumerate().map(|(index, worker)| snapshot::Worker {
            name: worker_name(worker.core),
            core: worker.core,
            lanes: self.guests.iter().map(|guest| guest.wire().lanes_on(index)).sum(),
            busy_rounds: worker.counters.busy.get(),
            idle_rounds: worker.counters.idle.get(),
            rates: None,
        });
        let nics = self.nics.iter().map(nic_port);
        let guests = self.guests.iter().map(|guest| guest_port(guest));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            hugepages: self.eal.hugepages(),
            workers: workers.collect(),
            ports: nics.chain(guests).collect(),
        }
    }
}

fn worker_name(core: usize) -> String {
    format!("worker:{core}")
}

/// A port's part that all kinds share. `held` is counted at the far end of the wire for what came in here.
fn port<'a>(
    name: &str,
    kind: PortKind,
    state: &str,
    held: u64,
    pairs: impl Iterator<Item = &'a PairCounters> + Clone,
) -> Port {
    let sum = |count: fn(&PairCounters) -> u64| pairs.clone().map(count).sum();
    let drops = DropReason::ALL.map(|reason| {
        let count = pairs.clone().map(|pair| pair.drops[reason as usize].get()).sum();
        (reason.name().to_owned(), count)
    });
    Port {
        name: name.to_owned(),
        kind,
        state: state.to_owned(),
        rx_packets: sum(|pair| pair.rx.packets.get()),
        rx_bytes: sum(|pair| pair.rx.bytes.get()),
        tx_packets: sum(|pair| pair.tx.packets.get()),
        tx_bytes: sum(|pair| pair.tx.bytes.get()),
        held,
        drops: BTreeMap::from(drops),
        rates: None,
        guest: None,
        nic: None,
    }
}

fn nic_port(NicPort { config, nic }: &NicPort) -> Port {
    let link = nic.port.link();
    let held = nic.counters.iter().map(|pair| pair.rx_held.get()).sum();
    let state = if link.up { "up" } else { "down" };
    let pairs = nic.counters.iter().map(|pair| &***pair);
    Port { nic: Some(nic_part(config, nic, link)), ..port(&config.name, PortKind::Nic, state, held, pairs) }
}

fn nic_part(config: &NicConfig, nic: &Nic, link: dpdk::ethdev::Link) -> snapshot::Nic {
    let info = nic.port.info();
    let mac = nic.port.mac().map(|byte| format!("{byte:02x}"));
    snapshot::Nic {
        device: config.device.clone(),
        driver: info.driver.clone(),
        mac: mac.join(":"),
        mtu: nic.port.mtu(),
        queue_pairs: nic.counters.len() as u16,
        link_up: link.up,
        link_speed_mbps: link.speed_mbps,
        promiscuous: nic.port.promiscuous(),
        device_stats: nic.port.stats(),
        xstats: nic.port.xstats(),
    }
}

fn guest_port(guest: &Guest) -> Port {
    let seen = guest.seen().clone();
    let packed = vhost_user::features::is_packed(seen.frontend.features);
    let format = if packed { "packed" } else { "split" };
    let queues: Vec<Queue> = {
        let wire = guest.wire();
        (0..2 * guest.config.queues)
            .map(|index| {
                let counters = &guest.counters[usize::from(index / 2)];
                let state = seen.frontend.queues.get(usize::from(index));
                queue(index, counters, state, format, wire.owner(index / 2))
            })
            .collect()
    };
    let state = if !seen.frontend.connected {
        "disconnected"
    } else if queues.iter().any(|queue| queue.violation.is_some()) {
        "broken"
    } else if queues.iter().all(|queue| queue.owner == PARKED) {
        "connected"
    } else {
        "up"
    };
    let held = guest.nic.iter().flat_map(|nic| &nic.counters).map(|pair| pair.tx_held.get()).sum();
    let pairs = guest.counters.iter().map(|counters| &**counters.pair);
    let part = snapshot::Guest {
        backend: guest.config.backend.clone().unwrap_or_else(|| "none".to_owned()),
        socket: guest.config.socket.display().to_string(),
        connected: seen.frontend.connected,
        connections: seen.connections,
        features: vhost_user::features::feature_names(seen.frontend.features),
        protocol_features: vhost_user::features::protocol_feature_names(seen.frontend.protocol_features),
        memory_regions: seen.frontend.memory_regions,
        memory_bytes: seen.frontend.memory_bytes,
        queues,
    };
    Port { guest: Some(part), ..port(&guest.config.name, PortKind::Guest, state, held, pairs) }
}

const PARKED: &str = "parked";

fn queue(
    index: u16,
    counters: &GuestCounters,
    state: Option<&vhost_user::QueueState>,
    format: &str,
    owner: Option<usize>,
) -> Queue {
    let ring: &RingCounters = if index.is_multiple_of(2) { &counters.to } else { &counters.from };
    let violation = *ring.violation.lock().unwrap_or_else(PoisonError::into_inner);
    let violations = ring.violations.lock().unwrap_or_else(PoisonError::into_inner);
    let started = state.is_some_and(|state| state.started);
    Queue {
        index,
        enabled: state.is_some_and(|state| state.enabled),
        owner: owner.map_or_else(|| PARKED.to_owned(), worker_name),
        size: state.map_or(0, |state| state.size),
        format: if started { format } else { "none" }.to_owned(),
        used: ring.used.get(),
        calls: ring.calls.get(),
        calls_suppressed: ring.calls_suppressed.get(),
        violation: violation.filter(|_| started).map(|violation| violation.to_string()),
        violations: violations.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
    }
}
