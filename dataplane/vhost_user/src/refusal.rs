//! Why a message was not carried out, and the log of it.

use std::collections::HashSet;
use std::mem::{Discriminant, discriminant};

use tracing::warn;
use virtqueue::{NotifyError, SetupError};

use crate::memory::MapError;

/// Why a message was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("not served, and not offered")]
    NotServed,
    #[error("marked as a reply")]
    Reply,
    #[error("{found} bytes of payload")]
    Payload { found: usize },
    #[error("{found} file descriptors attached")]
    Fds { found: usize },
    #[error("more file descriptors attached than this process can have open")]
    FdsLost,
    #[error("protocol feature {0} was not acknowledged")]
    Inactive(String),
    #[error("rejected by the vhost crate: {0}")]
    Malformed(vhost::vhost_user::Error),
    #[error("the session has an owner already")]
    Owned,
    #[error("features never offered: {}", .0.join(", "))]
    NeverOffered(Vec<String>),
    #[error("features cannot change while ring {ring} runs")]
    FeaturesRunning { ring: u16 },
    #[error("ring {ring} is none of the {rings} offered")]
    NoSuchRing { ring: u32, rings: u16 },
    #[error("ring {ring} is running")]
    Running { ring: u16 },
    #[error("ring {ring}: {num} entries are not from 1 to 32768, or, split, no power of two")]
    Size { ring: u16, num: u32 },
    #[error("ring {ring}: base {base:#x} is no index of a split ring")]
    Base { ring: u16, base: u32 },
    #[error("ring {ring}: logging was not negotiated")]
    Log { ring: u16 },
    #[error("ring {ring}: {cause}")]
    Notifier { ring: u16, cause: NotifyError },
    #[error("ring {ring}: enabled with {value}, which is neither 0 nor 1")]
    Enable { ring: u16, value: u32 },
    #[error("rings are enabled and disabled with VHOST_USER_F_PROTOCOL_FEATURES only")]
    EnableInactive,
    #[error("ring {ring} cannot start: {cause}")]
    Setup { ring: u16, cause: SetupError },
    #[error(transparent)]
    Memory(#[from] MapError),
    #[error("an MTU of {mtu} bytes is not from 68 to {most}, which the guest's `mtu` and its backend allow")]
    Mtu { mtu: u64, most: u16 },
    #[error("{} is no address of a guest", mac_text(.0))]
    Mac([u8; 6]),
    #[error("{value:#x} is no device status: it has 8 bits")]
    Status { value: u64 },
    #[error("the file descriptor is no stream socket of AF_UNIX")]
    Channel,
    #[error("the other end of the socket is our own")]
    ChannelToUs,
    #[error("config space has no {len} bytes at {offset}")]
    ConfigRange { offset: u32, len: usize },
    #[error("config space is read-only at {offset}, {len} bytes")]
    ConfigReadOnly { offset: u32, len: usize },
}

fn mac_text(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

type Kind = (&'static str, Discriminant<Refused>, Option<Discriminant<MapError>>);

/// The log of one session: one line per message and cause, however often it is repeated.
pub(crate) struct Journal {
    guest: String,
    said: HashSet<Kind>,
    last: Option<String>,
}

impl Journal {
    pub fn new(guest: &str) -> Journal {
        Journal { guest: guest.to_owned(), said: HashSet::new(), last: None }
    }

    /// The message that was refused last, and why.
    pub fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Notes that `message` was refused.
    pub fn refused(&mut self, message: &'static str, cause: &Refused) {
        let detail = match cause {
            Refused::Memory(cause) => Some(discriminant(cause)),
            _ => None,
        };
        self.last = Some(format!("{message}: {cause}"));
        if self.said.insert((message, discriminant(cause), detail)) {
            warn!(port = self.guest, request = message, "refused: {cause}");
        }
    }
}
