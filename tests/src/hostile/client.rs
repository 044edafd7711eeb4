//! A vhost-user frontend that sends whatever it is told to: raw messages, raw file descriptors.

use std::fmt;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// Codes of messages, by the specification's names.
#[allow(missing_docs, reason = "the specification says what they are")]
pub mod code {
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_LOG_FD: u32 = 7;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SEND_RARP: u32 = 19;
    pub const NET_SET_MTU: u32 = 20;
    pub const SET_BACKEND_REQ_FD: u32 = 21;
    pub const GET_CONFIG: u32 = 24;
    pub const SET_CONFIG: u32 = 25;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const RESET_DEVICE: u32 = 34;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const SET_STATUS: u32 = 39;
    pub const GET_STATUS: u32 = 40;
}

/// Header flag: the protocol's version.
pub const VERSION: u32 = 1;
/// Header flag: this is a reply.
pub const REPLY: u32 = 1 << 2;
/// Header flag: an answer is wanted even where the protocol has none.
pub const NEED_REPLY: u32 = 1 << 3;
/// Bytes of a header: code, flags and payload length, 32 bits each.
pub const HEADER: usize = 12;

/// How long an answer may take: longer than the backend waits for the rest of a message.
const PATIENCE: Duration = Duration::from_secs(8);

/// What came of a message sent with NEED_REPLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was carried out.
    Done,
    /// It was refused with this value.
    Refused(u64),
    /// The backend closed the connection.
    Closed,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Done => write!(f, "ack 0"),
            Answer::Refused(value) => write!(f, "ack {value}"),
            Answer::Closed => write!(f, "hung up"),
        }
    }
}

/// A connection to the backend.
pub struct Client {
    /// The socket.
    pub stream: UnixStream,
}

impl Client {
    /// Connects, and says nothing.
    pub fn connect(socket: &Path) -> Client {
        let stream = UnixStream::connect(socket).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client { stream }
    }

    /// Sends bytes as they are, in one piece, with file descriptors; whether they went out.
    pub fn raw(&self, bytes: &[u8], fds: &[RawFd]) -> bool {
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        let parts = [IoSlice::new(bytes)];
        let sent = sendmsg::<()>(self.stream.as_raw_fd(), &parts, rights, MsgFlags::MSG_NOSIGNAL, None);
        sent == Ok(bytes.len())
    }

    /// Sends a message; whether it went out.
    pub fn send(&self, code: u32, flags: u32, payload: &[u8], fds: &[RawFd]) -> bool {
        self.raw(&message(code, VERSION | flags, payload), fds)
    }

    /// The next reply: its code and payload; `None` if the connection is closed.
    ///
    /// # Panics
    /// If neither comes.
    pub fn reply(&mut self) -> Option<(u32, Vec<u8>)> {
        let mut header = [0; HEADER];
        self.read(&mut header)?;
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
        assert_eq!(word(4), VERSION | REPLY, "flags of a reply");
        let mut payload = vec![0; word(8) as usize];
        self.read(&mut payload)?;
        Some((word(0), payload))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Option<()> {
        let outcome = self.stream.read_exact(bytes);
        if let Err(error) = &outcome {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no answer within {PATIENCE:?}");
        }
        outcome.ok()
    }

    /// Sends a message that asks for an ack.
    pub fn tell(&mut self, code: u32, payload: &[u8], fds: &[RawFd]) -> Answer {
        if !self.send(code, NEED_REPLY, payload, fds) {
            return Answer::Closed;
        }
        match self.reply() {
            None => Answer::Closed,
            Some((answered, payload)) => {
                assert_eq!(answered, code, "an ack is for what it answers");
                match u64::from_ne_bytes(payload.try_into().expect("an ack has eight bytes")) {
                    0 => Answer::Done,
                    value => Answer::Refused(value),
                }
            }
        }
    }

    /// Sends a message whose reply the protocol fixes, and gives that; `None` if the connection is closed.
    pub fn ask(&mut self, code: u32, payload: &[u8]) -> Option<Vec<u8>> {
        self.send(code, 0, payload, &[]);
        let (answered, payload) = self.reply()?;
        assert_eq!(answered, code, "a reply is to what was asked");
        Some(payload)
    }

    /// Whether the backend still serves this connection.
    pub fn is_served(&mut self) -> bool {
        self.ask(code::GET_FEATURES, &[]).is_some_and(|payload| payload.len() == 8)
    }

    /// Waits until the backend has closed the connection; gives what else it sent.
    pub fn until_closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the connection was not closed within {PATIENCE:?}")
            }
            _ => rest,
        }
    }
}

/// A message as bytes.
pub fn message(code: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let mut message = words(&[code, flags, payload.len() as u32]);
    message.extend(payload);
    message
}

/// 32-bit words as bytes.
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// 64-bit words as bytes.
pub fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}
