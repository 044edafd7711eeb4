//! Who owns which queue: workers that poll, and control, which moves queues between them.
//!
//! - [`config`]: what a datapath is made of
//! - `worker`: a pinned thread and its poll loop
//! - `lane`: what it polls: guest pairs and nic pairs that exchange packets
//! - `wire`: one guest's lanes: take back, change, give out
//! - `frontend`: the thread that serves a guest's vhost-user socket
//! - `status`: what it all looks like

pub mod config;
mod frontend;
mod lane;
mod link;
mod status;
mod wire;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use dpdk::eal::{Eal, EalArgs, EalError};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use port::guest::GuestCounters;
use port::nic::{Nic, NicError, NicOptions, NicPair};
use vhost_user::SocketError;

use crate::config::{Config, GuestConfig, NicConfig};
use crate::frontend::{Guest, Serving};
use crate::link::LinkWatch;
use crate::wire::Wire;
use crate::worker::{Worker, WorkerError};

/// Memory for DPDK itself where there are no hugepages to take it from on demand, in MiB.
const BASE_MEMORY_MB: u64 = 96;

/// Why the datapath could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// DPDK.
    #[error("{0}")]
    Eal(#[from] EalError),
    /// A NIC.
    #[error("{0}")]
    Nic(#[from] NicError),
    /// A worker.
    #[error("{0}")]
    Worker(#[from] WorkerError),
    /// A guest's socket.
    #[error("guest {guest}: {source}")]
    Socket {
        /// Port name.
        guest: String,
        /// What is wrong with it.
        source: SocketError,
    },
    /// A thread of the control side.
    #[error("the thread for {what} cannot be started: {source}")]
    Thread {
        /// What for.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A guest's backend is no nic, or another guest's.
    #[error("guest {guest}: backend {backend} is no nic, or already another guest's")]
    Backend {
        /// Port name.
        guest: String,
        /// What it names.
        backend: String,
    },
}

/// A running datapath. The order of the fields is the order in which it is taken down.
pub struct Datapath {
    serving: Vec<Serving>,
    _link_watch: LinkWatch,
    guests: Vec<Arc<Guest>>,
    /// NIC pairs that are no guest's backend: kept, so that the device stays up; never polled.
    _unwired: Mutex<Vec<NicPair>>,
    nics: Vec<NicPort>,
    workers: Arc<[Worker]>,
    started: Instant,
    eal: Eal,
}

/// A NIC and what it was configured as.
struct NicPort {
    config: NicConfig,
    nic: Arc<Nic>,
}

impl Datapath {
    /// Starts DPDK, the NICs, the workers, and listens for the guests.
    pub fn start(config: Config) -> Result<Datapath, StartError> {
        leave_cores_to_workers(&config.cores);
        let eal = Eal::init(&EalArgs {
            hugepages: config.hugepages,
            pci: config.nics.iter().map(|nic| nic.device.clone()).filter(|device| is_pci(device)).collect(),
            memory_mb: memory_mb(&config.nics),
            extra: config.eal_args,
        })?;
        let place = if eal.hugepages() { "hugepages" } else { "ordinary pages (no hugepages)" };
        tracing::info!("DPDK runs, with packet memory in {place}");
        let workers: Arc<[Worker]> =
            config.cores.iter().map(|core| Worker::start(*core)).collect::<Result<Vec<_>, _>>()?.into();
        let mut pairs = BTreeMap::new();
        let nics = config.nics.into_iter().map(|nic| open_nic(nic, &mut pairs));
        let nics = nics.collect::<Result<Vec<NicPort>, _>>()?;
        let guests = config.guests.into_iter().map(|guest| add_guest(guest, &nics, &mut pairs, &workers));
        let guests = guests.collect::<Result<Vec<_>, _>>()?;
        let link_watch = LinkWatch::start(&nics)?;
        let serving = guests.iter().map(|guest| Serving::start(guest.clone())).collect::<Result<_, _>>()?;
        let _unwired = Mutex::new(pairs.into_values().flatten().collect());
        let started = Instant::now();
        Ok(Datapath { serving, _link_watch: link_watch, guests, _unwired, nics, workers, started, eal })
    }

    /// Stops everything: rings are given back, sockets removed, what is held is sent or counted, NICs
    /// closed. Returns what the datapath looked like at the end.
    pub fn shutdown(mut self) -> snapshot::Status {
        self.serving.iter().for_each(Serving::ask_to_stop);
        self.serving.clear();
        for guest in &self.guests {
            guest.wire().remove();
        }
        self.status()
    }
}

/// Memory that the NICs' mbufs and rings need at most, in MiB.
fn memory_mb(nics: &[NicConfig]) -> u32 {
    let packets = nics.iter().map(|nic| port::nic::memory_bytes(nic.queues, nic.mtu)).sum::<u64>();
    (BASE_MEMORY_MB + packets.div_ceil(1 << 20)) as u32
}

/// `DDDD:BB:DD.F` or `BB:DD.F`, maybe with devargs behind it; anything else names a vdev.
fn is_pci(device: &str) -> bool {
    let address = device.split(',').next().unwrap_or(device);
    let mut parts = address.rsplit(':');
    let tail = parts.next().and_then(|tail| tail.split_once('.'));
    let hex = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_hexdigit());
    tail.is_some_and(|(slot, function)| hex(slot) && hex(function))
        && parts.clone().count() > 0
        && parts.all(hex)
}

fn open_nic(config: NicConfig, pairs: &mut BTreeMap<String, Vec<NicPair>>) -> Result<NicPort, StartError> {
    let (nic, queues) = Nic::open(&NicOptions {
        name: &config.name,
        device: &config.device,
        queues: config.queues,
        mtu: config.mtu,
        promiscuous: config.promiscuous,
    })?;
    tracing::info!(
        nic = config.name,
        driver = nic.port.info().driver,
        queues = config.queues,
        mtu = nic.port.mtu(),
        link = if nic.link_up() { "up" } else { "down" },
        "nic opened"
    );
    pairs.insert(config.name.clone(), queues);
    Ok(NicPort { config, nic: Arc::new(nic) })
}

fn add_guest(
    config: GuestConfig,
    nics: &[NicPort],
    pairs: &mut BTreeMap<String, Vec<NicPair>>,
    workers: &Arc<[Worker]>,
) -> Result<Arc<Guest>, StartError> {
    let counters: Vec<GuestCounters> = (0..config.queues).map(|_| GuestCounters::default()).collect();
    let (nic, queues) = match &config.backend {
        None => (None, Vec::new()),
        Some(backend) => {
            let nic = nics.iter().find(|nic| nic.config.name == *backend);
            match (nic, pairs.remove(backend)) {
                (Some(nic), Some(queues)) => (Some(nic.nic.clone()), queues),
                _ => {
                    let (guest, backend) = (config.name.clone(), backend.clone());
                    return Err(StartError::Backend { guest, backend });
                }
            }
        }
    };
    let wire = Wire::new(&config.name, counters.clone(), workers.clone(), queues);
    Ok(Arc::new(Guest::new(config, counters, nic, wire)))
}

/// Keeps this thread, and all that it starts, off the workers' cores, if that leaves any. Workers pin
/// themselves.
fn leave_cores_to_workers(cores: &[usize]) {
    let this = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(this) else {
        return;
    };
    let mut rest = CpuSet::new();
    let mut any = false;
    for core in (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true) && !cores.contains(core))
    {
        any |= rest.set(core).is_ok();
    }
    if !any {
        tracing::warn!("every core this process may use has a worker: control shares a core with one");
    } else if let Err(errno) = sched_setaffinity(this, &rest) {
        tracing::warn!("control cannot be kept off the workers' cores: {errno}");
    }
}

#[cfg(test)]
mod tests {
    use super::is_pci;

    #[test]
    fn tells_pci_addresses_from_vdevs() {
        for pci in ["0000:03:00.0", "03:00.1", "0000:03:00.0,arg=1"] {
            assert!(is_pci(pci), "{pci}");
        }
        for vdev in ["net_null0", "net_pcap0,iface=eth0", "net_tap0,mac=02:00:00:00:00:01", "a.b", ":00.0"] {
            assert!(!is_pci(vdev), "{vdev}");
        }
    }
}
