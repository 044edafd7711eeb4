//! The control side of every port, and which backend each guest is meant to have.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use port::nic::{Nic, NicOptions};
use port::punt::Punt;
use port::socket::{SocketOptions, SocketPair, SocketPort, SocketPortError, Source};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use vhost_user::Link;

use crate::StartError;
use crate::config::{GuestConfig, NicConfig, SocketConfig};
use crate::control::{Arrived, BackendError, Control};
use crate::guest::{Guest, Route};

/// All ports.
pub struct Ports {
    control: Mutex<Control>,
    /// In configuration order, as the other two.
    pub nics: Vec<NicPort>,
    /// Taps and raw sockets, which come and go.
    sockets: RwLock<Vec<Arc<SocketEntry>>>,
    /// Guests.
    pub guests: Vec<Guest>,
}

/// A NIC and what it was configured as.
pub struct NicPort {
    pub config: NicConfig,
    pub nic: Nic,
}

/// A tap or raw socket and what it was configured as.
pub struct SocketEntry {
    pub config: SocketConfig,
    pub socket: SocketPort,
}

/// Why a port cannot be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Port names are unique.
    #[error("there is a port called {0} already")]
    NameTaken(String),
    /// There is no such port.
    #[error("no port is called {0:?}")]
    NoSuchPort(String),
    /// Not a tap or raw port.
    #[error("{0} is a guest or a nic: those come and go with ringwired in this version")]
    Fixed(String),
    /// A guest needs it.
    #[error("{port} is the backend or fallback of {guest}: give that another one first")]
    InUse {
        /// The port.
        port: String,
        /// The guest.
        guest: String,
    },
    /// It cannot be opened.
    #[error("{0}")]
    Open(#[from] SocketPortError),
}

/// There is no guest of that name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no guest is called {0:?}")]
pub struct NoSuchGuest(pub String);

impl Ports {
    /// No port yet.
    pub fn new(control: Control) -> Ports {
        Ports {
            control: Mutex::new(control),
            nics: Vec::new(),
            sockets: RwLock::default(),
            guests: Vec::new(),
        }
    }

    /// Opens and starts a NIC; `interrupts`: a worker may want to sleep.
    pub fn add_nic(&mut self, config: NicConfig, interrupts: bool) -> Result<(), StartError> {
        let (nic, pairs) = Nic::open(&NicOptions {
            name: &config.name,
            device: &config.device,
            queues: config.queues,
            mtu: config.mtu,
            promiscuous: config.promiscuous,
            interrupts,
            lro: config.lro,
        })?;
        tracing::info!(
            nic = config.name,
            driver = nic.port.info().driver,
            queues = config.queues,
            mtu = nic.port.mtu(),
            link = if nic.link_up() { "up" } else { "down" },
            offloads = nic.offloads().join(" "),
            "nic opened"
        );
        self.control().add_nic(&config.name, pairs);
        self.nics.push(NicPort { config, nic });
        Ok(())
    }

    /// Opens, or creates, the interface of a tap or raw socket; `fds`, if there are any, are open already.
    pub fn add_socket(&self, config: SocketConfig, fds: Vec<OwnedFd>) -> Result<(), PortError> {
        let mut sockets = self.sockets.write().unwrap_or_else(PoisonError::into_inner);
        let name = config.name.as_str();
        let guests = self.guests.iter().map(|guest| &guest.config.name);
        let nics = self.nics.iter().map(|nic| &nic.config.name);
        if guests.chain(nics).chain(sockets.iter().map(|entry| &entry.config.name)).any(|taken| taken == name)
        {
            return Err(PortError::NameTaken(config.name));
        }
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
        tracing::info!(
            port = config.name,
            kind = socket.kind.name(),
            interface = socket.status().interface,
            "interface opened"
        );
        self.control().add_socket(&config.name, pairs);
        sockets.push(Arc::new(SocketEntry { config, socket }));
        Ok(())
    }

    /// Closes a tap or raw socket that is no guest's backend or fallback; a tap that was created for it goes.
    pub fn remove_socket(&self, name: &str) -> Result<(), PortError> {
        // Before the list is locked: whoever holds a route may want to look at it.
        let in_use = |guest: &&Guest| {
            guest.config.fallback.as_deref() == Some(name) || guest.route().wanted.as_deref() == Some(name)
        };
        let user = self.guests.iter().find(in_use).map(|guest| guest.config.name.clone());
        let mut sockets = self.sockets.write().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = sockets.iter().position(|entry| entry.config.name == name) else {
            let is_other = self.nics.iter().any(|nic| nic.config.name == name)
                || self.guests.iter().any(|guest| guest.config.name == name);
            let name = name.to_owned();
            return Err(if is_other { PortError::Fixed(name) } else { PortError::NoSuchPort(name) });
        };
        if let Some(guest) = user {
            return Err(PortError::InUse { port: name.to_owned(), guest });
        }
        self.control().remove_socket(name)?;
        sockets.remove(at);
        tracing::info!(port = name, "removed");
        Ok(())
    }

