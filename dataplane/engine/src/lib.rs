//! Who owns which queue: workers that poll, and control, which moves queues between them.
//!
//! - [`config`]: what a datapath is made of
//! - `worker`: a pinned thread and its poll loop
//! - `nap`: how a worker without work sleeps
//! - `slow_path`: the thread that waits for guests and sockets
//! - `lane`: what these own: pairs of queues that exchange packets
//! - `control`: which port is whose backend: take back, change, give out
//! - `ports`: the control side of every port
//! - `guest`: the control side of a guest
//! - `frontend`: the thread that serves a guest's vhost-user socket
//! - `watch`: links that go and come, and fallbacks
//! - `status`: what it all looks like

pub mod config;
mod control;
mod frontend;
mod guest;
mod lane;
mod nap;
mod ports;
mod slow_path;
mod status;
mod watch;
mod worker;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use dpdk::eal::{Eal, EalArgs, EalError};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use port::nic::NicError;
use port::punt::PuntError;
use vhost_user::SocketError;

pub use crate::control::BackendError;
pub use crate::ports::{NoSuchGuest, PortError};

use crate::config::{Config, Idle, SocketConfig};
use crate::control::Control;
use crate::frontend::Serving;
use crate::ports::Ports;
use crate::slow_path::SlowPath;
use crate::watch::Watch;
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
    /// A tap or raw socket.
    #[error("{0}")]
    Port(#[from] PortError),
    /// A descriptor that was said to be open.
    #[error("port {port}: descriptor {number} cannot be taken: {cause}")]
    Descriptor {
        /// Port name.
        port: String,
        /// The descriptor.
        number: i32,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A guest's exception path.
    #[error("guest {guest}: no exception path: {cause}")]
    Punt {
        /// Port name.
        guest: String,
        /// What was missing.
        cause: PuntError,
    },
    /// A guest's backend.
    #[error("{0}")]
    Backend(#[from] BackendError),
}

/// A running datapath. The order of the fields is the order in which it is taken down.
pub struct Datapath {
    serving: Vec<Serving>,
    _watch: Watch,
    ports: Arc<Ports>,
    workers: Arc<[Worker]>,
    started: Instant,
    eal: Eal,
}

impl Datapath {
    /// Starts DPDK, the NICs, the sockets, the workers, and listens for the guests.
    pub fn start(config: Config) -> Result<Datapath, StartError> {
        leave_cores_to_workers(&config.cores);
        let eal = Eal::init(&EalArgs {
            hugepages: config.hugepages,
            pci: config.nics.iter().map(|nic| nic.device.clone()).filter(|device| is_pci(device)).collect(),
            memory_mb: memory_mb(&config),
            extra: config.eal_args,
        })?;
        let place = if eal.hugepages() { "hugepages" } else { "ordinary pages (no hugepages)" };
        tracing::info!("DPDK runs, with packet memory in {place}");
        let workers: Arc<[Worker]> = config
            .cores
            .iter()
            .map(|core| Worker::start(*core, config.idle))
            .collect::<Result<Vec<_>, _>>()?
            .into();
        let slow_path = SlowPath::start()
            .map_err(|source| StartError::Thread { what: "the slow path".to_owned(), source })?;
        let mut ports = Ports::new(Control::new(workers.clone(), slow_path));
        let interrupts = config.idle == Idle::Adaptive;
        config.nics.into_iter().try_for_each(|nic| ports.add_nic(nic, interrupts))?;
        config.guests.into_iter().for_each(|guest| ports.add_guest(guest));
        for socket in config.sockets {
            let fds = ports::inherited(&socket)?;
            ports.add_socket(socket, fds)?;
        }
        let ports = Arc::new(ports);
        ports.add_punts()?;
        ports.connect_all()?;
        let _watch = Watch::start(ports.clone())?;
        let serving =
            (0..ports.guests.len()).map(|at| Serving::start(&ports, at)).collect::<Result<_, _>>()?;
        Ok(Datapath { serving, _watch, ports, workers, started: Instant::now(), eal })
    }

    /// Connects a guest to another port, or to none, while it runs.
    ///
    /// # Errors
    /// If there is no such guest or port, or the port is another guest's; nothing has changed then.
    pub fn set_backend(&self, guest: &str, backend: Option<&str>) -> Result<(), BackendError> {
        self.ports.set_backend(guest, backend)
    }

    /// Replaces the offloads that a guest is offered, as feature bits. In force from its next frontend on: what a
    /// driver has negotiated, it keeps.
    ///
    /// # Errors
    /// If there is no such guest.
    pub fn set_offloads(&self, guest: &str, offloads: u64) -> Result<(), NoSuchGuest> {
        self.ports.set_offloads(guest, offloads)
    }

    /// Adds a tap or raw socket while it runs; `fds`, if there are any, are open already.
    ///
    /// # Errors
    /// If it cannot be opened, or the name is taken; nothing has changed then.
    pub fn add_socket(&self, config: SocketConfig, fds: Vec<OwnedFd>) -> Result<(), PortError> {
        self.ports.add_socket(config, fds)
    }

    /// Removes a tap or raw socket while it runs.
    ///
    /// # Errors
    /// If there is none of that name, or a guest needs it.
    pub fn remove_socket(&self, name: &str) -> Result<(), PortError> {
        self.ports.remove_socket(name)
    }

    /// Stops everything: rings are given back, sockets removed, what is held is sent or counted, NICs
    /// closed. Returns what the datapath looked like at the end.
    pub fn shutdown(mut self) -> snapshot::Status {
        self.serving.iter().for_each(Serving::ask_to_stop);
        self.serving.clear();
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
