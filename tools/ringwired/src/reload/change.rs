//! One change of what runs. Each has an inverse, so that it can be undone.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use engine::config::{GuestConfig, NicConfig, Polling, SocketConfig, SocketKind, Thing};

use crate::config::file;

/// A port, as a file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortConfig {
    /// A nic.
    Nic(NicConfig),
    /// A tap or raw socket.
    Socket(SocketConfig),
    /// A guest.
    Guest(GuestConfig),
}

/// What takes the place of a guest's backend while that has no link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The port, if there is one.
    pub port: Option<String>,
    /// How long the backend must have a link again.
    pub hold: Duration,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A port comes; a guest comes without backend and fallback.
    Add(PortConfig),
    /// A port that nobody needs any more goes; a guest has no backend and fallback then.
    Remove(PortConfig),
    /// A guest gets another backend.
    Backend {
        /// Its name.
        guest: String,
        /// What it was connected to.
        from: Option<String>,
        /// What it is to be connected to.
        to: Option<String>,
    },
    /// A guest gets another fallback.
    Fallback {
        /// Its name.
        guest: String,
        /// The one before.
        from: Fallback,
        /// The one to be.
        to: Fallback,
    },
    /// A guest's next frontend is offered other offloads.
    Offloads {
        /// Its name.
        guest: String,
        /// Feature bits before.
        from: u64,
        /// Feature bits to be.
        to: u64,
    },
    /// Queue pairs of a guest are polled by other workers.
    Assign {
        /// Its name.
        guest: String,
        /// Cores by number of the pair, as it was.
        from: BTreeMap<u16, usize>,
        /// As it is to be.
        to: BTreeMap<u16, usize>,
    },
    /// Workers poll otherwise.
    Polling {
        /// As they did.
        from: Polling,
        /// As they are to.
        to: Polling,
    },
    /// A worker is started on this core.
    AddWorker(usize),
    /// The worker on this core ends.
    RemoveWorker(usize),
}

impl PortConfig {
    /// Its name, unique among all kinds.
    pub fn name(&self) -> &str {
        match self {
            PortConfig::Nic(nic) => &nic.name,
            PortConfig::Socket(socket) => &socket.name,
            PortConfig::Guest(guest) => &guest.name,
        }
    }

    /// The section of the file that it is in.
    pub fn kind(&self) -> &'static str {
        match self {
            PortConfig::Nic(_) => "nic",
            PortConfig::Socket(SocketConfig { kind: SocketKind::Raw, .. }) => "raw",
            PortConfig::Socket(_) => "tap",
            PortConfig::Guest(_) => "guest",
        }
    }

    /// What no other port can have.
    pub fn thing(&self) -> Option<Thing> {
        match self {
            PortConfig::Nic(nic) => Some(nic.thing()),
            PortConfig::Socket(socket) => socket.thing(),
            PortConfig::Guest(guest) => Some(guest.thing()),
        }
    }

    /// Its keys in the file.
    pub fn keys(&self) -> toml::Table {
        match self {
            PortConfig::Nic(nic) => file::table(&file::Nic::of(nic)),
            PortConfig::Socket(socket) => file::table(&file::Socket::of(socket)),
            PortConfig::Guest(guest) => file::table(&file::Guest::of(guest)),
        }
    }

    /// The same without what makes it depend on other ports but its exception path.
    pub fn unconnected(&self) -> PortConfig {
        match self {
            PortConfig::Guest(guest) => {
                PortConfig::Guest(GuestConfig { backend: None, fallback: None, ..guest.clone() })
            }
            other => other.clone(),
        }
    }
}

impl fmt::Display for PortConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

impl Change {
    /// What undoes it.
    pub fn inverse(&self) -> Change {
        match self.clone() {
            Change::Add(port) => Change::Remove(port),
            Change::Remove(port) => Change::Add(port),
            Change::Backend { guest, from, to } => Change::Backend { guest, from: to, to: from },
            Change::Fallback { guest, from, to } => Change::Fallback { guest, from: to, to: from },
            Change::Offloads { guest, from, to } => Change::Offloads { guest, from: to, to: from },
            Change::Assign { guest, from, to } => Change::Assign { guest, from: to, to: from },
            Change::Polling { from, to } => Change::Polling { from: to, to: from },
            Change::AddWorker(core) => Change::RemoveWorker(core),
            Change::RemoveWorker(core) => Change::AddWorker(core),
        }
    }
}

/// As an order.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |port: &Option<String>| port.clone().unwrap_or_else(|| "none".to_owned());
        match self {
            Change::Add(port) => write!(f, "add {port}"),
            Change::Remove(port) => write!(f, "remove {port}"),
            Change::Backend { guest, to, .. } => write!(f, "connect guest {guest} to {}", name(to)),
            Change::Fallback { guest, to, .. } => {
                write!(f, "give guest {guest} the fallback {}", name(&to.port))
            }
            Change::Offloads { guest, .. } => write!(f, "offer guest {guest} other offloads"),
            Change::Assign { guest, .. } => write!(f, "assign queue pairs of guest {guest} to other workers"),
            Change::Polling { to, .. } => {
                write!(f, "set idle to {} and burst to {}", to.idle.name(), to.burst)
            }
            Change::AddWorker(core) => write!(f, "start a worker on core {core}"),
            Change::RemoveWorker(core) => write!(f, "end the worker on core {core}"),
        }
    }
}
