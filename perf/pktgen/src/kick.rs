//! Telling the backend that there is something in a ring.

use std::os::fd::OwnedFd;

use crate::ring::driver::Ring;

/// Whether to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KickPolicy {
    /// When the backend wants it.
    Auto,
    /// Never: for backends that poll. Saves a full barrier a burst.
    Never,
}

/// An eventfd, and when to use it.
#[derive(Debug)]
pub struct Kick {
    fd: OwnedFd,
    policy: KickPolicy,
    /// Times it was used.
    pub count: u64,
}

impl Kick {
    /// Kicks once: a ring starts with its first kick (vhost-user.rst, "Ring states").
    pub fn new(fd: OwnedFd, policy: KickPolicy) -> Kick {
        let mut kick = Kick { fd, policy, count: 0 };
        kick.kick();
        kick
    }

    /// Kicks, if the backend wants to know of what was offered.
    #[inline(always)]
    pub fn after(&mut self, ring: &mut Ring) {
        if self.policy == KickPolicy::Auto && ring.kick_wanted() {
            self.kick();
        }
    }

    #[cold]
    fn kick(&mut self) {
        self.count += 1;
        // It can only fail when 2^64 - 2 kicks were not read, and then the backend has been told.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }
}
