//! The frontend side of a guest port: its listening thread, and the session's way into the wire.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use port::guest::GuestCounters;
use port::nic::Nic;
use vhost_user::{DeviceOptions, FrontendState, Listener, Queues, SocketError};
use virtqueue::Ring;

use crate::StartError;
use crate::config::GuestConfig;
use crate::wire::Wire;

/// How long to wait after a failed accept (out of descriptors, say) before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A guest port, as control sees it.
pub struct Guest {
    /// Its configuration.
    pub config: GuestConfig,
    /// Counters of each queue pair offered.
    pub counters: Vec<GuestCounters>,
    /// The nic behind it.
    pub nic: Option<Arc<Nic>>,
    wire: Mutex<Wire>,
    seen: Mutex<Seen>,
}

/// What the sessions have told so far.
#[derive(Clone, Default)]
pub struct Seen {
    /// The connected frontend, if any.
    pub frontend: FrontendState,
    /// How many have connected.
    pub connections: u64,
}

impl Guest {
    /// A guest port that nobody listens on yet.
    pub fn new(
        config: GuestConfig,
        counters: Vec<GuestCounters>,
        nic: Option<Arc<Nic>>,
        wire: Wire,
    ) -> Guest {
        Guest { config, counters, nic, wire: Mutex::new(wire), seen: Mutex::default() }
    }

    /// The wire, locked: control and the session take turns.
    pub fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What the session has told last.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The session's view of a guest port.
impl Queues for &Guest {
    fn give_out(&mut self, ring: Ring) {
        self.wire().give_out(ring);
    }

    fn take_back(&mut self, index: u16) -> Option<Ring> {
        self.wire().take_back(index)
    }

    fn observe(&mut self, state: &FrontendState) {
        self.seen().frontend = state.clone();
    }

    fn link_up(&self) -> bool {
        self.nic.as_ref().is_some_and(|nic| nic.link_up())
    }
}

/// The thread that waits for a guest's frontend and serves it: one frontend at a time, any number in turn.
pub struct Serving {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Listens on the guest's socket.
    pub fn start(guest: Arc<Guest>) -> Result<Serving, StartError> {
        let config = &guest.config;
        let socket_error = |source: SocketError| StartError::Socket { guest: config.name.clone(), source };
        let listener = Listener::bind(&config.socket, config.socket_mode, config.socket_group.as_deref())
            .map_err(socket_error)?;
        let thread_error = |source| StartError::Thread { what: format!("guest {}", config.name), source };
        let stop = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .map_err(|errno| thread_error(errno.into()))?;
        let stop = Arc::new(stop);
        let stopped = stop.clone();
        let name = format!("guest:{}", config.name);
        let served = guest.clone();
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || serve(&served, &listener, &stopped))
            .map_err(thread_error)?;
        Ok(Serving { stop, thread: Some(thread) })
    }

    /// Asks the session to end, without waiting for it.
    pub fn ask_to_stop(&self) {
        if let Err(errno) = self.stop.write(1) {
            tracing::error!("a session cannot be stopped: {errno}");
        }
    }
}

impl Drop for Serving {
    /// Ends the session: its rings are taken back and its socket is removed.
    fn drop(&mut self) {
        self.ask_to_stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(guest: &Guest, listener: &Listener, stop: &EventFd) {
    loop {
        match listener.accept(stop.as_fd()) {
            Ok(Some(stream)) => serve_one(guest, stream, stop),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(guest = guest.config.name, "no frontend can be accepted: {error}");
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn serve_one(guest: &Guest, stream: UnixStream, stop: &EventFd) {
    guest.seen().connections += 1;
    let options = DeviceOptions {
        name: guest.config.name.clone(),
        queue_pairs: guest.config.queues,
        mac: guest.config.mac.unwrap_or_else(|| derived_mac(&guest.config.name)),
        mtu: guest.config.mtu,
    };
    if let Err(error) = vhost_user::serve(stream, &options, &mut &*guest, stop.as_fd()) {
        tracing::warn!(guest = guest.config.name, "frontend dropped: {error}");
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
