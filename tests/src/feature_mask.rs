//! A frontend that does not know some feature bits: DPDK's virtio-user has no switch for most of them. A
//! relay between the two sockets takes the bits out of the backend's answer to GET_FEATURES, and leaves all
//! else, file descriptors included, as it is.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Bytes of a message's header: code, flags and payload length, 32 bits each.
const HEADER: usize = 12;
const GET_FEATURES: u32 = 1;

/// Listens on `front`; each frontend is connected to `back`, without the features in `mask`.
pub fn relay(front: &Path, back: &Path, mask: u64) {
    let listener = UnixListener::bind(front).expect("a socket");
    let back: PathBuf = back.to_owned();
    std::thread::spawn(move || {
        for frontend in listener.incoming() {
            let frontend = frontend.expect("a frontend");
            let backend = UnixStream::connect(&back).expect("the backend");
            let (from, to) = (copy(&frontend), copy(&backend));
            std::thread::spawn(move || pump(&from, &to, 0));
            std::thread::spawn(move || pump(&backend, &frontend, mask));
        }
    });
}

fn copy(stream: &UnixStream) -> UnixStream {
    stream.try_clone().expect("a copy of a socket")
}

/// Passes messages on until either side closes, and then closes the other.
fn pump(from: &UnixStream, to: &UnixStream, mask: u64) {
    while pass_one(from, to, mask).is_some() {}
    for stream in [from, to] {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}

fn pass_one(from: &UnixStream, to: &UnixStream, mask: u64) -> Option<()> {
    let mut message = vec![0; HEADER];
    let mut fds = Vec::new();
    receive(from, &mut message, &mut fds)?;
    let word = |at: usize| u32::from_ne_bytes(message[at..at + 4].try_into().expect("four bytes"));
    let (code, length) = (word(0), word(8) as usize);
    message.resize(HEADER + length, 0);
    receive(from, &mut message[HEADER..], &mut fds)?;
    if code == GET_FEATURES && length == 8 {
        let features = u64::from_ne_bytes(message[HEADER..].try_into().expect("eight bytes"));
        message[HEADER..].copy_from_slice(&(features & !mask).to_ne_bytes());
    }
    let raw: Vec<RawFd> = fds.iter().map(OwnedFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(&message)];
    let sent = sendmsg::<()>(to.as_raw_fd(), &parts, rights, MsgFlags::MSG_NOSIGNAL, None).ok()?;
    (sent == message.len()).then_some(())
}

/// Fills `bytes`, and adds what descriptors come with them.
#[allow(unsafe_code, reason = "takes over received file descriptors")]
fn receive(from: &UnixStream, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> Option<()> {
    let mut done = 0;
    while done < bytes.len() {
        let mut space = nix::cmsg_space!([RawFd; 8]);
        let mut parts = [IoSliceMut::new(&mut bytes[done..])];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
        for control in message.cmsgs().ok()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                // SAFETY: the kernel has just made these descriptors for us, and nobody else knows them.
                fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        if message.bytes == 0 {
            return None;
        }
        done += message.bytes;
    }
    Some(())
}
