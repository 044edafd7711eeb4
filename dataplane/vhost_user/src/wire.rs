//! The socket beside the `vhost` crate: looking before it reads, and what it does not read.
//!
//! The crate reads with blocking calls, takes no more than 32 file descriptors, loses its place in the
//! stream when it dislikes a header, and retries for ever when a send times out. So it is let at the socket
//! only when a whole message that looks right has arrived and a reply has room; then it does not block.
//!
//! Looking is a peek without a control buffer, which takes neither bytes nor file descriptors, and FIONREAD,
//! which counts all bytes queued (a peek stops at bytes that carry file descriptors).

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send};

use crate::messages::{HEADER_LEN, MAX_PAYLOAD};
use crate::session::SessionError;

/// How long the rest of a message may take to arrive, and the frontend to make room for a reply.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most file descriptors the kernel attaches to one message (SCM_MAX_FD).
const MAX_FDS: usize = 253;

const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// A message's header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub code: u32,
    flags: u32,
    pub payload: usize,
}

impl Header {
    fn parse(bytes: [u8; HEADER_LEN]) -> Result<Header, SessionError> {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (code, flags, payload) = (word(0), word(4), word(8) as usize);
        if flags & !(REPLY | NEED_REPLY) != VERSION {
            return Err(SessionError::Flags { flags });
        }
        if payload > MAX_PAYLOAD {
            return Err(SessionError::TooLong { payload });
        }
        Ok(Header { code, flags, payload })
    }

    pub fn is_reply(&self) -> bool {
        self.flags & REPLY != 0
    }

    pub fn needs_reply(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }
}

/// What comes next.
pub(crate) enum Next {
    /// A whole message is there, and there is room for a reply.
    Message(Header),
    /// The frontend has closed the connection.
    Closed,
    /// `stop` became readable.
    Stopped,
}

/// What is there already.
enum Queued {
    Nothing,
    Part,
    Message(Header),
    Closed,
}

/// File descriptors that came with a message; all closed again.
pub(crate) enum Fds {
    Closed(usize),
    /// There were more than this process may still open.
    Lost,
}

pub(crate) struct Wire<'a> {
    stream: UnixStream,
    stop: BorrowedFd<'a>,
    epoll: rustix::fd::OwnedFd,
    hung_up: bool,
}

const STREAM: u64 = 0;
const STOP: u64 = 1;

impl<'a> Wire<'a> {
    pub fn new(stream: UnixStream, stop: BorrowedFd<'a>) -> io::Result<Wire<'a>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge-triggered, so that half a message does not wake us again and again.
        let news = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&epoll, &stream, epoll::EventData::new_u64(STREAM), news)?;
        epoll::add(&epoll, stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        Ok(Wire { stream, stop, epoll, hung_up: false })
    }

    /// Waits for a whole message and for room for its reply.
    pub fn next(&mut self) -> Result<Next, SessionError> {
        let mut deadline = None;
        loop {
            let queued = self.look()?;
            let timeout = match queued {
                Queued::Closed => return Ok(Next::Closed),
                Queued::Nothing => None,
                Queued::Message(_) => Some(Duration::ZERO),
                Queued::Part if self.hung_up => return Err(SessionError::Truncated),
                Queued::Part => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(SessionError::Unfinished);
                    }
                    Some(left)
                }
            };
            if self.wait(timeout)? {
                return Ok(Next::Stopped);
            }
            if let Queued::Message(header) = queued {
                return if self.wait_for_room()? { Ok(Next::Message(header)) } else { Ok(Next::Stopped) };
            }
        }
    }

    /// Looks at what is queued, without taking it.
    fn look(&self) -> Result<Queued, SessionError> {
        let mut bytes = [0; HEADER_LEN];
        let peeked = match recv(&self.stream, &mut bytes[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(Queued::Closed),
            Ok((_, peeked)) => peeked,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Queued::Nothing),
            Err(errno) => return Err(io::Error::from(errno).into()),
        };
        let queued = ioctl_fionread(&self.stream).map_err(io::Error::from)? as usize;
        if peeked < HEADER_LEN {
            // More is queued than a peek shows: file descriptors came with the first part of a header.
            return if queued >= HEADER_LEN { Err(SessionError::Torn) } else { Ok(Queued::Part) };
        }
        let header = Header::parse(bytes)?;
        let whole = queued >= HEADER_LEN + header.payload;
        Ok(if whole { Queued::Message(header) } else { Queued::Part })
    }

    /// Waits for news on the socket; whether the session is to stop.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, SessionError> {
        // Rounded up to a millisecond, which is what epoll counts in.
        let timeout = timeout.map(|left| Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_millis() as i64 * 1_000_000 + if left.is_zero() { 0 } else { 1_000_000 },
        });
        let mut events = Vec::with_capacity(2);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
        let gone = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        self.hung_up |= events.iter().any(|event| {
            let flags = event.flags;
            event.data.u64() == STREAM && flags.intersects(gone)
        });
        Ok(events.iter().any(|event| event.data.u64() == STOP))
    }

    /// Waits until a reply fits the socket: a quarter of its send buffer at most is in use, and a reply is
    /// far shorter than the rest. False: the session is to stop.
    fn wait_for_room(&self) -> Result<bool, SessionError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos() as i64 };
            let mut fds = [PollFd::new(&self.stream, PollFlags::OUT), PollFd::new(&self.stop, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Err(SessionError::NotReading),
                Ok(_) if !fds[1].revents().is_empty() => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }

    /// How many file descriptors come with the message at hand: they are received once more than the message
    /// itself, and closed.
    pub fn count_fds(&self) -> Result<Fds, SessionError> {
        let mut byte = [0];
        let (_, fds) = self.receive(&mut byte, RecvFlags::PEEK)?;
        Ok(fds)
    }

    /// Takes the message at hand off the socket, closes its file descriptors, and returns its payload.
    pub fn take(&self, header: Header) -> Result<Vec<u8>, SessionError> {
        let mut message = vec![0; HEADER_LEN + header.payload];
        let mut taken = 0;
        while taken < message.len() {
            match self.receive(&mut message[taken..], RecvFlags::empty())? {
                (0, _) => return Err(SessionError::Truncated),
                (more, _) => taken += more,
            }
        }
        Ok(message.split_off(HEADER_LEN))
    }

    fn receive(&self, bytes: &mut [u8], flags: RecvFlags) -> Result<(usize, Fds), SessionError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.stream, &mut [IoSliceMut::new(bytes)], &mut control, flags);
        let received = received.map_err(io::Error::from)?;
        let fds = control.drain().map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.count(),
            _ => 0,
        });
        let fds = fds.sum();
        let lost = received.flags.contains(rustix::net::ReturnFlags::CTRUNC);
        Ok((received.bytes, if lost { Fds::Lost } else { Fds::Closed(fds) }))
    }

    /// Replies to the message at hand.
    pub fn reply(&self, header: Header, payload: &[u8]) -> Result<(), SessionError> {
        let words = [header.code, VERSION | REPLY, payload.len() as u32];
        let mut message: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        message.extend_from_slice(payload);
        let sent = send(&self.stream, &message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        match sent.map_err(io::Error::from)? {
            sent if sent == message.len() => Ok(()),
            _ => Err(SessionError::NotReading),
        }
    }
}

impl AsFd for Wire<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
