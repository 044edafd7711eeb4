//! Watches the links of all NICs, so that a worker need not ask a driver.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use port::nic::Nic;

use crate::{NicPort, StartError};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// The watching thread; it ends when this is dropped.
pub struct LinkWatch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LinkWatch {
    /// Starts to watch.
    pub(crate) fn start(nics: &[NicPort]) -> Result<LinkWatch, StartError> {
        let watched: Vec<(String, Arc<Nic>)> =
            nics.iter().map(|port| (port.config.name.clone(), port.nic.clone())).collect();
        let (stop, stopped) = bounded::<()>(0);
        let thread = std::thread::Builder::new()
            .name("link-watch".to_owned())
            .spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(INTERVAL) {
                    watched.iter().for_each(|(name, nic)| look(name, nic));
                }
            })
            .map_err(|source| StartError::Thread { what: "link watch".to_owned(), source })?;
        Ok(LinkWatch { stop: Some(stop), thread: Some(thread) })
    }
}

fn look(name: &str, nic: &Nic) {
    match nic.refresh_link() {
        (true, true) => tracing::info!(nic = name, "link is up"),
        (false, true) => tracing::info!(nic = name, "link is down: guests that send to it are held back"),
        _ => {}
    }
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
