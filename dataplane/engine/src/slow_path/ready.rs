//! What is known of queues: whether there may be something to do.

use std::time::{Duration, Instant};

use port::guest::GuestPair;

/// How long a socket is left alone after it failed (its interface is down, say).
const PAUSE: Duration = Duration::from_millis(100);
/// How often a queue is looked at whose guest cannot kick.
const LOOK: Duration = Duration::from_millis(1);

pub(super) struct GuestReady {
    /// It may have sent something.
    pub sent: bool,
    /// It may have room.
    pub room: bool,
    /// When to look, if it cannot kick.
    pub look: Option<Instant>,
}

pub(super) struct SocketReady {
    pub readable: bool,
    pub writable: bool,
    /// It failed: when to try again.
    pub again: Option<Instant>,
}

impl GuestReady {
    pub fn of(guest: &GuestPair) -> GuestReady {
        let polled = guest.kicks().iter().any(Option::is_none);
        GuestReady { sent: true, room: true, look: polled.then(Instant::now) }
    }

    pub fn wake(&mut self, now: Instant) {
        if self.look.is_some_and(|at| at <= now) {
            (self.sent, self.room, self.look) = (true, true, Some(now + LOOK));
        }
    }
}

impl Default for SocketReady {
    fn default() -> SocketReady {
        SocketReady { readable: true, writable: true, again: None }
    }
}

impl SocketReady {
    pub fn fail(&mut self) {
        (self.readable, self.writable, self.again) = (false, false, Some(Instant::now() + PAUSE));
    }

    pub fn wake(&mut self, now: Instant) {
        if self.again.is_some_and(|at| at <= now) {
            *self = SocketReady::default();
        }
    }
}
