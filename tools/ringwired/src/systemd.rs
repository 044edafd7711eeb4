//! What systemd is told, if it started us (sd_notify(3)): what we are doing, and, where the unit has `WatchdogSec=`, that
//! everything still answers.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::Datapath;
use sd_notify::NotifyState;

/// A check, each so many parts of the watchdog's time, may take as long as one of them. So a daemon that lives is never
/// late, even if one notification comes late by as much again.
const PARTS: u32 = 4;

/// Everything is there, and the API answers on `socket`.
pub fn ready(socket: &Path) {
    let status = serving(socket);
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The rings are being given back.
pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("giving the rings back")]);
}

fn serving(socket: &Path) -> String {
    format!("serving; control API on {}", socket.display())
}

/// Tells the watchdog, if there is one, for as long as all who own queues answer, and whoever has control locked lets
/// go of it. That this is done by the thread that serves the API proves it alive.
pub async fn watch(datapath: Arc<Datapath>, socket: &Path) -> Infallible {
    let Some(time) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let part = (time / PARTS).max(Duration::from_millis(1));
    let mut tick = tokio::time::interval(part);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut silent = None;
    loop {
        tick.tick().await;
        let asked = datapath.clone();
        let found = tokio::task::spawn_blocking(move || asked.find_silent(part)).await.unwrap_or(None);
        match &found {
            None => notify(&[NotifyState::Watchdog]),
            Some(name) => {
                tracing::error!("{name} has not answered for {part:?}: systemd's watchdog is not told")
            }
        }
        if found != silent {
            let status =
                found.as_ref().map_or_else(|| serving(socket), |name| format!("{name} does not answer"));
            notify(&[NotifyState::Status(&status)]);
            silent = found;
        }
    }
}

/// Tells systemd, if it started us.
pub fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot notify systemd: {error}");
    }
}
