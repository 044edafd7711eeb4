//! The control side of every port, and which backend each guest is meant to have.

mod change;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use port::nic::Nic;
use port::socket::SocketPort;
use vhost_user::Link;

use crate::config::{NicConfig, SocketConfig};
use crate::control::{Arrived, BackendError, Control};
use crate::guest::Guest;

pub use change::PortError;

/// All ports.
///
/// Whoever holds several locks took them in this order: the one under which ports are added and removed
/// ([`crate::Datapath`]'s), a guest's route, control. Each list is locked for a moment only, with nothing after it.
pub struct Ports {
    control: Mutex<Control>,
    /// In the order in which they were added, as the other two.
    nics: Entries<NicPort>,
    /// Taps and raw sockets.
    sockets: Entries<SocketEntry>,
    guests: Entries<Guest>,
}

/// Ports of one kind. Who looks at one keeps it alive meanwhile.
type Entries<T> = RwLock<Vec<Arc<T>>>;

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

impl SocketEntry {
    /// What it was configured as; descriptors that were handed over are gone, but they have their interface's name.
    pub fn by_name(&self) -> SocketConfig {
        let mut config = self.config.clone();
        if config.interface.is_empty() && config.descriptors.is_empty() {
            config.interface = self.socket.status().interface;
        }
        config
    }
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
            nics: RwLock::default(),
            sockets: RwLock::default(),
            guests: RwLock::default(),
        }
    }

    /// NICs, as they are now.
    pub fn nics(&self) -> Vec<Arc<NicPort>> {
        list(&self.nics)
    }

    /// Taps and raw sockets, as they are now.
    pub fn sockets(&self) -> Vec<Arc<SocketEntry>> {
        list(&self.sockets)
    }

    /// Guests, as they are now.
    pub fn guests(&self) -> Vec<Arc<Guest>> {
        list(&self.guests)
    }

    /// The NIC of that name.
    pub fn nic(&self, name: &str) -> Option<Arc<NicPort>> {
        self.nics().into_iter().find(|nic| nic.config.name == name)
    }

    /// The tap or raw socket of that name.
    pub fn socket(&self, name: &str) -> Option<Arc<SocketEntry>> {
        self.sockets().into_iter().find(|entry| entry.config.name == name)
    }

    /// The guest of that name.
    pub fn guest(&self, name: &str) -> Option<Arc<Guest>> {
        self.guests().into_iter().find(|guest| guest.config.name == name)
    }

    /// Connects a guest to another port, or to none.
    pub fn set_backend(&self, guest: &str, backend: Option<&str>) -> Result<(), BackendError> {
        let found = self.guest(guest).ok_or_else(|| BackendError::NoSuchGuest(guest.to_owned()))?;
        self.route(&found, backend, Arrived::Dropped)
    }

    /// Replaces the offloads that a guest's next frontend is offered.
    pub fn set_offloads(&self, guest: &str, offloads: u64) -> Result<(), NoSuchGuest> {
        let found = self.guest(guest).ok_or_else(|| NoSuchGuest(guest.to_owned()))?;
        found.set_offloads(offloads);
        let names = vhost_user::features::feature_names(offloads).join(" ");
        tracing::info!(port = guest, "offloads offered to the next frontend: {names}");
        Ok(())
    }

    /// Replaces what takes a guest's backend's place while that has no link, and how long it must have one again. A
    /// guest that is on the one before returns to its backend; should that be another's by now, it stays where it is.
    pub fn set_fallback(&self, guest: &str, port: Option<&str>, hold: Duration) -> Result<(), BackendError> {
        let found = self.guest(guest).ok_or_else(|| BackendError::NoSuchGuest(guest.to_owned()))?;
        if let Some(port) = port.filter(|port| self.nic(port).is_none() && self.socket(port).is_none()) {
            return Err(BackendError::NoSuchPort(port.to_owned()));
        }
        let mut route = found.route();
        let mut control = self.control();
        let now = control.backend(guest).map(str::to_owned);
        if now.is_some() && now == route.fallback && now.as_deref() != port && now != route.wanted {
            let returned = control.connect(guest, route.wanted.as_deref(), Arrived::Dropped);
            route.wanted = if returned.is_ok() { route.wanted.clone() } else { now };
        }
        (route.fallback, route.hold, route.up_since) = (port.map(str::to_owned), hold, None);
        tracing::info!(port = guest, fallback = port.unwrap_or("none"), "fallback");
        Ok(())
    }

    fn route(&self, guest: &Guest, backend: Option<&str>, arrived: Arrived) -> Result<(), BackendError> {
        let mut route = guest.route();
        let name = &guest.config.name;
        self.control().connect(name, backend, arrived)?;
        (route.wanted, route.up_since) = (backend.map(str::to_owned), None);
        drop(route);
        tracing::info!(port = name, backend = backend.unwrap_or("none"), "connected");
        self.forget(name, backend);
        Ok(())
    }

    /// Guests that a guest with this backend has left do not want it any more.
    fn forget(&self, guest: &str, backend: Option<&str>) {
        for other in self.guests().iter().filter(|other| Some(other.config.name.as_str()) != backend) {
            let mut route = other.route();
            let left = backend.is_some() || self.control().backend(&other.config.name).is_none();
            if left && route.wanted.as_deref() == Some(guest) {
                route.wanted = None;
            }
        }
    }

    /// Control, locked: sessions, the API and the watch take turns.
    pub fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether packets can leave through a port, as far as it is known.
    pub fn link_up(&self, port: &str) -> bool {
        let nic = || self.nic(port).map(|nic| nic.nic.link_up());
        let socket = || self.socket(port).map(|entry| entry.socket.link_up());
        let guest = || self.guest(port).map(|guest| guest.seen().frontend.connected);
        nic().or_else(socket).or_else(guest).unwrap_or(false)
    }

    /// The link of the port that a guest is connected to. Only NICs tell more of it than whether it is up.
    pub fn backend_link(&self, guest: &str) -> Link {
        let backend = self.control().backend(guest).map(str::to_owned);
        let up = backend.as_deref().is_some_and(|backend| self.link_up(backend));
        let nic = backend.filter(|_| up).and_then(|backend| self.nic(&backend));
        let link = nic.map(|nic| nic.nic.link());
        Link {
            up,
            speed_mbps: link.map(|link| link.speed_mbps).filter(|speed| *speed > 0),
            full_duplex: link.map(|link| link.full_duplex),
        }
    }

    /// MTU of the port that a guest is connected to, in bytes; another guest has none that we know.
    pub fn backend_mtu(&self, guest: &str) -> Option<u16> {
        let backend = self.control().backend(guest)?.to_owned();
        let nic = self.nic(&backend);
        let socket = || {
            let mtu = self.socket(&backend)?.socket.status().mtu;
            // 0: the interface is gone.
            (mtu > 0).then_some(mtu.try_into().unwrap_or(u16::MAX))
        };
        nic.map(|nic| nic.nic.port.mtu()).or_else(socket)
    }
}

fn list<T>(entries: &Entries<T>) -> Vec<Arc<T>> {
    entries.read().unwrap_or_else(PoisonError::into_inner).clone()
}
