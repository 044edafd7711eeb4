//! A connected socket: whole messages with the descriptors that belong to them.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::message::{Message, NEED_REPLY, PAYLOAD_MAX, REPLY, VERSION, request};

const HEADER: usize = 12;
/// Descriptors a message may carry (one a memory region; the specification allows 8 in a table).
const FDS: usize = 8;

/// What goes wrong between two ends of a socket.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Nobody listens, or the path is wrong.
    #[error("cannot connect to {0}: {1}")]
    Connect(PathBuf, std::io::Error),
    /// The socket cannot be made.
    #[error("cannot listen on {0}: {1}")]
    Listen(PathBuf, std::io::Error),
    /// Nobody came.
    #[error("nobody connected to {0} within {1} s")]
    Nobody(PathBuf, f64),
    /// The other side is gone.
    #[error("the other side closed the connection (last message: {0})")]
    Closed(&'static str),
    /// No reply within the time allowed.
    #[error("no answer to {0} within {1} s")]
    Silent(&'static str, f64),
    /// Sending or receiving failed.
    #[error("{0}: {1}")]
    Io(&'static str, std::io::Error),
    /// Not vhost-user.
    #[error("the other side sent a message that is not vhost-user: {0}")]
    Malformed(String),
    /// An acknowledgement other than 0.
    #[error("the backend refused {0}")]
    Refused(&'static str),
}

/// How two ends come together.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// The unix socket.
    pub path: PathBuf,
    /// Listen, instead of connecting.
    pub listen: bool,
    /// How long to try, or to wait for somebody; `None` is for ever.
    pub patience: Option<Duration>,
}

/// How long one reply may take.
const ANSWER: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    last: &'static str,
}

impl Channel {
    /// Connects, or listens and takes the first that comes.
    pub fn meet(meeting: &Meeting) -> Result<Channel, ChannelError> {
        match meeting.listen {
            true => Listener::bind(&meeting.path)?.accept(meeting.patience),
            false => Channel::patient(connect(meeting)?),
        }
    }

    /// Over a socket on which answers are waited for, but not for ever.
    fn patient(stream: UnixStream) -> Result<Channel, ChannelError> {
        stream.set_read_timeout(Some(ANSWER)).map_err(|e| ChannelError::Io("the socket", e))?;
        Ok(Channel::over(stream))
    }

    /// Speaks over a socket that is connected already.
    pub fn over(stream: UnixStream) -> Channel {
        Channel { stream, last: "none" }
    }

    /// Sends one message.
    pub fn send(&mut self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let fail = |e: std::io::Error| ChannelError::Io("sending", e);
        let mut bytes = Vec::with_capacity(HEADER + message.payload.len());
        for word in [message.request, message.flags, message.payload.len() as u32] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(&message.payload);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(ChannelError::Malformed(format!("{} descriptors", fds.len())));
        }
        let sent = sendmsg(&self.stream, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)
            .map_err(|e| fail(e.into()))?;
        self.last = request::name(message.request);
        (&self.stream).write_all(&bytes[sent..]).map_err(fail)
    }

    /// Waits for one message.
    pub fn receive(&mut self) -> Result<Message, ChannelError> {
        let mut header = [0; HEADER];
        let mut fds = Vec::new();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            &self.stream,
            &mut [IoSliceMut::new(&mut header)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .map_err(|e| self.failed(e.into()))?;
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                fds.extend(rights);
            }
        }
        if got.bytes == 0 {
            return Err(ChannelError::Closed(self.last));
        }
        self.read(&mut header[got.bytes..])?;
        let word = |i: usize| u32::from_ne_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
        let (request, flags, size) = (word(0), word(4), word(8) as usize);
        if flags & 3 != VERSION || size > PAYLOAD_MAX {
            return Err(ChannelError::Malformed(format!(
                "request {request}, flags {flags:#x}, {size} bytes"
            )));
        }
        let mut payload = vec![0; size];
        self.read(&mut payload)?;
        self.last = request::name(request);
        Ok(Message { request, flags, payload, fds })
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), ChannelError> {
        (&self.stream).read_exact(bytes).map_err(|e| self.failed(e))
    }

    fn failed(&self, e: std::io::Error) -> ChannelError {
        match e.kind() {
            std::io::ErrorKind::WouldBlock => ChannelError::Silent(self.last, ANSWER.as_secs_f64()),
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
                ChannelError::Closed(self.last)
            }
            _ => ChannelError::Io("receiving", e),
        }
    }

    /// Sends a request that the specification answers, and waits for the answer.
    pub fn ask(&mut self, request: u32, payload: &[u8]) -> Result<Message, ChannelError> {
        self.send(&Message::new(request, payload), &[])?;
        let reply = self.receive()?;
        if reply.request != request || reply.flags & REPLY == 0 {
            let got = request::name(reply.request);
            return Err(ChannelError::Malformed(format!("{got} in reply to {}", request::name(request))));
        }
        Ok(reply)
    }

    /// Sends a request that has no answer of its own; with `acknowledged`, one is asked for (REPLY_ACK).
    pub fn tell(
        &mut self,
        request: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
        acknowledged: bool,
    ) -> Result<(), ChannelError> {
        let mut message = Message::new(request, payload);
        if acknowledged {
            message.flags |= NEED_REPLY;
        }
        self.send(&message, fds)?;
        if acknowledged {
            let reply = self.receive()?;
            if reply.request != request || reply.u64(0) != Some(0) {
                return Err(ChannelError::Refused(request::name(request)));
            }
        }
        Ok(())
    }

    /// Whether a message, or the end of the connection, is there to be received.
    pub fn ready(&self) -> bool {
        readable(&self.stream, 0)
    }

    /// A descriptor that another thread can watch for the end of the connection.
    pub fn watch(&self) -> Option<OwnedFd> {
        self.stream.as_fd().try_clone_to_owned().ok()
    }
}

