//! Who owns which queue: workers that poll, and control, which moves queues between them.
//!
//! - [`config`]: what a datapath is made of
//! - `cores`: which cores there are for workers, and for everybody else
//! - `worker`: a pinned thread and its poll loop
//! - `nap`: how a worker without work sleeps
//! - `slow_path`: the thread that waits for guests and sockets
//! - `handle`: control's end of these threads
//! - `lane`: what they own: pairs of queues that exchange packets
//! - `control`: which port is whose backend: take back, change, give out
//! - `ports`: the control side of every port, and adding and removing it
//! - `live`: what changes while it runs
//! - `guest`: the control side of a guest
//! - `intended`: what each guest is meant to be connected to
//! - `frontend`: the thread that serves a guest's vhost-user socket
//! - `watch`: links that go and come, and fallbacks
//! - `capture`: copies of what passes a port
//! - `status`: what it all looks like

mod capture;
pub mod config;
mod control;
mod cores;
mod frontend;
mod guest;
mod handle;
mod intended;
mod lane;
mod live;
mod nap;
mod ports;
mod rota;
mod slow_path;
mod status;
mod watch;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dpdk::eal::{Eal, EalArgs, EalError};

pub use crate::capture::{
    BadProgram, CaptureError, Capturing, Direction, Instruction, Program, Record, Wanted,
};
pub use crate::control::{BackendError, Pair};
pub use crate::ports::{NoSuchGuest, PortError};
pub use crate::status::Work;
pub use crate::worker::WorkerError;

use crate::capture::Captures;
use crate::config::{Config, HugepagePolicy};
use crate::control::{Arrived, Control};
use crate::cores::Cores;
use crate::frontend::Serving;
use crate::ports::Ports;
use crate::slow_path::SlowPath;
use crate::watch::Watch;
use crate::worker::Worker;

/// Memory for DPDK itself where there are no hugepages to take it from on demand, in MiB.
const BASE_MEMORY_MB: u64 = 96;
/// Memory for ports that are added later, likewise: a dozen NICs of one queue pair each.
const SPARE_MEMORY_MB: u32 = 256;

/// Why the datapath could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// DPDK.
    #[error("{0}")]
    Eal(#[from] EalError),
    /// A worker.
    #[error("{0}")]
    Worker(#[from] WorkerError),
    /// A thread of the control side.
    #[error("the thread for {what} cannot be started: {source}")]
    Thread {
        /// What for.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A port.
    #[error("{0}")]
    Port(#[from] PortError),
}

/// The threads that serve guests, by port name.
type Servings = BTreeMap<String, Serving>;

/// What only changes with ports and workers; locked for as long as one is added or removed: one at a time.
struct Changes {
    serving: Servings,
    cores: Cores,
}

/// A running datapath. The order of the fields is the order in which it is taken down.
pub struct Datapath {
    captures: Captures,
    changes: Mutex<Changes>,
    _watch: Watch,
    ports: Arc<Ports>,
    started: Instant,
    eal_args: Vec<String>,
    hugepages: HugepagePolicy,
    eal: Eal,
}

impl Datapath {
    /// Starts DPDK, the NICs, the sockets, the workers, and listens for the guests.
    pub fn start(config: Config) -> Result<Datapath, StartError> {
        let mut cores = Cores::of_this_thread();
        cores.leave_to(&config.cores);
        if let Err(errno) = dpdk::log::to_tracing() {
            tracing::warn!("DPDK logs to stderr by itself: {errno}");
        }
        let eal = Eal::init(&EalArgs {
            hugepages: config.hugepages,
            pci: config.nics.iter().map(|nic| nic.device.clone()).filter(|device| is_pci(device)).collect(),
            memory_mb: memory_mb(&config),
            spare_mb: SPARE_MEMORY_MB,
            extra: config.eal_args.clone(),
        })?;
        let place = if eal.hugepages() { "hugepages" } else { "ordinary pages (no hugepages)" };
        tracing::info!("DPDK runs, with packet memory in {place}");
        let workers = config.cores.iter().map(|core| Worker::start(*core, config.polling));
        let workers = workers.collect::<Result<Vec<_>, _>>()?;
        let slow_path = SlowPath::start()
            .map_err(|source| StartError::Thread { what: "the slow path".to_owned(), source })?;
        let ports = Arc::new(Ports::new(Control::new(workers, config.polling, slow_path)));
        config.nics.into_iter().try_for_each(|nic| ports.add_nic(nic))?;
        for socket in config.sockets {
            ports.add_socket(socket, Vec::new())?;
        }
        let guests = config.guests.into_iter().map(|guest| ports.add_guest(guest));
        let guests = guests.collect::<Result<Vec<_>, _>>()?;
        guests.iter().try_for_each(|(guest, _)| ports.connect_as_configured(guest, Arrived::Kept))?;
        let _watch = Watch::start(ports.clone())?;
        let mut serving = Servings::new();
        for (guest, listener) in guests {
            serving.insert(guest.config.name.clone(), Serving::start(&ports, guest, listener)?);
        }
        Ok(Datapath {
            captures: Captures::new(ports.clone()),
            changes: Mutex::new(Changes { serving, cores }),
            _watch,
            ports,
            started: Instant::now(),
            eal_args: config.eal_args,
            hugepages: config.hugepages,
            eal,
        })
    }

    /// Stops everything: rings are given back, sockets removed, what is held is sent or counted, NICs
    /// closed. Returns what the datapath looked like at the end.
    pub fn shutdown(mut self) -> snapshot::Status {
        self.captures.close();
        let Changes { serving, .. } = self.changes.get_mut().unwrap_or_else(PoisonError::into_inner);
        serving.values().for_each(Serving::ask_to_stop);
        serving.clear();
        self.ports.control().remove_all();
        self.status()
    }
}

/// Memory that mbufs and rings need at most, in MiB.
fn memory_mb(config: &Config) -> u32 {
    let punts = config.guests.iter().filter(|guest| guest.punt.is_some()).count() as u64;
    let nics = config.nics.iter().map(|nic| port::nic::memory_bytes(nic.queues, nic.mtu)).sum::<u64>();
    let packets = nics + punts * port::punt::MEMORY_BYTES;
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
