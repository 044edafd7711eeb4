//! Between a frontend's socket and the backend's: passes messages and file descriptors on, and does two things
//! that DPDK's virtio-user has no switch for. It takes feature bits out of the backend's answer to
//! GET_FEATURES, as a frontend that does not know them would. And it keeps SET_VRING_ENABLE back until told:
//! virtio-user enables its first pair and posts buffers before it is ready, and then throws away what has come
//! into them (`virtqueue_rxvq_flush` in `virtio_dev_start`), so what is to arrive whole must come later.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Bytes of a message's header: code, flags and payload length, 32 bits each.
const HEADER: usize = 12;
const GET_FEATURES: u32 = 1;
const SET_VRING_ENABLE: u32 = 18;

/// A message with what came along.
struct Message {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// What is kept back, while it is.
#[derive(Default)]
struct Gate {
    open: bool,
    kept: Vec<(Arc<UnixStream>, Message)>,
}

/// The way in for frontends; lives as long as the test.
pub struct Relay {
    gate: Arc<Mutex<Gate>>,
}

impl Relay {
    /// Listens on `front`; each frontend is connected to `back`, without the features in `mask`.
    pub fn start(front: &Path, back: &Path, mask: u64) -> Relay {
        let listener = UnixListener::bind(front).expect("a socket");
        let back: PathBuf = back.to_owned();
        let gate = Arc::new(Mutex::new(Gate::default()));
        let shared = gate.clone();
        std::thread::spawn(move || {
            for frontend in listener.incoming() {
                let frontend = Arc::new(frontend.expect("a frontend"));
                let backend = Arc::new(UnixStream::connect(&back).expect("the backend"));
                let (from, to, gate) = (frontend.clone(), backend.clone(), shared.clone());
                std::thread::spawn(move || pump(&from, &to, |message| keep(&gate, &to, message)));
                std::thread::spawn(move || {
                    pump(&backend, &frontend, |mut message| {
                        message.mask_features(mask);
                        message.send(&frontend)
                    });
                });
            }
        });
        Relay { gate }
    }

    /// Rings may be enabled from now on; those that were to be, are.
    pub fn open(&self) {
        let mut gate = self.gate.lock().expect("the gate");
        gate.open = true;
        for (to, message) in gate.kept.drain(..) {
            message.send(&to).expect("a backend that listens");
        }
    }
}

/// Passes a frontend's message on, or keeps it. The lock keeps messages whole.
fn keep(gate: &Mutex<Gate>, to: &Arc<UnixStream>, message: Message) -> Option<()> {
    let mut gate = gate.lock().expect("the gate");
    if message.code() == SET_VRING_ENABLE && !gate.open {
        gate.kept.push((to.clone(), message));
        return Some(());
    }
    message.send(to)
}

/// Passes messages on until either side closes, and then closes the other.
fn pump(from: &UnixStream, to: &UnixStream, mut pass: impl FnMut(Message) -> Option<()>) {
    while Message::receive(from).and_then(&mut pass).is_some() {}
    for stream in [from, to] {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}

impl Message {
    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"))
    }

    fn code(&self) -> u32 {
        self.word(0)
    }

    fn mask_features(&mut self, mask: u64) {
        if self.code() == GET_FEATURES
            && let Ok(features) = self.bytes[HEADER..].try_into().map(u64::from_ne_bytes)
        {
            self.bytes[HEADER..].copy_from_slice(&(features & !mask).to_ne_bytes());
        }
    }

    fn receive(from: &UnixStream) -> Option<Message> {
        let mut message = Message { bytes: Vec::new(), fds: Vec::new() };
        message.extend(from, HEADER)?;
        let payload = message.word(8) as usize;
        message.extend(from, payload)?;
        Some(message)
    }

    /// Reads `more` bytes, and takes what descriptors come with them.
    #[allow(unsafe_code, reason = "takes over received file descriptors")]
    fn extend(&mut self, from: &UnixStream, more: usize) -> Option<()> {
        let mut done = self.bytes.len();
        self.bytes.resize(done + more, 0);
        while done < self.bytes.len() {
            let mut space = nix::cmsg_space!([RawFd; 8]);
            let mut parts = [IoSliceMut::new(&mut self.bytes[done..])];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let received = recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
            for control in received.cmsgs().ok()? {
                if let ControlMessageOwned::ScmRights(fds) = control {
                    // SAFETY: the kernel has just made these descriptors for us; nobody else knows them.
                    self.fds.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            if received.bytes == 0 {
                return None;
            }
            done += received.bytes;
        }
        Some(())
    }

    fn send(&self, to: &UnixStream) -> Option<()> {
        let fds: Vec<RawFd> = self.fds.iter().map(OwnedFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        let parts = [IoSlice::new(&self.bytes)];
        let sent = sendmsg::<()>(to.as_raw_fd(), &parts, rights, MsgFlags::MSG_NOSIGNAL, None).ok()?;
        (sent == self.bytes.len()).then_some(())
    }
}
