//! The control side of a guest port.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use port::guest::GuestCounters;
use vhost_user::{Channel, DeviceOptions, FrontendState, Listener};

use crate::config::GuestConfig;

/// A guest.
pub struct Guest {
    /// What it was configured as. What can change is elsewhere: backend and fallback in the route, offloads in their own
    /// field, assigned queue pairs in control.
    pub config: GuestConfig,
    /// Counters of each queue pair offered.
    pub counters: Vec<GuestCounters>,
    /// Feature bits of the offloads offered to the next frontend.
    offloads: AtomicU64,
    seen: Mutex<Seen>,
    route: Mutex<Route>,
    channel: Mutex<Option<Channel>>,
    listener: Mutex<Option<Arc<Listener>>>,
}

/// What the sessions have told so far.
#[derive(Clone, Default)]
pub struct Seen {
    /// The connected frontend, if any.
    pub frontend: FrontendState,
    /// How many have connected.
    pub connections: u64,
    /// When the last one has come, or gone.
    pub since: Option<Instant>,
    /// Why we left the last one, if it was not the frontend that did.
    pub hung_up: Option<String>,
}

/// Where a guest is meant to be connected to.
#[derive(Clone, Default)]
pub struct Route {
    /// The backend asked for last; its fallback may be in its place.
    pub wanted: Option<String>,
    /// What takes the backend's place while that has no link.
    pub fallback: Option<String>,
    /// How long the backend must have a link again before it is returned to.
    pub hold: Duration,
    /// Since when the backend asked for has a link again, while the fallback is in its place.
    pub up_since: Option<Instant>,
}

impl Guest {
    /// A guest that has no frontend yet.
    pub fn new(config: GuestConfig) -> Guest {
        let (fallback, hold) = (config.fallback.clone(), config.fallback_hold);
        Guest {
            counters: (0..config.queues).map(|_| GuestCounters::default()).collect(),
            offloads: AtomicU64::new(config.offloads),
            config,
            seen: Mutex::default(),
            route: Mutex::new(Route { fallback, hold, ..Route::default() }),
            channel: Mutex::default(),
            listener: Mutex::default(),
        }
    }

    /// What the next frontend is offered.
    pub fn offer(&self) -> DeviceOptions {
        DeviceOptions {
            name: self.config.name.clone(),
            queue_pairs: self.config.queues,
            mac: self.config.mac.unwrap_or_else(|| derived_mac(&self.config.name)),
            mtu: self.config.mtu,
            offloads: self.offloads(),
        }
    }

    /// Feature bits of the offloads that are offered to the next frontend.
    pub fn offloads(&self) -> u64 {
        self.offloads.load(Ordering::Relaxed)
    }

    /// Replaces the offloads that are offered to the next frontend.
    pub fn set_offloads(&self, offloads: u64) {
        self.offloads.store(offloads, Ordering::Relaxed);
    }

    /// What the session has told last.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is meant to be connected to. Whoever changes the backend holds this meanwhile.
    pub fn route(&self) -> MutexGuard<'_, Route> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket that frontends connect to, while it is served.
    pub fn listener(&self) -> MutexGuard<'_, Option<Arc<Listener>>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connected frontend's way to hear of changes, if it has given one.
    pub fn channel(&self) -> MutexGuard<'_, Option<Channel>> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A locally administered address that a guest keeps over restarts: a hash (FNV-1a) of its port name.
fn derived_mac(name: &str) -> [u8; 6] {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = hash.to_le_bytes();
    [0x02, a, b, c, d, e]
}

#[cfg(test)]
mod tests {
    use super::derived_mac;

    #[test]
    fn a_derived_mac_is_local_unicast_and_depends_on_the_name() {
        assert_eq!(derived_mac("vm1")[0] & 3, 2);
        assert_eq!(derived_mac("vm1"), derived_mac("vm1"));
        assert_ne!(derived_mac("vm1"), derived_mac("vm2"));
    }
}
