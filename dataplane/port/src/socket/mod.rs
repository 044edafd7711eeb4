//! The socket ports: tap, macvtap and raw (AF_PACKET), frames out of and into a kernel interface.
//!
//! [`SocketPort`] is the control side, [`SocketPair`] one queue pair: a value with one owner, the slow path. Each
//! frame has a virtio-net header of [`HEADER_LEN`] bytes in front, both ways, little endian: the kernel's own
//! `struct virtio_net_hdr`.
//!
//! What a guest may get in front of a frame is the kernel's choice, and is to be checked by whoever moves it: a raw
//! socket hands out whatever its interface has (GSO frames, checksums to be completed), a tap's queue may still have
//! what was put there before [`SocketPair::set_offloads`].

mod error;
mod link;
mod offloads;
mod pair;
mod raw;
mod tap;
mod watch;

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

pub use error::{SocketFault, SocketPortError};
pub use link::InterfaceCounters;
pub use pair::{Arrived, Fault, Held, SocketPair};
pub(crate) use watch::Interface;
pub use watch::{LinkState, SocketStatus};

use crate::counters::{PairCounters, Shared, shared};
use link::{Link, Netlink};
use watch::Watch;

/// Bytes of the virtio-net header in front of a frame, without the number of buffers.
pub const HEADER_LEN: usize = 10;

/// Longest frame behind the header, in bytes: the longest IP packet with all that an Ethernet header may have.
pub const MAX_FRAME: usize = u16::MAX as usize + net::FRAME_OVERHEAD as usize;

/// Bytes on their way into the kernel, at which a socket says that it is full. As much as QEMU lets queue up.
const SEND_BUFFER: i32 = 1 << 20;

/// What a port is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// A tap device of /dev/net/tun.
    Tap,
    /// A macvtap interface's character device.
    Macvtap,
    /// An AF_PACKET socket on an interface.
    Raw,
}

impl SocketKind {
    /// Name in messages and statistics.
    pub fn name(self) -> &'static str {
        match self {
            SocketKind::Tap => "tap",
            SocketKind::Macvtap => "macvtap",
            SocketKind::Raw => "raw",
        }
    }
}

impl fmt::Display for SocketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the descriptors come from.
#[derive(Debug)]
pub enum Source {
    /// Opened by the interface's name; a tap is created when missing.
    Name(String),
    /// Already open, one a queue pair. They say themselves what they are, and of which interface.
    Open(Vec<OwnedFd>),
}

/// What to open, from the configuration.
#[derive(Debug)]
pub struct SocketOptions {
    /// Port name.
    pub name: String,
    /// What to open by name: [`SocketKind::Tap`] also stands for a macvtap, if the interface is one.
    pub kind: SocketKind,
    /// Where from.
    pub source: Source,
    /// Queue pairs to open by name, at least 1.
    pub queues: u16,
    /// Who may open the tap besides us.
    pub user: Option<u32>,
    /// Which group may.
    pub group: Option<u32>,
    /// MTU to give the interface, in bytes; left as it is when absent.
    pub mtu: Option<u32>,
}

/// The control side of an open socket port. It is closed when this and all its queue pairs are gone; a tap that was
/// created for it is gone then, too.
pub struct SocketPort {
    /// Port name.
    pub name: String,
    /// What it is.
    pub kind: SocketKind,
    /// Whether the interface was created for this port.
    pub created: bool,
    /// Counters of each queue pair.
    pub counters: Vec<Shared<PairCounters>>,
    watch: Watch,
}

/// Descriptors that are ready to be used, and their interface.
struct Opened {
    kind: SocketKind,
    created: bool,
    fds: Vec<OwnedFd>,
    netlink: Netlink,
    link: Link,
}

