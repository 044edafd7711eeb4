//! The frontend side of a guest port: its listening thread, and the session's way into the wire.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use vhost_user::{Channel, FrontendState, Link, Listener, Queues};
use virtqueue::Ring;

use crate::guest::Guest;
use crate::ports::{PortError, Ports};

/// How long to wait after a failed accept (out of descriptors, say) before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The session's view of a guest port.
struct Session<'a> {
    ports: &'a Ports,
    guest: &'a Guest,
}

impl Queues for Session<'_> {
    fn give_out(&mut self, ring: Ring) {
        self.ports.control().give_out(&self.guest.config.name, ring);
    }

    fn take_back(&mut self, index: u16) -> Option<Ring> {
        self.ports.control().take_back(&self.guest.config.name, index)
    }

    fn observe(&mut self, state: &FrontendState) {
        let whose = |state: &FrontendState| (state.connected, state.mac);
        let known = std::mem::replace(&mut self.guest.seen().frontend, state.clone());
        if whose(&known) != whose(state) {
            let mac = state.mac.or(self.guest.config.mac).filter(|_| state.connected);
            self.ports.control().know_mac(&self.guest.config.name, mac);
        }
    }

    fn link(&self) -> Link {
        self.ports.backend_link(&self.guest.config.name)
    }

    fn max_mtu(&self) -> Option<u16> {
        self.ports.backend_mtu(&self.guest.config.name)
    }

    fn announce(&mut self, _mac: [u8; 6]) {
        // Its address came with the state just observed.
        self.ports.control().announce(&self.guest.config.name);
    }

    fn set_channel(&mut self, channel: Option<Channel>) {
        *self.guest.channel() = channel;
    }
}

/// The thread that waits for a guest's frontend and serves it: one frontend at a time, any number in turn.
pub struct Serving {
    guest: Arc<Guest>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Serves a guest's frontends as they come.
    pub fn start(ports: &Arc<Ports>, guest: Arc<Guest>, listener: Listener) -> Result<Serving, PortError> {
        let owner = guest.config.name.clone();
        let thread_error = |source| PortError::Thread { guest: owner.clone(), source };
        let stop = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .map_err(|errno| thread_error(errno.into()))?;
        let stop = Arc::new(stop);
        let stopped = stop.clone();
        let (ports, served) = (ports.clone(), guest.clone());
        let listener = Arc::new(listener);
        let listening = listener.clone();
        let thread = std::thread::Builder::new()
            .name(format!("guest:{owner}"))
            .spawn(move || serve(&ports, &served, &listening, &stopped))
            .map_err(thread_error)?;
        *guest.listener() = Some(listener);
        Ok(Serving { guest, stop, thread: Some(thread) })
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
        // The last one there is: whoever looks at it holds the lock.
        *self.guest.listener() = None;
    }
}

fn serve(ports: &Ports, guest: &Guest, listener: &Listener, stop: &EventFd) {
    loop {
        match listener.accept(stop.as_fd()) {
            Ok(Some(stream)) => serve_one(ports, guest, stream, stop),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(port = guest.config.name, "no frontend can be accepted: {error}");
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn serve_one(ports: &Ports, guest: &Guest, stream: UnixStream, stop: &EventFd) {
    {
        let mut seen = guest.seen();
        seen.connections += 1;
        seen.hung_up = None;
        seen.since = Some(Instant::now());
    }
    let options = guest.offer();
    let mut session = Session { ports, guest };
    let served = vhost_user::serve(stream, &options, &mut session, stop.as_fd());
    let mut seen = guest.seen();
    seen.since = Some(Instant::now());
    if let Err(error) = served {
        tracing::warn!(port = guest.config.name, "frontend dropped: {error}");
        seen.hung_up = Some(error.to_string());
    }
}
