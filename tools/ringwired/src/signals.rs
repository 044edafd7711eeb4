//! The signals that the daemon answers.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Asks to stop.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

/// Asks to read the configuration again.
pub struct Hangup(Signal);

/// From now on, these signals no longer kill the process but wait to be answered. Must be called within a tokio
/// runtime.
pub fn install() -> io::Result<(Stop, Hangup)> {
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    Ok((Stop { terminate, interrupt }, Hangup(signal(SignalKind::hangup())?)))
}

impl Stop {
    /// Waits for a signal, and gives its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl Hangup {
    /// Waits for the next one; any number that come in between are one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}
