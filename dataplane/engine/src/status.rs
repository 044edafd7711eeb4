//! Fills in a [`snapshot::Status`] from what control knows and what the owners of the queues have counted.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use dpdk::cycles;
use port::counters::{DropReason, Held, PairCounters, Passed, RingCounters};
use port::guest::GuestCounters;
use port::nic::Nic;
use port::punt::Punt;
use snapshot::{Port, PortKind, Queue, Status};
use virtqueue::Glance;

use crate::Datapath;
use crate::config::{NicConfig, Polling, SocketKind};
use crate::control::{Control, Owner, Pair};
use crate::guest::{Guest, Route};
use crate::ports::{NicPort, Ports, SocketEntry};

/// What all workers have done since they were started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// How often they have looked at their queues.
    pub rounds: u64,
    /// Packets that have moved, each from one port to another.
    pub packets: u64,
}

impl Datapath {
    /// What workers have done: a few loads, and no call of the kernel's.
    pub fn work(&self) -> Work {
        let control = self.ports.control();
        control.workers().iter().map(|worker| &worker.counters).fold(Work::default(), |sum, its| Work {
            rounds: sum.rounds + its.busy.get() + its.idle.get(),
            packets: sum.packets + its.packets.get(),
        })
    }

    /// What the datapath looks like now. Reading it costs the packet path nothing.
    pub fn status(&self) -> Status {
        // Before control is locked: whoever changes a route locks the two in this order.
        let guests = self.ports.guests();
        let routes: Vec<_> = guests.iter().map(|guest| guest.route().clone()).collect();
        let control = self.ports.control();
        let workers = control.workers().iter().map(|worker| snapshot::Worker {
            name: worker_name(worker.core),
            core: worker.core,
            lanes: control.lanes_on(worker.core),
            assigned: control.assigned_to(worker.core).map(Pair::to_string).collect(),
            busy_rounds: worker.counters.busy.get(),
            idle_rounds: worker.counters.idle.get(),
            time: snapshot::WorkerTime {
                packets: worker.counters.packets.get(),
                busy_cycles: worker.counters.busy_cycles.get(),
                idle_cycles: worker.counters.idle_cycles.get(),
                cycles_per_second: cycles::hz(),
            },
            rates: None,
            thread: worker.thread(),
        });
        let workers = workers.collect();
        let Polling { idle, burst } = control.polling();
        let guests = guests.iter().zip(routes);
        let guests: Vec<Port> =
            guests.map(|(guest, route)| guest_port(guest, route, &control, &self.ports)).collect();
        let sockets = self.ports.sockets();
        let held_for_guest = |entry: &Arc<SocketEntry>| {
            control.punt_by_tap(&entry.config.name).map_or(0, Punt::held_for_guest)
        };
        let punted: Vec<u64> = sockets.iter().map(held_for_guest).collect();
        drop(control);
        let nics = self.ports.nics();
        let nics = nics.iter().map(|nic| nic_port(nic));
        let sockets = sockets.iter().zip(punted).map(|(entry, punted)| socket_port(entry, punted));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            hugepages: self.eal.hugepages(),
            idle,
            burst,
            workers,
            ports: nics.chain(sockets).chain(guests).collect(),
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
        pairs: (0..).zip(pairs.clone()).map(|(index, counters)| queue_pair(index, counters)).collect(),
        rates: None,
        guest: None,
        nic: None,
        interface: None,
    }
}

fn queue_pair(index: u16, counters: &PairCounters) -> snapshot::QueuePair {
    let passed = |passed: &Passed, held: &Held| snapshot::Passed {
        packets: passed.packets.get(),
        bytes: passed.bytes.get(),
        bursts: passed.bursts.get(),
        sizes: passed.sizes.get().into(),
        held: held.get(),
        held_ns: (u128::from(held.cycles()) * 1_000_000_000 / u128::from(cycles::hz())) as u64,
    };
    let drops = DropReason::ALL.map(|reason| (reason, counters.drops[reason as usize].get()));
    let drops = drops.into_iter().filter(|(_, count)| *count > 0);
    snapshot::QueuePair {
        index,
        rx: passed(&counters.rx, &counters.rx_held),
        tx: passed(&counters.tx, &counters.tx_held),
        drops: drops.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
    }
}

/// A NIC as it is now.
pub fn nic_port(NicPort { config, nic }: &NicPort) -> Port {
    let link = nic.link();
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
        offloads: nic.offloads().into_iter().map(str::to_owned).collect(),
        device_stats: nic.port.stats(),
        xstats: nic.port.xstats(),
    }
}

/// A tap or raw socket as it is now; so many packets of an exception path wait behind it.
pub fn socket_port(SocketEntry { config, socket }: &SocketEntry, punted: u64) -> Port {
    let kind = match config.kind {
        SocketKind::Raw => PortKind::Raw,
        SocketKind::Tap | SocketKind::Macvtap => PortKind::Tap,
    };
    let held = punted + socket.counters.iter().map(|pair| pair.rx_held.get()).sum::<u64>();
    let pairs = socket.counters.iter().map(|pair| &***pair);
    let status = socket.status();
    let counters = &status.counters;
    let kernel = [
        ("rx_packets", counters.rx_packets),
        ("tx_packets", counters.tx_packets),
        ("rx_dropped", counters.rx_dropped),
        ("tx_dropped", counters.tx_dropped),
        ("rx_errors", counters.rx_errors),
        ("tx_errors", counters.tx_errors),
        ("missed", status.missed),
    ];
    let part = snapshot::Interface {
        name: status.interface,
        driver: socket.kind.name().to_owned(),
        mtu: status.mtu,
        queue_pairs: socket.counters.len() as u16,
        kernel_stats: kernel.map(|(name, count)| (name.to_owned(), count)).into(),
    };
    let state = status.state.name();
    Port { interface: Some(part), ..port(&config.name, kind, state, held, pairs) }
}