/// Whether `fd` has something to read, or was hung up, within `milliseconds`.
pub fn readable(fd: &impl AsFd, milliseconds: i64) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).is_ok_and(|n| n > 0)
}

/// Tries until somebody listens there.
fn connect(meeting: &Meeting) -> Result<UnixStream, ChannelError> {
    let started = Instant::now();
    loop {
        match UnixStream::connect(&meeting.path) {
            Ok(stream) => return Ok(stream),
            Err(e) if meeting.patience.is_some_and(|p| started.elapsed() >= p) => {
                return Err(ChannelError::Connect(meeting.path.clone(), e));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A listening socket; removed when this is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Listener {
    /// Listens at `path`. A socket that a dead process left behind is replaced; any other file is somebody's.
    pub fn bind(path: &Path) -> Result<Listener, ChannelError> {
        let is_socket = || std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        let is_left_behind = || is_socket() && UnixStream::connect(path).is_err();
        let bound = match UnixListener::bind(path) {
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && is_left_behind() => {
                std::fs::remove_file(path).and_then(|()| UnixListener::bind(path))
            }
            other => other,
        };
        match bound {
            Ok(socket) => Ok(Listener { socket, path: path.to_path_buf() }),
            Err(e) => Err(ChannelError::Listen(path.to_path_buf(), e)),
        }
    }

    /// Waits for a connection, for so long if not for ever.
    pub fn accept(&self, patience: Option<Duration>) -> Result<Channel, ChannelError> {
        let started = Instant::now();
        while !readable(&self.socket, 50) {
            if let Some(patience) = patience.filter(|p| started.elapsed() >= *p) {
                return Err(ChannelError::Nobody(self.path.clone(), patience.as_secs_f64()));
            }
        }
        match self.socket.accept() {
            Ok((stream, _)) => Channel::patient(stream),
            Err(e) => Err(ChannelError::Listen(self.path.clone(), e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Channel, Channel) {
        let (a, b) = UnixStream::pair().expect("a socket pair");
        (Channel::over(a), Channel::over(b))
    }

    #[test]
    fn a_question_and_its_answer() {
        let (mut front, mut back) = pair();
        let answer = std::thread::spawn(move || {
            let asked = back.receive().expect("the question");
            assert_eq!(asked.request, request::GET_FEATURES);
            back.send(&Message::reply(asked.request, &7u64.to_ne_bytes()), &[]).expect("the answer");
            back
        });
        assert_eq!(front.ask(request::GET_FEATURES, &[]).expect("an answer").u64(0), Some(7));
        answer.join().expect("no panic");
    }

    #[test]
    fn descriptors_travel() {
        let (mut front, mut back) = pair();
        let file = tempfile::tempfile().expect("a file");
        front.tell(request::SET_VRING_KICK, &1u64.to_ne_bytes(), &[file.as_fd()], false).expect("sent");
        let got = back.receive().expect("received");
        assert_eq!((got.u64(0), got.fds.len()), (Some(1), 1));
    }

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        std::fs::write(&path, "somebody's").expect("written");
        assert!(matches!(Listener::bind(&path), Err(ChannelError::Listen(..))));
        assert_eq!(std::fs::read(&path).expect("still there"), b"somebody's");
        std::fs::remove_file(&path).expect("removed");

        drop(UnixListener::bind(&path).expect("left behind"));
        let listener = Listener::bind(&path).expect("replaced");
        assert!(matches!(Listener::bind(&path), Err(ChannelError::Listen(..))));
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn refusals_and_rubbish_are_errors() {
        let (mut front, mut back) = pair();
        back.send(&Message::reply(request::SET_MEM_TABLE, &1u64.to_ne_bytes()), &[]).expect("sent");
        let refused = front.tell(request::SET_MEM_TABLE, &[], &[], true);
        assert!(matches!(refused, Err(ChannelError::Refused("SET_MEM_TABLE"))), "{refused:?}");
        (&back.stream).write_all(&[0xff; 12]).expect("sent");
        assert!(matches!(front.receive(), Err(ChannelError::Malformed(_))));
        drop(back);
        assert!(matches!(front.receive(), Err(ChannelError::Closed(_))));
    }
}
