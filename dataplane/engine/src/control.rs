//! Control: which port is whose backend, and who owns each queue at the moment.
//!
//! Every change is the same: take the lanes of a wire back, change, give them out again.

mod alive;
mod announce;
mod captures;
mod exceptions;
mod lanes;
mod placement;

use std::collections::BTreeMap;
use std::sync::Arc;

use port::capture::Capture;
use port::counters::DropReason;
use port::guest::GuestCounters;
use port::nic::NicPair;
use port::socket::SocketPair;
use virtqueue::{Glance, Ring, RingView};

use announce::Announcement;
use exceptions::PuntPath;
pub use placement::Pair;

use crate::config::Polling;
use crate::lane::LaneId;
use crate::ports::PortError;
use crate::slow_path::SlowPath;
use crate::worker::Worker;

/// Why a guest's backend cannot be what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// There is no such guest.
    #[error("no guest is called {0:?}")]
    NoSuchGuest(String),
    /// There is no such port.
    #[error("no port is called {0:?}")]
    NoSuchPort(String),
    /// A guest cannot be its own.
    #[error("guest {0} cannot be its own backend")]
    Itself(String),
    /// A port is one guest's backend at most.
    #[error("{port} is the backend of {guest} already")]
    Taken {
        /// The port asked for.
        port: String,
        /// Whose it is.
        guest: String,
    },
    /// A port is an exception path.
    #[error("{port} is the exception path of {guest}")]
    Punt {
        /// The port asked for.
        port: String,
        /// Whose it is.
        guest: String,
    },
    /// The guest asked for has a backend of its own.
    #[error("guest {guest} has a backend already: {backend}")]
    Occupied {
        /// The guest asked for.
        guest: String,
        /// What it is connected to.
        backend: String,
    },
}

/// Who owns a virtqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The worker pinned to this core polls it.
    Worker(usize),
    /// The slow path waits for it.
    SlowPath,
    /// Nobody.
    Parked,
}

/// What becomes of packets that arrived at a port before it was connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// The port was opened just now: they wait for its guest.
    Kept,
    /// The port was nobody's for a while: they are late, dropped and counted.
    Dropped,
}

/// All queues of all ports: those that nobody owns are kept here, of the others it is known who does.
pub struct Control {
    /// Never none.
    workers: Vec<Worker>,
    /// How they poll.
    polling: Polling,
    /// Pairs that were assigned to cores, and these; each has a worker.
    assigned: BTreeMap<Pair, usize>,
    slow_path: SlowPath,
    ports: BTreeMap<String, Queues>,
    wires: Vec<Wire>,
    /// Exception paths, by guest.
    punts: BTreeMap<String, PuntPath>,
    /// Where guests are announced.
    announcements: BTreeMap<String, Announcement>,
    /// Looks at the rings that were given out and not taken back, by guest and index.
    views: BTreeMap<String, BTreeMap<u16, RingView>>,
    /// Captures under way.
    captures: Vec<Arc<Capture>>,
}

/// A port's queues that have no owner.
enum Queues {
    /// Rings by virtqueue index, and the counters of all pairs.
    Guest(BTreeMap<u16, Ring>, Vec<GuestCounters>),
    /// All of a nic's pairs, or none.
    Nic(Vec<NicPair>),
    /// All of a socket's pairs, or none.
    Socket(Vec<SocketPair>),
    /// None: the socket is the exception path of this guest.
    Punt(String),
}

/// A guest and its backend.
struct Wire {
    guest: String,
    backend: String,
    lanes: Vec<Placed>,
}

/// A lane that somebody owns.
struct Placed {
    id: LaneId,
    /// Core of the worker; `None`: the slow path.
    worker: Option<usize>,
    /// Numbers of the guest's pairs in it.
    pairs: Vec<u16>,
    /// Likewise of the guest that is its backend.
    far_pairs: Vec<u16>,
}

impl Control {
    /// Owners, and no port yet. There is one worker at least, and each has another core.
    pub fn new(workers: Vec<Worker>, polling: Polling, slow_path: SlowPath) -> Control {
        Control {
            workers,
            polling,
            assigned: BTreeMap::new(),
            slow_path,
            ports: BTreeMap::new(),
            wires: Vec::new(),
            punts: BTreeMap::new(),
            announcements: BTreeMap::new(),
            views: BTreeMap::new(),
            captures: Vec::new(),
        }
    }