impl SocketPort {
    /// Opens a port, with its queue pairs.
    ///
    /// # Errors
    /// One line that names port and interface.
    pub fn open(options: &SocketOptions) -> Result<(SocketPort, Vec<SocketPair>), SocketPortError> {
        let (by_name, place) = match &options.source {
            Source::Name(interface) => (true, format!("interface {interface}")),
            Source::Open(_) => (false, "descriptor".to_owned()),
        };
        let failed = |fault| SocketPortError { port: options.name.clone(), place, fault };
        let Opened { kind, created, fds, netlink, link } = open(options).map_err(failed)?;
        let fds: Vec<Arc<OwnedFd>> = fds.into_iter().map(Arc::new).collect();
        let counters: Vec<Shared<PairCounters>> = fds.iter().map(|_| shared()).collect();
        let pairs = (0..).zip(fds.iter().zip(&counters));
        let pairs =
            pairs.map(|(index, (fd, counters))| SocketPair::new(index, kind, fd.clone(), counters.clone()));
        let mut pairs: Vec<SocketPair> = pairs.collect();
        // A tap that somebody else opened may be anywhere, and move.
        let home = if kind == SocketKind::Tap && !by_name { None } else { Some(netlink) };
        let watch = Watch::new(kind, fds, home, link);
        pairs.iter_mut().for_each(|pair| pair.link_up = watch.link_up());
        Ok((SocketPort { name: options.name.clone(), kind, created, counters, watch }, pairs))
    }

    /// Looks at the interface again; while packets cannot pass, none are sent. Returns whether they can, and whether
    /// that is news.
    pub fn refresh_link(&self) -> (bool, bool) {
        self.watch.refresh()
    }

    /// Whether packets could pass when last looked at.
    pub fn link_up(&self) -> bool {
        self.status().state.is_up()
    }

    /// What the interface was like when last looked at.
    pub fn status(&self) -> SocketStatus {
        self.watch.status()
    }
}

fn open(options: &SocketOptions) -> Result<Opened, SocketFault> {
    let mut opened = match &options.source {
        Source::Open(fds) => take(fds)?,
        Source::Name(interface) => {
            check_name(interface)?;
            let netlink = Netlink::new().map_err(SocketFault::io("ask about the interface"))?;
            let found = netlink.by_name(interface).map_err(SocketFault::io("ask about the interface"))?;
            match (options.kind, found) {
                (SocketKind::Raw, Some(link)) => raw::open(netlink, link, options.queues)?,
                (SocketKind::Raw, None) => return Err(SocketFault::NoSuchInterface),
                (_, Some(link)) if link.kind == "macvtap" => {
                    tap::open_macvtap(netlink, link, options.queues)?
                }
                (_, found) => tap::open(netlink, interface, found, options)?,
            }
        }
    };
    if let Some(mtu) = options.mtu.filter(|mtu| *mtu != opened.link.mtu) {
        opened.netlink.set_mtu(opened.link.index, mtu).map_err(SocketFault::privileged("set its MTU"))?;
        opened.link.mtu = mtu;
    }
    Ok(opened)
}

/// Checks descriptors that somebody else opened, and makes them ready. Duplicates of them: closing these is the
/// caller's business.
fn take(fds: &[OwnedFd]) -> Result<Opened, SocketFault> {
    let mut opened: Option<Opened> = None;
    for fd in fds {
        let fd = fd.try_clone().map_err(SocketFault::io("duplicate it"))?;
        let (kind, netlink, link) =
            if raw::is_socket(fd.as_fd()) { raw::inspect(fd.as_fd())? } else { tap::inspect(fd.as_fd())? };
        match kind {
            SocketKind::Raw => raw::prepare(&fd, link.index)?,
            SocketKind::Tap | SocketKind::Macvtap => tap::prepare(&fd)?,
        }
        match &mut opened {
            None => opened = Some(Opened { kind, created: false, fds: vec![fd], netlink, link }),
            Some(first) if (first.kind, first.link.index) == (kind, link.index) => first.fds.push(fd),
            Some(_) => return Err(SocketFault::Mixed),
        }
    }
    opened.ok_or(SocketFault::NoDescriptor)
}

/// As every descriptor of ours has to be.
fn set_non_blocking(fd: &OwnedFd) -> Result<(), SocketFault> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(SocketFault::io("look at it"))?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(fd, FcntlArg::F_SETFL(flags)).map(drop).map_err(SocketFault::io("make it non-blocking"))
}

/// Whether the kernel would take it for an interface's name. (A tap's name with a % would be a pattern.)
pub fn check_name(name: &str) -> Result<(), SocketFault> {
    let wrong = |why| Err(SocketFault::BadName(why));
    match name {
        "" => wrong("it is empty"),
        "." | ".." => wrong("it is a directory's"),
        _ if name.len() >= nix::libc::IFNAMSIZ => wrong("it is longer than 15 bytes"),
        _ if name.contains(|c: char| c.is_whitespace() || c.is_control() || "/:%".contains(c)) => {
            wrong("it has a blank, a control character or one of / : % in it")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
