//! What a frontend has said about one ring. Only when that is complete can it become a [`Ring`].

use std::sync::Arc;

use virtqueue::{Memory, Notifier, Ring, RingConfig};

use crate::features;
use crate::refusal::Refused;

/// How the guest tells us of new buffers.
pub(crate) enum Kick {
    /// SET_VRING_KICK has not come yet, or GET_VRING_BASE has come since: the ring is stopped.
    Missing,
    /// SET_VRING_KICK without a file descriptor: we are to poll.
    Polled,
    By(Notifier),
}

/// Where the ring's three areas are, in the frontend's address space.
#[derive(Clone, Copy)]
pub(crate) struct Areas {
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
}

pub(crate) struct Vring {
    pub index: u16,
    pub size: Option<u16>,
    pub areas: Option<Areas>,
    /// Where to go on; follows the ring when it is taken back.
    pub base: u32,
    pub kick: Kick,
    pub call: Option<Notifier>,
    pub err: Option<Notifier>,
    /// What SET_VRING_ENABLE said last.
    pub enabled: bool,
    /// Whether it is given out.
    pub running: bool,
}

impl Vring {
    pub fn new(index: u16) -> Vring {
        Vring {
            index,
            size: None,
            areas: None,
            base: 0,
            kick: Kick::Missing,
            call: None,
            err: None,
            enabled: false,
            running: false,
        }
    }

    /// Whether it may run: "If VHOST_USER_F_PROTOCOL_FEATURES has not been negotiated, the ring starts
    /// directly in the enabled state."
    pub fn is_enabled(&self, features: u64) -> bool {
        self.enabled || !features::has(features, features::PROTOCOL_FEATURES)
    }

    /// Starts the ring if everything it needs is there. `Ok(None)`: something is still missing.
    pub fn start(&self, features: u64, memory: &Arc<Memory>) -> Result<Option<Ring>, Refused> {
        let (Some(size), Some(areas)) = (self.size, self.areas) else { return Ok(None) };
        let kick = match &self.kick {
            Kick::Missing => return Ok(None),
            Kick::Polled => None,
            Kick::By(notifier) => Some(notifier.clone()),
        };
        if !self.is_enabled(features) {
            return Ok(None);
        }
        let config = RingConfig {
            index: self.index,
            size,
            desc: areas.desc,
            avail: areas.avail,
            used: areas.used,
            base: self.base,
            // What the guest acknowledged; the other bit is between the frontend and us.
            features: features & !(1 << features::PROTOCOL_FEATURES),
            memory: memory.clone(),
            kick,
            call: self.call.clone(),
            err: self.err.clone(),
        };
        let ring = Ring::start(config).map_err(|cause| Refused::Setup { ring: self.index, cause })?;
        Ok(Some(ring))
    }
}
