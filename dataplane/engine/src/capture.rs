//! Captures, for whoever reads them.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use port::capture::Capture;
pub use port::capture::{BadProgram, Direction, Instruction, Program, Record, Wanted};

use crate::ports::Ports;

/// Why there is nothing to capture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// There is no such port.
    #[error("no port is called {0:?}")]
    NoSuchPort(String),
    /// The port has fewer queues.
    #[error("{port} has {pairs} queue pairs: there is no {queue} (the first is 0)")]
    NoSuchQueue {
        /// The port.
        port: String,
        /// Queue pairs it has.
        pairs: u16,
        /// The one asked for.
        queue: u16,
    },
    /// It passes through a guest, and no queue of its own.
    #[error("{port} is the exception path of {guest}: capture that one")]
    Punt {
        /// The port.
        port: String,
        /// The guest.
        guest: String,
    },
}

/// A capture under way. It ends when this is dropped, or the datapath shut down.
pub struct Capturing {
    capture: Arc<Capture>,
    door: Arc<Door>,
}

impl Deref for Capturing {
    type Target = Capture;

    fn deref(&self) -> &Capture {
        &self.capture
    }
}

impl Capturing {
    /// Ends it: what was captured can still be read.
    pub fn end(&self) {
        if let Some(ports) = &*self.door.ports() {
            ports.control().remove_capture(&self.capture);
        }
    }
}

impl Drop for Capturing {
    fn drop(&mut self) {
        self.end();
    }
}

/// Leads captures to the ports, as long as there are any: nothing of a datapath may outlive it.
pub(crate) struct Door(Mutex<Option<Arc<Ports>>>);

impl Door {
    fn ports(&self) -> std::sync::MutexGuard<'_, Option<Arc<Ports>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The datapath's end of the door: with it, the door closes.
pub(crate) struct Captures(Arc<Door>);

impl Captures {
    pub fn new(ports: Arc<Ports>) -> Captures {
        Captures(Arc::new(Door(Mutex::new(Some(ports)))))
    }

    /// Captures from now on.
    pub fn start(&self, wanted: Wanted) -> Result<Capturing, CaptureError> {
        let ports = self.0.ports();
        let Some(ports) = &*ports else { return Err(CaptureError::NoSuchPort(wanted.port)) };
        let pairs = pairs(ports, &wanted.port)?;
        if let Some(queue) = wanted.queue.filter(|queue| *queue >= pairs) {
            return Err(CaptureError::NoSuchQueue { port: wanted.port, pairs, queue });
        }
        let capture = Capture::new(wanted, pairs);
        ports.control().add_capture(&capture);
        Ok(Capturing { capture, door: self.0.clone() })
    }

    /// There are no more ports from now on.
    pub fn close(&self) {
        *self.0.ports() = None;
    }
}

impl Drop for Captures {
    fn drop(&mut self) {
        self.close();
    }
}

/// How many queue pairs a port has.
fn pairs(ports: &Ports, name: &str) -> Result<u16, CaptureError> {
    let punt = ports.control().punt_of(name).map(str::to_owned);
    if let Some(guest) = punt {
        return Err(CaptureError::Punt { port: name.to_owned(), guest });
    }
    let guest = ports.guest(name).map(|guest| guest.counters.len());
    let nic = || ports.nic(name).map(|nic| nic.nic.counters.len());
    let socket = || ports.socket(name).map(|entry| entry.socket.counters.len());
    let pairs = guest.or_else(nic).or_else(socket);
    pairs.map(|pairs| pairs as u16).ok_or_else(|| CaptureError::NoSuchPort(name.to_owned()))
}
