//! Ports are added and removed, one at a time.

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use port::nic::{Nic, NicError, NicOptions};
use port::punt::{Punt, PuntError};
use port::socket::{SocketOptions, SocketPort, SocketPortError, Source};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use snapshot::Port;
use vhost_user::{Listener, SocketError};

use super::{Entries, NicPort, Ports, SocketEntry};
use crate::config::{GuestConfig, NicConfig, PuntConfig, SocketConfig, Thing};
use crate::control::{Arrived, BackendError};
use crate::guest::{Guest, Route};
use crate::status;
use crate::worker::WorkerError;

/// Time between two looks at whether somebody still looks at a port that is removed.
const PAUSE: Duration = Duration::from_millis(1);

/// Why a port cannot be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Port names are unique.
    #[error("there is a port called {0} already")]
    NameTaken(String),
    /// What only one port can have is another's.
    #[error("{}: same as that of {other}: {}", .thing.key(), .thing.rule())]
    Same {
        /// What it is.
        thing: Thing,
        /// Whose it is.
        other: String,
    },
    /// There is no such port.
    #[error("no port is called {0:?}")]
    NoSuchPort(String),
    /// A guest needs it.
    #[error("{port} is the {role} of {guest}: give that another one first")]
    InUse {
        /// The port.
        port: String,
        /// What it is: a backend, fallback or exception path.
        role: &'static str,
        /// The guest.
        guest: String,
    },
    /// A tap or raw socket cannot be opened.
    #[error("{0}")]
    Open(#[from] SocketPortError),
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
    /// A NIC cannot be opened.
    #[error("{0}")]
    Nic(#[from] NicError),
    /// A NIC has no room for its packets.
    #[error(
        "{0}: without hugepages DPDK's memory is fixed when ringwired starts, and too little is left; \
         [eal] args = [\"-m\", \"MB\"] sets how much there is"
    )]
    Memory(NicError),
    /// A guest's socket.
    #[error("guest {guest}: {source}")]
    Socket {
        /// Port name.
        guest: String,
        /// What is wrong with it.
        source: SocketError,
    },
    /// A guest's thread.
    #[error("the thread for guest {guest} cannot be started: {source}")]
    Thread {
        /// Port name.
        guest: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A guest's exception path.
    #[error("guest {guest}: no exception path: {cause}")]
    Punt {
        /// Port name.
        guest: String,
        /// What was missing.
        cause: PuntError,
    },
    /// A guest's backend or fallback.
    #[error("{0}")]
    Backend(#[from] BackendError),
    /// The worker that a guest's queue pair is assigned to.
    #[error("{0}")]
    Worker(#[from] WorkerError),
}

impl Ports {
    /// Opens and starts a NIC.
    pub fn add_nic(&self, config: NicConfig) -> Result<(), PortError> {
        self.check_free(&config.name, Some(config.thing()))?;
        let (nic, pairs) = Nic::open(&NicOptions {
            name: &config.name,
            device: &config.device,
            queues: config.queues,
            mtu: config.mtu,
            promiscuous: config.promiscuous,
            lro: config.lro,
        })?;
        tracing::info!(
            port = config.name,
            driver = nic.port.info().driver,
            queues = config.queues,
            mtu = nic.port.mtu(),
            link = if nic.link_up() { "up" } else { "down" },
            offloads = nic.offloads().join(" "),
            "nic opened"
        );
        self.control().add_nic(&config.name, pairs);
        push(&self.nics, Arc::new(NicPort { config, nic }));
        Ok(())
    }

    /// Opens, or creates, the interface of a tap or raw socket; `fds`, if there are any, are open already, and so are the
    /// descriptors that it is configured with.
    pub fn add_socket(&self, config: SocketConfig, fds: Vec<OwnedFd>) -> Result<(), PortError> {
        self.check_free(&config.name, config.thing())?;
        let fds = if fds.is_empty() { inherited(&config)? } else { fds };
        let source = if fds.is_empty() { Source::Name(config.interface.clone()) } else { Source::Open(fds) };
        let (socket, pairs) = SocketPort::open(&SocketOptions {
            name: config.name.clone(),
            kind: config.kind,
            source,
            queues: config.queues,
            user: config.user,
            group: config.group,
            mtu: None,
        })?;
        let entry = SocketEntry { config, socket };
        // Now it is known which one open descriptors are of.
        let name = &entry.config.name;
        self.check_free(name, entry.by_name().thing())?;
        tracing::info!(
            port = name,
            kind = entry.socket.kind.name(),
            interface = entry.socket.status().interface,
            "interface opened"
        );
        self.control().add_socket(name, pairs);
        push(&self.sockets, Arc::new(entry));
        Ok(())
    }

    /// Listens for a guest's frontend, which nobody serves yet. The guest has no backend yet.
    pub fn add_guest(&self, config: GuestConfig) -> Result<(Arc<Guest>, Listener), PortError> {
        self.check_free(&config.name, Some(config.thing()))?;
        let listener = Listener::bind(&config.socket, config.socket_mode, config.socket_group)
            .map_err(|source| PortError::Socket { guest: config.name.clone(), source })?;
        let guest = Arc::new(Guest::new(config));
        self.control().add_guest(&guest.config.name, guest.counters.clone());
        push(&self.guests, guest.clone());
        Ok((guest, listener))
    }

    /// Connects a guest to its workers, exception path and backend as it was configured. `arrived`: what becomes of
    /// packets that the backend has received before.
    pub fn connect_as_configured(&self, guest: &Guest, arrived: Arrived) -> Result<(), PortError> {
        let config = &guest.config;
        let name = &config.name;
        if let Some(fallback) = config.fallback.as_ref().filter(|port| !self.is_port(port)) {
            return Err(BackendError::NoSuchPort(fallback.clone()).into());
        }
        if let Some(punt) = &config.punt {
            self.add_punt(name, punt)?;
        }
        self.control().assign_all(name, &config.assign)?;
        match config.backend.as_deref() {
            Some(backend) => Ok(self.route(guest, Some(backend), arrived)?),
            None => Ok(()),
        }
    }

    /// Whether no guest needs a port that there is.
    pub fn check_unused(&self, name: &str) -> Result<(), PortError> {
        if !self.is_port(name) {
            return Err(PortError::NoSuchPort(name.to_owned()));
        }
        let in_use = |guest: &str, role| {
            Err(PortError::InUse { port: name.to_owned(), role, guest: guest.to_owned() })
        };
        for guest in self.guests().iter().filter(|guest| guest.config.name != name) {
            let config = &guest.config;
            // A backend that its fallback stands in for is needed, too.
            if guest.route().wanted.as_deref() == Some(name) {
                return in_use(&config.name, "backend");
            }
            if guest.route().fallback.as_deref() == Some(name) {
                return in_use(&config.name, "fallback");
            }
            if config.punt.as_ref().is_some_and(|punt| punt.port == name) {
                return in_use(&config.name, "exception path");
            }
        }
        match self.control().user(name) {
            Some(guest) => in_use(guest, "backend"),
            None => Ok(()),
        }
    }

    /// Takes a guest away whose frontend nobody serves any more. What it has counted at the end.
    pub fn remove_guest(&self, guest: Arc<Guest>) -> Port {
        self.control().remove_guest(&guest.config.name);
        self.guests
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|other| !Arc::ptr_eq(other, &guest));
        status::guest_port(&guest, Route::default(), &self.control(), self)
    }

    /// Closes a NIC, tap or raw socket that no guest needs; a tap that was created for it goes. What it has counted at
    /// the end.
    pub fn close(&self, name: &str) -> Result<Port, PortError> {
        self.control().remove_port(name)?;
        if let Some(nic) = take(&self.nics, |nic| nic.config.name == name) {
            return Ok(status::nic_port(&alone(nic)));
        }
        match take(&self.sockets, |entry| entry.config.name == name) {
            Some(entry) => Ok(status::socket_port(&alone(entry), 0)),
            None => Err(PortError::NoSuchPort(name.to_owned())),
        }
    }

    /// Whether a port can have this name and thing.
    fn check_free(&self, name: &str, thing: Option<Thing>) -> Result<(), PortError> {
        if self.is_port(name) {
            return Err(PortError::NameTaken(name.to_owned()));
        }
        let Some(thing) = thing else { return Ok(()) };
        match self.things().into_iter().find(|(_, its)| its.as_ref() == Some(&thing)) {
            Some((other, _)) => Err(PortError::Same { thing, other }),
            None => Ok(()),
        }
    }

    /// All ports by name, and what no other port can have.
    fn things(&self) -> Vec<(String, Option<Thing>)> {
        let nics = self.nics().into_iter().map(|nic| (nic.config.name.clone(), Some(nic.config.thing())));
        let sockets = self.sockets().into_iter();
        let sockets = sockets.map(|entry| (entry.config.name.clone(), entry.by_name().thing()));
        let guests = self.guests().into_iter();
        let guests = guests.map(|guest| (guest.config.name.clone(), Some(guest.config.thing())));
        nics.chain(sockets).chain(guests).collect()
    }

    /// Makes a tap a guest's exception path, if it is nobody's backend, also none that a fallback stands in for.
    fn add_punt(&self, guest: &str, PuntConfig { port, classes }: &PuntConfig) -> Result<(), PortError> {
        let returns = self.guests().into_iter().find(|other| other.route().wanted.as_ref() == Some(port));
        let returns = returns.map(|other| other.config.name.clone());
        let mut control = self.control();
        if let Some(other) = control.punt_of(port) {
            return Err(BackendError::Punt { port: port.clone(), guest: other.to_owned() }.into());
        }
        if let Some(guest) = control.user(port).map(str::to_owned).or(returns) {
            return Err(BackendError::Taken { port: port.clone(), guest }.into());
        }
        if self.socket(port).is_none() {
            return Err(BackendError::NoSuchPort(port.clone()).into());
        }
        let made = control.add_punt(guest, port, |pair| Punt::new(*classes, pair.counters.clone()));
        made.map_err(|cause| PortError::Punt { guest: guest.to_owned(), cause })
    }

    fn is_port(&self, name: &str) -> bool {
        self.nic(name).is_some() || self.socket(name).is_some() || self.guest(name).is_some()
    }
}

fn push<T>(entries: &Entries<T>, entry: Arc<T>) {
    entries.write().unwrap_or_else(PoisonError::into_inner).push(entry);
}

fn take<T>(entries: &Entries<T>, wanted: impl Fn(&T) -> bool) -> Option<Arc<T>> {
    let mut entries = entries.write().unwrap_or_else(PoisonError::into_inner);
    let at = entries.iter().position(|entry| wanted(entry))?;
    Some(entries.remove(at))
}

/// Waits until nobody else looks at a port, so that it is closed when this is dropped, and can be opened again at once.
/// Who looks has found it in its list, and is done soon.
fn alone<T>(mut entry: Arc<T>) -> T {
    loop {
        match Arc::try_unwrap(entry) {
            Ok(alone) => return alone,
            Err(shared) => entry = shared,
        }
        std::thread::sleep(PAUSE);
    }
}

/// The descriptors that a socket port was given by number: duplicates.
fn inherited(config: &SocketConfig) -> Result<Vec<OwnedFd>, PortError> {
    if config.descriptors.is_empty() {
        return Ok(Vec::new());
    }
    let error = |number, cause: Errno| PortError::Descriptor {
        port: config.name.clone(),
        number,
        cause: cause.into(),
    };
    let this =
        pidfd_open(getpid(), PidfdFlags::empty()).map_err(|cause| error(config.descriptors[0], cause))?;
    let duplicate = |number: &i32| {
        pidfd_getfd(&this, *number, PidfdGetfdFlags::empty()).map_err(|cause| error(*number, cause))
    };
    config.descriptors.iter().map(duplicate).collect()
}
