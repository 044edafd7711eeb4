//! The session loop: one message after the other, until the frontend is gone or we are asked to stop.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::info;
use vhost::vhost_user::{BackendReqHandler, Error as VhostError};

use crate::device::Device;
use crate::messages::{self, Message, Refusal};
use crate::refusal::Refused;
use crate::sigbus::Alarm;
use crate::wire::{Header, Next, Received, Relay, Wire};
use crate::{DeviceOptions, Queues};

/// Why a session ended, other than by the frontend closing the connection or by `stop`. The caller logs it;
/// what was refused before is logged already.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The header has another version than 1, or flags that do not exist: this is no vhost-user.
    #[error("a message has flags {flags:#x}")]
    Flags {
        /// What was found.
        flags: u32,
    },
    /// The header announces a payload no message has.
    #[error("a message announces {payload} bytes of payload")]
    TooLong {
        /// What it announces.
        payload: usize,
    },
    /// Part of a message came, and then nothing for 5 seconds.
    #[error("the rest of a message did not arrive")]
    Unfinished,
    /// The connection was closed within a message.
    #[error("the connection was closed within a message")]
    Truncated,
    /// A file behind the guest's memory was truncated while we used it.
    #[error("the frontend has truncated the guest's memory")]
    MemoryLost,
    /// Replies have been piling up for 5 seconds.
    #[error("the frontend does not read its replies")]
    NotReading,
    /// The frontend waits for an answer that the protocol gives no way to refuse.
    #[error("{message} cannot be answered")]
    Unanswerable {
        /// The message's name.
        message: &'static str,
    },
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The `vhost` crate stopped in the middle of a message.
    #[error("{message} was not understood: {cause}")]
    Undigested {
        /// The message's name.
        message: &'static str,
        /// What the crate says.
        cause: VhostError,
    },
}

/// Serves one frontend until it disconnects, breaks the protocol beyond repair, or `stop` becomes readable
/// (it is an eventfd, say, and is not read here).
///
/// Blocks only in `queues` and on what it can be stopped in. On return every ring has been taken back, all
/// memory is unmapped and every file descriptor closed. A message that cannot be carried out is refused and
/// logged once per cause; the session goes on wherever the frontend can tell.
pub fn serve(
    stream: UnixStream,
    options: &DeviceOptions,
    queues: &mut dyn Queues,
    stop: BorrowedFd<'_>,
) -> Result<(), SessionError> {
    let guest = &options.name;
    info!(port = guest, "frontend connected");
    let alarm = Alarm::new()?;
    let device = Arc::new(Mutex::new(Device::new(options, queues, alarm.clone())));
    let (ended, open) = match Session::new(stream, device.clone(), stop, alarm) {
        Ok(mut session) => (session.run(), Some(session)),
        Err(cause) => (Err(cause), None),
    };
    // The frontend sees the connection closed only when nothing touches its memory any more.
    lock(&device).close();
    drop(open);
    match &ended {
        Ok(Ended::Stopped) => info!(port = guest, "frontend left alone: asked to stop"),
        Ok(Ended::Closed) => info!(port = guest, "frontend disconnected"),
        Err(_) => {} // the caller's to log
    }
    ended.map(|_| ())
}

enum Ended {
    Closed,
    Stopped,
}

struct Session<'a> {
    device: Arc<Mutex<Device<'a>>>,
    wire: Wire<'a>,
    relay: Relay,
    crate_handler: BackendReqHandler<Mutex<Device<'a>>>,
}

fn lock<'m, 'a>(device: &'m Mutex<Device<'a>>) -> MutexGuard<'m, Device<'a>> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Session<'a> {
    fn new(
        stream: UnixStream,
        device: Arc<Mutex<Device<'a>>>,
        stop: BorrowedFd<'a>,
        alarm: Alarm,
    ) -> Result<Session<'a>, SessionError> {
        let (relay, theirs) = Relay::new()?;
        let crate_handler = BackendReqHandler::from_stream(theirs, device.clone());
        Ok(Session { device, wire: Wire::new(stream, stop, alarm), relay, crate_handler })
    }

    fn run(&mut self) -> Result<Ended, SessionError> {
        loop {
            match self.wire.next()? {
                Next::Closed => return Ok(Ended::Closed),
                Next::Stopped => return Ok(Ended::Stopped),
                Next::Message(received) => self.serve(received)?,
            }
        }
    }

    /// Carries out or refuses a message.
    fn serve(&mut self, received: Received) -> Result<(), SessionError> {
        let (header, message) = (received.header, messages::message(received.header.code));
        if let Err(cause) = self.check(message, &received) {
            lock(&self.device).note_refusal(message.name, &cause);
            return self.refuse(message, header);
        }
        if beside::serves(header.code) {
            self.serve_beside(message, received)
        } else {
            self.hand_over(message, received)
        }
    }

    /// Whether a message looks as it should: what the `vhost` crate would stumble over, or refuse without an
    /// answer, does not get there.
    fn check(&self, message: &Message, received: &Received) -> Result<(), Refused> {
        let shape = message.served.as_ref().ok_or(Refused::NotServed)?;
        if received.header.is_reply() {
            return Err(Refused::Reply);
        }
        let found = received.payload().len();
        if !shape.payload.contains(&found) {
            return Err(Refused::Payload { found });
        }
        if received.lost {
            return Err(Refused::FdsLost);
        }
        let found = received.attached;
        if !shape.fds.contains(&found) {
            return Err(Refused::Fds { found });
        }
        if !lock(&self.device).has_protocol_feature(shape.feature) {
            let names = crate::features::protocol_feature_names(shape.feature.bits());
            return Err(Refused::Inactive(names.join(", ")));
        }
        Ok(())
    }

    /// Refuses a message that nobody has answered.
    fn refuse(&mut self, message: &Message, header: Header) -> Result<(), SessionError> {
        match message.refusal {
            Refusal::Ack | Refusal::AckByCrate => self.ack(header, 1),
            Refusal::Answer(payload) => self.wire.reply(header, payload),
            Refusal::HangUp => Err(SessionError::Unanswerable { message: message.name }),
        }
    }

    fn ack(&mut self, header: Header, value: u64) -> Result<(), SessionError> {
        if header.needs_reply() && lock(&self.device).acks() {
            self.wire.reply(header, &value.to_ne_bytes())?;
        }
        Ok(())
    }

    /// Lets the `vhost` crate decode the message, call our handler, and answer.
    fn hand_over(&mut self, message: &'static Message, received: Received) -> Result<(), SessionError> {
        let header = received.header;
        lock(&self.device).called = false;
        self.relay.put(received)?;
        let handled = self.crate_handler.handle_request();
        self.relay.pass_on(&self.wire)?;
        let Err(cause) = handled else { return Ok(()) };
        if !self.relay.is_empty()? {
            return Err(SessionError::Undigested { message: message.name, cause });
        }
        if lock(&self.device).called {
            // Our handler refused, and has logged it. The crate has answered, if it was a matter of an ack.
            return match message.refusal {
                Refusal::HangUp => Err(SessionError::Unanswerable { message: message.name }),
                _ => Ok(()),
            };
        }
        // The crate itself refused.
        let acked = matches!(message.refusal, Refusal::AckByCrate)
            && !matches!(cause, VhostError::InactiveOperation(_));
        lock(&self.device).note_refusal(message.name, &Refused::Malformed(cause));
        if acked { Ok(()) } else { self.refuse(message, header) }
    }
}

mod beside;
#[cfg(test)]
mod tests;
