//! Watches all links, so that a worker need not ask a driver, takes guests to their fallback and back, and lets their
//! frontends know.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use crate::StartError;
use crate::control::{Arrived, BackendError};
use crate::guest::Guest;
use crate::ports::{NicPort, Ports, SocketEntry};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// The watching thread; it ends when this is dropped.
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to watch.
    pub fn start(ports: Arc<Ports>) -> Result<Watch, StartError> {
        let (stop, stopped) = bounded::<()>(0);
        let thread = std::thread::Builder::new()
            .name("link-watch".to_owned())
            .spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(INTERVAL) {
                    ports.nics().iter().for_each(|nic| look_at_nic(nic));
                    ports.sockets().iter().for_each(|entry| look_at_socket(entry));
                    ports.guests().iter().for_each(|guest| reroute(&ports, guest));
                    ports.guests().iter().for_each(|guest| tell(&ports, guest));
                }
            })
            .map_err(|source| StartError::Thread { what: "link watch".to_owned(), source })?;
        Ok(Watch { stop: Some(stop), thread: Some(thread) })
    }
}

fn look_at_nic(port: &NicPort) {
    let name = &port.config.name;
    match port.nic.refresh_link() {
        (true, true) => tracing::info!(port = name, "link is up"),
        (false, true) => tracing::info!(port = name, "link is down: guests that send to it are held back"),
        _ => {}
    }
}

fn look_at_socket(entry: &SocketEntry) {
    if let (_, true) = entry.socket.refresh_link() {
        let status = entry.socket.status();
        tracing::info!(
            port = entry.config.name,
            interface = status.interface,
            "interface is {}",
            status.state.name()
        );
    }
}

/// Takes a guest to its fallback when its backend has no link, and back when that has had one for long enough.
fn reroute(ports: &Ports, guest: &Guest) {
    let name = &guest.config.name;
    let mut route = guest.route();
    let (Some(fallback), Some(wanted)) = (&route.fallback.clone(), route.wanted.clone()) else { return };
    if wanted == *fallback {
        return;
    }
    let fallen_back = ports.control().backend(name) == Some(fallback);
    let up = ports.link_up(&wanted);
    route.up_since = up.then(|| route.up_since.unwrap_or_else(Instant::now));
    let held_long_enough = route.up_since.is_some_and(|since| since.elapsed() >= route.hold);
    let to = match fallen_back {
        false if !up && ports.link_up(fallback) => fallback,
        true if held_long_enough => &wanted,
        _ => return,
    };
    match ports.control().connect(name, Some(to), Arrived::Dropped) {
        Ok(()) => {
            tracing::warn!(
                port = name,
                backend = to,
                "connected: {wanted} is {}",
                if up { "up again" } else { "down" }
            );
        }
        // Removed meanwhile.
        Err(BackendError::NoSuchGuest(_)) => {}
        Err(error) => tracing::error!(port = name, "cannot be connected to {to}: {error}"),
    }
}

/// Tells a frontend that wants to hear of it if its guest's link is another one.
fn tell(ports: &Ports, guest: &Guest) {
    if guest.channel().is_none() {
        return;
    }
    // Before the channel is locked: a session replaces it while others wait for control.
    let link = ports.backend_link(&guest.config.name);
    if let Some(channel) = &mut *guest.channel() {
        channel.tell(link);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
