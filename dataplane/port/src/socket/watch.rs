//! What has become of a port's interface: it may go down, be renamed, moved or removed at any time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::libc;

use super::link::{InterfaceCounters, Link, Netlink};
use super::{SocketKind, raw, tap};

/// Whether packets can pass an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// They can.
    Up,
    /// It is set down.
    Down,
    /// It is set up, and nothing is at its other end.
    NoCarrier,
    /// It is no more: the port is of no use before it is opened anew.
    Gone,
    /// It was moved to a network namespace that we may not look into. Packets may well pass.
    Elsewhere,
}

impl LinkState {
    /// Name in statistics.
    pub fn name(self) -> &'static str {
        match self {
            LinkState::Up => "up",
            LinkState::Down => "down",
            LinkState::NoCarrier => "no_carrier",
            LinkState::Gone => "gone",
            LinkState::Elsewhere => "elsewhere",
        }
    }

    /// Whether packets can pass, as far as it is known.
    pub fn is_up(self) -> bool {
        matches!(self, LinkState::Up | LinkState::Elsewhere)
    }
}

/// What a port's interface was like when last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketStatus {
    /// Whether packets can pass.
    pub state: LinkState,
    /// Name of the interface.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// What kind of interface, as `ip -details link` calls it: "tun", "macvtap", "veth", ...; empty for a NIC.
    pub driver: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The kernel's counters of the interface.
    pub counters: InterfaceCounters,
    /// Frames for the port that the kernel dropped since it was opened, because they were not read in time.
    pub missed: u64,
}

/// Looks at a port's interface.
pub(super) struct Watch {
    kind: SocketKind,
    fds: Vec<Arc<OwnedFd>>,
    seen: Mutex<Seen>,
    /// What the pairs look at before they send.
    link_up: Arc<AtomicBool>,
}

struct Seen {
    /// Where and by which index the interface is found, unless it is in another network namespace: that would live
    /// on for as long as there is a socket in it.
    home: Option<(Netlink, u32)>,
    status: SocketStatus,
    /// The interface's drops before it was opened.
    missed_before: u64,
}

impl Watch {
    pub fn new(kind: SocketKind, fds: Vec<Arc<OwnedFd>>, home: Option<Netlink>, link: Link) -> Watch {
        let home = home.map(|netlink| (netlink, link.index));
        let missed_before = missed(kind, &link.counters);
        let status = SocketStatus {
            state: state(&link),
            interface: link.name,
            index: link.index,
            driver: link.kind,
            mtu: link.mtu,
            mac: link.mac,
            counters: link.counters,
            missed: 0,
        };
        let link_up = Arc::new(status.state.is_up().into());
        Watch { kind, fds, seen: Mutex::new(Seen { home, status, missed_before }), link_up }
    }

    /// Whether packets can pass, as last seen.
    pub fn link_up(&self) -> Arc<AtomicBool> {
        self.link_up.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn status(&self) -> SocketStatus {
        self.seen().status.clone()
    }

    /// Looks again. Returns whether packets can pass, and whether that is news.
    pub fn refresh(&self) -> (bool, bool) {
        let mut seen = self.seen();
        if seen.status.state != LinkState::Gone {
            seen.look(self.kind, &self.fds);
        }
        let up = seen.status.state.is_up();
        (up, self.link_up.swap(up, Ordering::Relaxed) != up)
    }
}

impl Seen {
    fn look(&mut self, kind: SocketKind, fds: &[Arc<OwnedFd>]) {
        if kind == SocketKind::Raw {
            self.status.missed += fds.iter().map(|fd| raw::take_drops(fd.as_fd())).sum::<u64>();
        }
        let found = self.home.as_ref().map_or(Ok(None), |(netlink, index)| netlink.by_index(*index));
        match found {
            Ok(Some(link)) => self.found(kind, link),
            Ok(None) => self.search(kind, &fds[0]),
            // No memory for the answer, at worst: it is asked again soon.
            Err(_) => {}
        }
    }

    fn found(&mut self, kind: SocketKind, link: Link) {
        let status = &mut self.status;
        status.state = state(&link);
        status.interface = link.name;
        status.index = link.index;
        status.mtu = link.mtu;
        status.mac = link.mac;
        status.counters = link.counters;
        if kind != SocketKind::Raw {
            status.missed = missed(kind, &link.counters).saturating_sub(self.missed_before);
        }
    }

    /// It is not where it was. A socket does not follow its interface to another namespace; a tap's descriptor does.
    fn search(&mut self, kind: SocketKind, fd: &OwnedFd) {
        let name = match kind {
            SocketKind::Raw => None,
            SocketKind::Tap | SocketKind::Macvtap => tap::attached(fd.as_fd()).ok(),
        };
        let Some((name, _)) = name else {
            self.status.state = LinkState::Gone;
            return;
        };
        self.status.state = LinkState::Elsewhere;
        let netlink = tap::namespace(fd.as_fd()).map_err(io::Error::from).and_then(Netlink::within);
        if let Ok(Some(link)) = netlink.and_then(|netlink| netlink.by_name(&name)) {
            self.found(kind, link);
        }
    }
}

fn state(link: &Link) -> LinkState {
    let has = |flag: libc::c_int| link.flags & flag as u32 != 0;
    match (has(libc::IFF_UP), has(libc::IFF_LOWER_UP)) {
        (false, _) => LinkState::Down,
        (true, false) => LinkState::NoCarrier,
        (true, true) => LinkState::Up,
    }
}

/// An interface of the network namespace that it was named in.
pub(crate) struct Interface {
    index: u32,
    /// A question and its answer belong together.
    netlink: Mutex<Netlink>,
}

impl Interface {
    /// The one of that index, here.
    pub fn here(index: u32) -> io::Result<Interface> {
        Ok(Interface { index, netlink: Mutex::new(Netlink::new()?) })
    }

    /// Whether packets can pass. No memory for the answer, at worst, is no news.
    pub fn is_up(&self) -> bool {
        let netlink = self.netlink.lock().unwrap_or_else(PoisonError::into_inner);
        match netlink.by_index(self.index) {
            Ok(link) => link.is_some_and(|link| state(&link).is_up()),
            Err(_) => true,
        }
    }
}

/// Frames for us that the interface has dropped. A tap transmits to us; a macvtap has received them for us; a raw
/// socket counts for itself.
fn missed(kind: SocketKind, counters: &InterfaceCounters) -> u64 {
    match kind {
        SocketKind::Tap => counters.tx_dropped,
        SocketKind::Macvtap => counters.rx_dropped,
        SocketKind::Raw => 0,
    }
}