    /// Adds a guest that has no frontend yet, and no backend.
    pub fn add_guest(&mut self, name: &str, counters: Vec<GuestCounters>) {
        self.ports.insert(name.to_owned(), Queues::Guest(BTreeMap::new(), counters));
    }

    /// Adds a nic.
    pub fn add_nic(&mut self, name: &str, pairs: Vec<NicPair>) {
        self.ports.insert(name.to_owned(), Queues::Nic(pairs));
    }

    /// Adds a tap or raw socket.
    pub fn add_socket(&mut self, name: &str, pairs: Vec<SocketPair>) {
        self.ports.insert(name.to_owned(), Queues::Socket(pairs));
    }

    /// The guest that has a port as its backend.
    pub fn user(&self, port: &str) -> Option<&str> {
        self.wires.iter().find(|wire| wire.backend == port).map(|wire| wire.guest.as_str())
    }

    /// Lets go of the queues of a nic, tap or raw socket that no guest needs. What has come to it is counted as dropped.
    pub fn remove_port(&mut self, name: &str) -> Result<(), PortError> {
        let in_use = |role, guest: &str| {
            Err(PortError::InUse { port: name.to_owned(), role, guest: guest.to_owned() })
        };
        match (self.user(name), self.punt_of(name)) {
            (Some(guest), _) => return in_use("backend", guest),
            (_, Some(guest)) => return in_use("exception path", guest),
            _ => {}
        }
        self.discard_arrived(name);
        self.ports.remove(name);
        Ok(())
    }

    /// Forgets a guest, whose rings were taken back. All that is under way to or from it is handed on, or counted as
    /// dropped.
    pub fn remove_guest(&mut self, guest: &str) {
        self.disconnect(guest, DropReason::WireRemoved);
        self.end_punt(guest);
        self.ports.remove(guest);
        self.announcements.remove(guest);
        self.views.remove(guest);
        self.assigned.retain(|pair, _| pair.guest != guest);
    }

    /// What a guest is connected to.
    pub fn backend(&self, guest: &str) -> Option<&str> {
        self.wires.iter().find_map(|wire| wire.other_end(guest))
    }

    /// Connects a guest to another port, or to none. What is under way to or from the one before is handed on, or
    /// dropped and counted.
    pub fn connect(
        &mut self,
        guest: &str,
        backend: Option<&str>,
        arrived: Arrived,
    ) -> Result<(), BackendError> {
        self.check(guest, backend)?;
        if self.backend(guest) == backend {
            return Ok(());
        }
        self.disconnect(guest, DropReason::BackendChanged);
        if let Some(backend) = backend {
            if arrived == Arrived::Dropped {
                self.discard_arrived(backend);
            }
            let (guest, backend) = (guest.to_owned(), backend.to_owned());
            self.wires.push(Wire { guest: guest.clone(), backend, lanes: Vec::new() });
            if self.announce_parked(&guest) == Some(false) {
                tracing::warn!(port = guest, "not announced: the frame found no room");
            }
            self.give_lanes(self.wires.len() - 1);
        }
        Ok(())
    }

    fn discard_arrived(&mut self, port: &str) {
        match self.ports.get_mut(port) {
            Some(Queues::Nic(pairs)) => pairs.iter_mut().for_each(NicPair::discard_arrived),
            Some(Queues::Socket(pairs)) => pairs.iter_mut().for_each(|pair| {
                pair.discard();
            }),
            _ => {}
        }
    }

    fn check(&self, guest: &str, backend: Option<&str>) -> Result<(), BackendError> {
        if !matches!(self.ports.get(guest), Some(Queues::Guest(..))) {
            return Err(BackendError::NoSuchGuest(guest.to_owned()));
        }
        let Some(backend) = backend else { return Ok(()) };
        let Some(port) = self.ports.get(backend) else {
            return Err(BackendError::NoSuchPort(backend.to_owned()));
        };
        if guest == backend {
            return Err(BackendError::Itself(guest.to_owned()));
        }
        if let Queues::Punt(other) = port {
            return Err(BackendError::Punt { port: backend.to_owned(), guest: other.clone() });
        }
        let other =
            self.wires.iter().find_map(|wire| wire.other_end(backend)).filter(|other| *other != guest);
        match (other, port) {
            (None, _) => Ok(()),
            (Some(other), Queues::Guest(..)) => {
                Err(BackendError::Occupied { guest: backend.to_owned(), backend: other.to_owned() })
            }
            (Some(other), _) => {
                Err(BackendError::Taken { port: backend.to_owned(), guest: other.to_owned() })
            }
        }
    }