/// A guest as it is now, which is meant to be connected so.
pub fn guest_port(guest: &Guest, route: Route, control: &Control, ports: &Ports) -> Port {
    let seen = guest.seen().clone();
    let packed = vhost_user::features::is_packed(seen.frontend.features);
    let format = if packed { "packed" } else { "split" };
    let name = &guest.config.name;
    let queues = (0..2 * guest.config.queues).map(|index| {
        let counters = &guest.counters[usize::from(index / 2)];
        let state = seen.frontend.queues.get(usize::from(index));
        let ring = ring(state, control.glance(name, index));
        Queue { ring, ..queue(index, counters, state, format, control.owner(name, index / 2)) }
    });
    let queues: Vec<Queue> = queues.collect();
    let state = if !seen.frontend.connected {
        "disconnected"
    } else if queues.iter().any(|queue| queue.violation.is_some()) {
        "broken"
    } else if queues.iter().all(|queue| queue.owner == PARKED) {
        "connected"
    } else {
        "up"
    };
    let backend = control.backend(name).unwrap_or(NONE);
    let nic = ports.nic(backend);
    let held = nic.iter().flat_map(|nic| &nic.nic.counters).map(|pair| pair.tx_held.get()).sum::<u64>();
    let punt = control.punt(name);
    let held = held + punt.map_or(0, Punt::held);
    let pairs = guest.counters.iter().map(|counters| &**counters.pair);
    let part = snapshot::Guest {
        backend: backend.to_owned(),
        backend_wanted: route.wanted.unwrap_or_else(|| NONE.to_owned()),
        fallback: route.fallback,
        socket: guest.config.socket.display().to_string(),
        connected: seen.frontend.connected,
        connections: seen.connections,
        offered: vhost_user::features::feature_names(vhost_user::features::offered(&guest.offer())),
        features: vhost_user::features::feature_names(seen.frontend.features),
        protocol_features: vhost_user::features::protocol_feature_names(seen.frontend.protocol_features),
        memory_regions: seen.frontend.memory_regions,
        memory_bytes: seen.frontend.memory_bytes,
        frontend_mtu: seen.frontend.mtu,
        device_status: vhost_user::features::status_names(seen.frontend.status),
        announced: control.announced(name),
        punt: guest.config.punt.as_ref().map(|punt| punt.port.clone()),
        frontend: snapshot::Frontend {
            socket_file: socket_file(&guest.config.socket),
            refused: seen.frontend.refused,
            hung_up: seen.hung_up,
            since_seconds: seen.since.map(|since| since.elapsed().as_secs_f64()),
            waiting: seen.frontend.connected && guest.listener().as_ref().is_some_and(|it| it.is_awaited()),
        },
        queues,
    };
    let mut port = port(name, PortKind::Guest, state, held, pairs);
    if let Some(punt) = punt {
        *port.drops.entry(DropReason::SocketError.name().to_owned()).or_default() += punt.refused.get();
    }
    Port { guest: Some(part), ..port }
}

/// The socket's file as it is now.
fn socket_file(path: &Path) -> Option<snapshot::SocketFile> {
    let found = std::fs::metadata(path).ok()?;
    Some(snapshot::SocketFile { mode: found.mode() & 0o7777, user: found.uid(), group: found.gid() })
}

/// What a frontend has set up of a ring, and what that looks like now.
fn ring(state: Option<&vhost_user::QueueState>, seen: Option<Glance>) -> snapshot::RingState {
    let state = state.copied().unwrap_or_default();
    let indices = seen.and_then(|seen| seen.indices);
    snapshot::RingState {
        addresses: state.addresses,
        kick: state.kick,
        call: state.call,
        started: state.started,
        posted: seen.map(|seen| seen.posted),
        avail_index: indices.map(|(avail, _)| avail),
        used_index: indices.map(|(_, used)| used),
    }
}

const PARKED: &str = "parked";
const NONE: &str = "none";

fn queue(
    index: u16,
    counters: &GuestCounters,
    state: Option<&vhost_user::QueueState>,
    format: &str,
    owner: Owner,
) -> Queue {
    let ring: &RingCounters = if index.is_multiple_of(2) { &counters.to } else { &counters.from };
    let violation = *ring.violation.lock().unwrap_or_else(PoisonError::into_inner);
    let violations = ring.violations.lock().unwrap_or_else(PoisonError::into_inner);
    let started = state.is_some_and(|state| state.started);
    Queue {
        index,
        enabled: state.is_some_and(|state| state.enabled),
        owner: match owner {
            Owner::Worker(core) => worker_name(core),
            Owner::SlowPath => "slow-path".to_owned(),
            Owner::Parked => PARKED.to_owned(),
        },
        size: state.map_or(0, |state| state.size),
        format: if started { format } else { "none" }.to_owned(),
        used: ring.used.get(),
        kicks: ring.kicks.get(),
        calls: ring.calls.get(),
        calls_suppressed: ring.calls_suppressed.get(),
        violation: violation.filter(|_| started).map(|violation| violation.to_string()),
        violations: violations.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        ring: snapshot::RingState::default(),
    }
}
