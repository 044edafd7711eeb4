//! The session loop: one message after the other, until the frontend is gone or we are asked to stop.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};
use vhost::vhost_user::{BackendReqHandler, Error as VhostError};

use crate::device::Device;
use crate::messages::{self, Message, Refusal, SET_VRING_ENABLE};
use crate::refusal::Refused;
use crate::wire::{Fds, Header, Next, Wire};
use crate::{DeviceOptions, Queues};

/// Why a session ended, other than by the frontend closing the connection or by `stop`. Each has been logged
/// with the guest's name already.
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
    /// A message's header came in parts, with file descriptors attached to the first: its length cannot be
    /// known before taking them.
    #[error("a header arrived in pieces, with file descriptors")]
    Torn,
    /// Part of a message came, and then nothing for 5 seconds.
    #[error("the rest of a message did not arrive")]
    Unfinished,
    /// The connection was closed within a message.
    #[error("the connection was closed within a message")]
    Truncated,
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
    /// The `vhost` crate lost its place in the stream of messages.
    #[error("receiving {message} failed: {cause}")]
    Receive {
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
    info!(guest, "frontend connected");
    let device = Arc::new(Mutex::new(Device::new(options, queues)));
    let (ended, open) = match Session::new(stream, device.clone(), stop) {
        Ok(mut session) => (session.run(), Some(session)),
        Err(cause) => (Err(cause), None),
    };
    // The frontend sees the connection closed only when nothing touches its memory any more.
    lock(&device).close();
    drop(open);
    match &ended {
        Ok(Ended::Stopped) => info!(guest, "frontend left alone: asked to stop"),
        Ok(Ended::Closed) => info!(guest, "frontend disconnected"),
        Err(cause) => warn!(guest, "frontend dropped: {cause}"),
    }
    ended.map(|_| ())
}

enum Ended {
    Closed,
    Stopped,
}

struct Session<'a> {
    device: Arc<Mutex<Device<'a>>>,
    crate_handler: BackendReqHandler<Mutex<Device<'a>>>,
    wire: Wire<'a>,
}

fn lock<'m, 'a>(device: &'m Mutex<Device<'a>>) -> MutexGuard<'m, Device<'a>> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Session<'a> {
    fn new(
        stream: UnixStream,
        device: Arc<Mutex<Device<'a>>>,
        stop: BorrowedFd<'a>,
    ) -> Result<Session<'a>, SessionError> {
        stream.set_nonblocking(false)?;
        let wire = Wire::new(stream.try_clone()?, stop)?;
        let crate_handler = BackendReqHandler::from_stream(stream, device.clone());
        Ok(Session { device, crate_handler, wire })
    }

    fn run(&mut self) -> Result<Ended, SessionError> {
        loop {
            match self.wire.next()? {
                Next::Closed => return Ok(Ended::Closed),
                Next::Stopped => return Ok(Ended::Stopped),
                Next::Message(header) => self.serve(header)?,
            }
        }
    }

    /// Carries out or refuses the message at hand; in any case takes it off the socket.
    fn serve(&mut self, header: Header) -> Result<(), SessionError> {
        let message = messages::message(header.code);
        if let Err(cause) = self.check(message, header)? {
            lock(&self.device).journal.refused(message.name, &cause);
            self.wire.take(header)?;
            return self.refuse(message, header);
        }
        match header.code {
            SET_VRING_ENABLE => self.set_vring_enable(message, header),
            _ => self.hand_over(message, header),
        }
    }

    /// Whether a message looks as it should: what the `vhost` crate would stumble over, or refuse without an
    /// answer, does not get there.
    fn check(&self, message: &Message, header: Header) -> Result<Result<(), Refused>, SessionError> {
        let Some(shape) = &message.served else { return Ok(Err(Refused::NotServed)) };
        if header.is_reply() {
            return Ok(Err(Refused::Reply));
        }
        if !shape.payload.contains(&header.payload) {
            return Ok(Err(Refused::Payload { found: header.payload }));
        }
        // A peek at a message without descriptors shows those of the message behind it (Linux goes on to the
        // next buffer), so only where some are due is their number known to be wrong. Where none are due, the
        // crate finds and closes them.
        if !shape.fds.contains(&0) {
            match self.wire.count_fds()? {
                Fds::Lost => return Ok(Err(Refused::FdsLost)),
                Fds::Closed(found) if !shape.fds.contains(&found) => return Ok(Err(Refused::Fds { found })),
                Fds::Closed(_) => {}
            }
        }
        if !lock(&self.device).has_protocol_feature(shape.feature) {
            let names = crate::features::protocol_feature_names(shape.feature.bits());
            return Ok(Err(Refused::Inactive(names.join(", "))));
        }
        Ok(Ok(()))
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

    /// SET_VRING_ENABLE. The `vhost` crate refuses it before SET_FEATURES, when QEMU sends it first.
    fn set_vring_enable(&mut self, message: &Message, header: Header) -> Result<(), SessionError> {
        let payload = self.wire.take(header)?;
        let word =
            |at: usize| u32::from_ne_bytes([payload[at], payload[at + 1], payload[at + 2], payload[at + 3]]);
        let (ring, value) = (word(0), word(4));
        let done = lock(&self.device).carry_out(message.name, |device| device.set_enabled(ring, value));
        self.ack(header, done.is_err().into())
    }

    /// Lets the `vhost` crate receive the message, call our handler, and answer.
    fn hand_over(&mut self, message: &'static Message, header: Header) -> Result<(), SessionError> {
        lock(&self.device).called = false;
        let Err(cause) = self.crate_handler.handle_request() else { return Ok(()) };
        match cause {
            // What these have taken off the socket is unknown.
            VhostError::PartialMessage
            | VhostError::Disconnected
            | VhostError::SocketBroken(_)
            | VhostError::SocketError(_)
            | VhostError::SocketConnect(_)
            | VhostError::SocketRetry(_) => {
                return Err(SessionError::Receive { message: message.name, cause });
            }
            // Our handler refused, and has logged it. The crate has answered, if it was a matter of an ack.
            _ if lock(&self.device).called => {
                return match message.refusal {
                    Refusal::HangUp => Err(SessionError::Unanswerable { message: message.name }),
                    _ => Ok(()),
                };
            }
            _ => {}
        }
        // The crate itself refused.
        let acked = matches!(message.refusal, Refusal::AckByCrate)
            && !matches!(cause, VhostError::InactiveOperation(_));
        lock(&self.device).journal.refused(message.name, &Refused::Malformed(cause));
        if acked { Ok(()) } else { self.refuse(message, header) }
    }
}

#[cfg(test)]
mod tests;