    /// Takes all wires down for good, so that every packet is sent or counted.
    pub fn remove_all(&mut self) {
        while let Some(guest) = self.wires.last().map(|wire| wire.guest.clone()) {
            self.disconnect(&guest, DropReason::WireRemoved);
        }
    }

    fn disconnect(&mut self, port: &str, reason: DropReason) {
        let Some(at) = self.wires.iter().position(|wire| wire.other_end(port).is_some()) else { return };
        let lanes = self.take_lanes(at);
        let wire = self.wires.remove(at);
        let mut unsent = 0;
        for mut lane in lanes {
            unsent += lane.settle(reason);
            self.park(&wire, lane);
        }
        unsent += self.punt(&wire.guest).map_or(0, |punt| punt.clear(reason));
        if let Some(Queues::Guest(_, counters)) = self.ports.get(&wire.guest) {
            counters.iter().take(1).for_each(|first| first.pair.dropped(reason, unsent));
        }
    }

    /// Takes a ring from a guest's session and runs it as soon as its pair is complete.
    pub fn give_out(&mut self, guest: &str, ring: Ring) {
        let Some(Queues::Guest(rings, _)) = self.ports.get_mut(guest) else { return };
        if let Some(view) = RingView::new(ring.config()) {
            self.views.entry(guest.to_owned()).or_default().insert(ring.index(), view);
        }
        let partner = ring.index() ^ 1;
        rings.insert(ring.index(), ring);
        if rings.contains_key(&partner)
            && let Some(at) = self.wire_of(guest)
        {
            self.rewire(at, |_| {});
        }
    }

    /// Gives a ring back to a guest's session; nobody is inside it any more.
    pub fn take_back(&mut self, guest: &str, index: u16) -> Option<Ring> {
        self.views.get_mut(guest).and_then(|views| views.remove(&index));
        let taken = self.remove_parked(guest, index);
        if taken.is_some() || self.owner(guest, index / 2) == Owner::Parked {
            return taken;
        }
        let mut taken = None;
        let at = self.wire_of(guest)?;
        self.rewire(at, |control| taken = control.remove_parked(guest, index));
        taken
    }

    fn remove_parked(&mut self, guest: &str, index: u16) -> Option<Ring> {
        match self.ports.get_mut(guest) {
            Some(Queues::Guest(rings, _)) => rings.remove(&index),
            _ => None,
        }
    }

    /// What a ring that was given out looks like in the guest's memory.
    pub fn glance(&self, guest: &str, index: u16) -> Option<Glance> {
        Some(self.views.get(guest)?.get(&index)?.glance())
    }

    /// Who owns pair `pair` of a guest.
    pub fn owner(&self, guest: &str, pair: u16) -> Owner {
        let lanes = self.wires.iter().flat_map(|wire| wire.lanes.iter().map(move |lane| (wire, lane)));
        let owner = lanes.into_iter().find_map(|(wire, lane)| {
            let near = wire.guest == guest && lane.pairs.contains(&pair);
            let far = wire.backend == guest && lane.far_pairs.contains(&pair);
            (near || far).then_some(lane.worker)
        });
        match owner {
            None => Owner::Parked,
            Some(None) => Owner::SlowPath,
            Some(Some(core)) => Owner::Worker(core),
        }
    }

    fn wire_of(&self, port: &str) -> Option<usize> {
        self.wires.iter().position(|wire| wire.other_end(port).is_some())
    }
}

impl Wire {
    /// What `port` is connected to by this wire.
    fn other_end(&self, port: &str) -> Option<&str> {
        match port {
            _ if port == self.guest => Some(&self.backend),
            _ if port == self.backend => Some(&self.guest),
            _ => None,
        }
    }
}

#[cfg(test)]
mod moving;
