//! What can be wrong with a socket port, each in one line.

use std::io;
use std::path::PathBuf;

use nix::libc;

use super::SocketKind;

/// A socket port that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{port}: {place}: {fault}")]
pub struct SocketPortError {
    /// Port name.
    pub port: String,
    /// What was to be opened: `interface NAME` or `descriptor`.
    pub place: String,
    /// What is wrong with it.
    pub fault: SocketFault,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum SocketFault {
    /// No interface can have such a name.
    #[error("no interface can have this name: {0}")]
    BadName(&'static str),
    /// Only a tap is created when missing.
    #[error("there is no such interface")]
    NoSuchInterface,
    /// The name is another kind of interface's.
    #[error("it exists, and is no tap or macvtap but {0}")]
    NotATap(String),
    /// A raw socket would carry something else than frames.
    #[error("it carries no Ethernet frames")]
    NotEthernet,
    /// Somebody else is at the other end of it already.
    #[error("another process has it open")]
    Busy,
    /// More queues than an existing tap can have.
    #[error(
        "it exists with a single queue, and {0} are asked for: ask for 1, or create it with `multi_queue` (ip tuntap)"
    )]
    SingleQueue(u16),
    /// More queues than the kernel gives one interface.
    #[error("it cannot have {0} queues")]
    TooManyQueues(u16),
    /// A tap of somebody else's.
    #[error("it belongs to {0}: run as that, or with CAP_NET_ADMIN")]
    Owned(String),
    /// Not enough privileges.
    #[error(
        "to {doing} takes {capability}: run as root, or give it that \
         (AmbientCapabilities={capability} in a systemd unit, setcap {lower}+ep on the program)",
        lower = .capability.to_lowercase()
    )]
    Capability {
        /// What was tried.
        doing: &'static str,
        /// What it takes.
        capability: &'static str,
    },
    /// The device node to open it by.
    #[error("cannot open {path}: {source}{hint}")]
    Node {
        /// Device node.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
        /// What may help.
        hint: &'static str,
    },
    /// The kernel is too old to keep a raw socket from reading what the host sends.
    #[error("raw sockets take a kernel that knows PACKET_IGNORE_OUTGOING: 4.20 or later")]
    OldKernel,
    /// No descriptor was handed in.
    #[error("none was given")]
    NoDescriptor,
    /// The seed's ENOTSOCK.
    #[error("it is neither a socket nor a tap or macvtap, but {0}")]
    NotASocket(String),
    /// The seed's ESOCKTNOSUPPORT.
    #[error("it is a socket, and not of type SOCK_RAW but {0}")]
    NotRaw(String),
    /// The seed's EPFNOSUPPORT.
    #[error("it is a raw socket, and not of family AF_PACKET but {0}")]
    NotPacket(String),
    /// A descriptor without interface.
    #[error("it is a {0} that no interface was given to yet")]
    Unbound(&'static str),
    /// A tap opened in another way than we can use.
    #[error("it is a {kind} without {missing}, which must be asked for where it is opened")]
    Lacks {
        /// What it is.
        kind: SocketKind,
        /// Flags of TUNSETIFF.
        missing: String,
    },
    /// Descriptors of different things.
    #[error("the descriptors are not all of the same interface, in the same way")]
    Mixed,
    /// Anything else the kernel said.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SocketFault {
    /// For `map_err`: what the kernel said to something that was tried.
    pub(super) fn io<E: Into<io::Error>>(doing: &'static str) -> impl Fn(E) -> SocketFault {
        move |source| SocketFault::Io { doing, source: source.into() }
    }

    /// The same for what takes CAP_NET_ADMIN.
    pub(super) fn privileged<E: Into<io::Error>>(doing: &'static str) -> impl Fn(E) -> SocketFault {
        move |source| SocketFault::without("CAP_NET_ADMIN", doing, source.into())
    }

    /// The same for what takes `capability`.
    pub(super) fn without(capability: &'static str, doing: &'static str, source: io::Error) -> SocketFault {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => SocketFault::Capability { doing, capability },
            _ => SocketFault::Io { doing, source },
        }
    }
}