    /// Taps and raw sockets, as they are now.
    pub fn sockets(&self) -> Vec<Arc<SocketEntry>> {
        self.sockets.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a guest that nobody listens for yet.
    pub fn add_guest(&mut self, config: GuestConfig) {
        let guest = Guest::new(config);
        self.control().add_guest(&guest.config.name, guest.counters.clone());
        self.guests.push(guest);
    }

    /// Makes the exception path of each guest that is to have one.
    pub fn add_punts(&self) -> Result<(), StartError> {
        for guest in &self.guests {
            let Some(config) = &guest.config.punt else { continue };
            let name = &guest.config.name;
            let make =
                |pair: &SocketPair| Punt::new(&format!("punt-{name}"), config.classes, pair.counters.clone());
            let punted = self.control().add_punt(name, &config.port, make);
            punted.map_err(|cause| StartError::Punt { guest: name.clone(), cause })?;
        }
        Ok(())
    }

    /// Connects each guest to its configured backend.
    pub fn connect_all(&self) -> Result<(), BackendError> {
        let mut backends = self.guests.iter().filter(|guest| guest.config.backend.is_some());
        backends.try_for_each(|guest| self.route(guest, guest.config.backend.as_deref(), Arrived::Kept))
    }

    /// Connects a guest to another port, or to none.
    pub fn set_backend(&self, guest: &str, backend: Option<&str>) -> Result<(), BackendError> {
        let Some(found) = self.guests.iter().find(|found| found.config.name == guest) else {
            return Err(BackendError::NoSuchGuest(guest.to_owned()));
        };
        self.route(found, backend, Arrived::Dropped)
    }

    /// Replaces the offloads that a guest's next frontend is offered.
    pub fn set_offloads(&self, guest: &str, offloads: u64) -> Result<(), NoSuchGuest> {
        let found = self.guests.iter().find(|found| found.config.name == guest);
        found.ok_or_else(|| NoSuchGuest(guest.to_owned()))?.set_offloads(offloads);
        let names = vhost_user::features::feature_names(offloads).join(" ");
        tracing::info!(guest, "offloads offered to the next frontend: {names}");
        Ok(())
    }

    fn route(&self, guest: &Guest, backend: Option<&str>, arrived: Arrived) -> Result<(), BackendError> {
        let mut route = guest.route();
        let guest = &guest.config.name;
        self.control().connect(guest, backend, arrived)?;
        *route = Route { wanted: backend.map(str::to_owned), up_since: None };
        tracing::info!(guest, backend = backend.unwrap_or("none"), "connected");
        Ok(())
    }

    /// Control, locked: sessions, the API and the watch take turns.
    pub fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether packets can leave through a port, as far as it is known.
    pub fn link_up(&self, port: &str) -> bool {
        let nic = || self.nics.iter().find(|nic| nic.config.name == port).map(|nic| nic.nic.link_up());
        let socket = || {
            let sockets = self.sockets();
            sockets.iter().find(|entry| entry.config.name == port).map(|entry| entry.socket.link_up())
        };
        let guest = || {
            let guest = self.guests.iter().find(|guest| guest.config.name == port);
            guest.map(|guest| guest.seen().frontend.connected)
        };
        nic().or_else(socket).or_else(guest).unwrap_or(false)
    }

    /// The link of the port that a guest is connected to. Only NICs tell more of it than whether it is up.
    pub fn backend_link(&self, guest: &str) -> Link {
        let backend = self.control().backend(guest).map(str::to_owned);
        let up = backend.as_deref().is_some_and(|backend| self.link_up(backend));
        let nic = self.nics.iter().find(|nic| up && Some(&nic.config.name) == backend.as_ref());
        let link = nic.map(|nic| nic.nic.port.link());
        Link {
            up,
            speed_mbps: link.map(|link| link.speed_mbps).filter(|speed| *speed > 0),
            full_duplex: link.map(|link| link.full_duplex),
        }
    }

    /// MTU of the port that a guest is connected to, in bytes; another guest has none that we know.
    pub fn backend_mtu(&self, guest: &str) -> Option<u16> {
        let backend = self.control().backend(guest)?.to_owned();
        let nic = self.nics.iter().find(|nic| nic.config.name == backend);
        let socket = || {
            let sockets = self.sockets();
            let mtu = sockets.iter().find(|entry| entry.config.name == backend)?.socket.status().mtu;
            // 0: the interface is gone.
            (mtu > 0).then_some(mtu.try_into().unwrap_or(u16::MAX))
        };
        nic.map(|nic| nic.nic.port.mtu()).or_else(socket)
    }
}

/// The descriptors that a socket port was given by number: duplicates.
pub fn inherited(config: &SocketConfig) -> Result<Vec<OwnedFd>, StartError> {
    if config.descriptors.is_empty() {
        return Ok(Vec::new());
    }
    let error = |number, cause: Errno| StartError::Descriptor {
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
