//! The connection: whole messages in, replies out, and never blocked in either.
//!
//! The `vhost` crate reads with blocking calls, takes no more than 32 file descriptors, loses its place in
//! the stream when it dislikes a header, and retries for ever when a send times out. So it is not let at the
//! frontend's socket: messages are received here, and those that look right are handed to it over a
//! [`Relay`].
//!
//! Looking ahead with MSG_PEEK would not do: Linux goes on to the buffer behind the one peeked at, so the
//! file descriptors it shows may be those of the next message.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};

use crate::messages::{HEADER_LEN, MAX_PAYLOAD};
use crate::session::SessionError;
use crate::sigbus::Alarm;

/// How long the rest of a message may take to arrive, and the frontend to make room for a reply.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most file descriptors the kernel attaches to one piece of a message (SCM_MAX_FD).
const MAX_FDS: usize = 253;
/// As many as are kept of a message's: no message has more than 8, and the others count only.
const KEPT_FDS: usize = 9;

/// Flags of a message that is neither a reply nor wants one.
pub(crate) const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// A message's header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub code: u32,
    flags: u32,
    payload: usize,
}

impl Header {
    fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Header, SessionError> {
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

/// A message as it arrives.
#[derive(Default)]
struct Arriving {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    attached: usize,
    lost: bool,
}

impl Arriving {
    /// Whether all of it is here; otherwise `Err` says how many bytes are to come, as far as is known.
    fn header(&self) -> Result<Result<Header, usize>, SessionError> {
        let Some(header) = self.bytes.first_chunk() else { return Ok(Err(HEADER_LEN - self.bytes.len())) };
        let header = Header::parse(header)?;
        match (HEADER_LEN + header.payload).saturating_sub(self.bytes.len()) {
            0 => Ok(Ok(header)),
            missing => Ok(Err(missing)),
        }
    }
}

/// A whole message. Its file descriptors are closed with it.
pub(crate) struct Received {
    pub header: Header,
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// File descriptors that came with it.
    pub attached: usize,
    /// Whether there were more than this process may still open.
    pub lost: bool,
}

impl Received {
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// The file descriptor that came last.
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop()
    }
}

/// What comes next.
pub(crate) enum Next {
    Message(Received),
    /// The frontend has closed the connection.
    Closed,
    /// `stop` became readable.
    Stopped,
}

/// Whether waiting has come to an end.
enum Waited {
    Ready,
    Stopped,
    TimedOut,
}

pub(crate) struct Wire<'a> {
    stream: UnixStream,
    stop: BorrowedFd<'a>,
    alarm: Alarm,
}

impl<'a> Wire<'a> {
    pub fn new(stream: UnixStream, stop: BorrowedFd<'a>, alarm: Alarm) -> Wire<'a> {
        Wire { stream, stop, alarm }
    }

    /// Waits for a whole message and for room for its reply.
    pub fn next(&mut self) -> Result<Next, SessionError> {
        let mut arriving = Arriving::default();
        let mut deadline = None;
        loop {
            let missing = match arriving.header()? {
                Ok(header) => return self.when_there_is_room(header, arriving),
                Err(missing) => missing,
            };
            if !arriving.bytes.is_empty() {
                deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            }
            // Asked each time, so that a frontend that never pauses cannot keep a stop from being seen.
            match self.wait(PollFlags::IN, deadline)? {
                Waited::Stopped => return Ok(Next::Stopped),
                Waited::TimedOut => return Err(SessionError::Unfinished),
                Waited::Ready => {}
            }
            match self.receive(missing, &mut arriving) {
                Ok(0) if arriving.bytes.is_empty() => return Ok(Next::Closed),
                Ok(0) => return Err(SessionError::Truncated),
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(Next::Closed),
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }

    /// Waits until a reply fits the socket: a quarter of its send buffer at most is in use then, and a reply
    /// is far shorter than the rest.
    fn when_there_is_room(&self, header: Header, whole: Arriving) -> Result<Next, SessionError> {
        let Arriving { bytes, fds, attached, lost } = whole;
        match self.wait(PollFlags::OUT, Some(Instant::now() + PATIENCE))? {
            Waited::Ready => Ok(Next::Message(Received { header, bytes, fds, attached, lost })),
            Waited::Stopped => Ok(Next::Stopped),
            Waited::TimedOut => Err(SessionError::NotReading),
        }
    }

    fn wait(&self, flags: PollFlags, deadline: Option<Instant>) -> Result<Waited, SessionError> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let timeout = left
                .map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
            let mut fds = [
                PollFd::new(&self.stop, PollFlags::IN),
                PollFd::new(&self.alarm, PollFlags::IN),
                PollFd::new(&self.stream, flags),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(Waited::TimedOut),
                Ok(_) if !fds[0].revents().is_empty() => return Ok(Waited::Stopped),
                Ok(_) if !fds[1].revents().is_empty() => return Err(SessionError::MemoryLost),
                Ok(_) => return Ok(Waited::Ready),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }

    /// Receives at most `missing` bytes, and what is attached to them.
    fn receive(&self, missing: usize, arriving: &mut Arriving) -> rustix::io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = vec![0; missing];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
        arriving.bytes.extend_from_slice(&bytes[..received.bytes]);
        arriving.lost |= received.flags.contains(ReturnFlags::CTRUNC);
        for message in control.drain() {
            let RecvAncillaryMessage::ScmRights(fds) = message else { continue };
            for fd in fds {
                arriving.attached += 1;
                if arriving.fds.len() < KEPT_FDS {
                    arriving.fds.push(fd);
                }
            }
        }
        Ok(received.bytes)
    }

    /// The frontend's process, as far as it can be seen from here.
    pub fn frontend(&self) -> Option<i32> {
        crate::channel::peer(&self.stream)
    }

    /// Replies to a message.
    pub fn reply(&self, header: Header, payload: &[u8]) -> Result<(), SessionError> {
        let words = [header.code, VERSION | REPLY, payload.len() as u32];
        let mut message: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        message.extend_from_slice(payload);
        self.send(&message)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), SessionError> {
        match send(&self.stream, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) | Err(Errno::AGAIN) => Err(SessionError::NotReading),
            // It is gone; what it sent before that is still carried out.
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }
}

/// A private socket whose other end the `vhost` crate serves, one whole message at a time: it never waits
/// for bytes, and its replies always fit.
pub(crate) struct Relay {
    ours: UnixStream,
    /// The crate's end once more, to see whether it read all of a message.
    theirs: UnixStream,
}

impl Relay {
    /// The relay, and the end for the `vhost` crate.
    pub fn new() -> io::Result<(Relay, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Relay { ours, theirs: theirs.try_clone()? }, theirs))
    }

    /// Puts a message where the `vhost` crate will find it.
    pub fn put(&self, message: Received) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KEPT_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = message.fds.iter().map(AsFd::as_fd).collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = sendmsg(&self.ours, &[IoSlice::new(&message.bytes)], &mut control, flags)?;
        if sent < message.bytes.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    /// Passes on what the `vhost` crate has answered, if anything.
    pub fn pass_on(&self, wire: &Wire<'_>) -> Result<(), SessionError> {
        let mut reply = [0; HEADER_LEN + MAX_PAYLOAD];
        match rustix::net::recv(&self.ours, &mut reply[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(Errno::AGAIN) => Ok(()),
            Ok((_, len)) => wire.send(&reply[..len]),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }

    /// Whether the `vhost` crate has taken all of the message.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(rustix::io::ioctl_fionread(&self.theirs)? == 0)
    }
}
