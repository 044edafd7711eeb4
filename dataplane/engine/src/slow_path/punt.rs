//! The host's side of an exception path.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use dpdk::mbuf::Mbuf;
use nix::sys::epoll::EpollFlags;
use port::guest::Stop;
use port::punt::Punt;
use port::socket::SocketPair;

use super::ready::SocketReady;

/// The host's side of an exception path.
pub(super) struct PuntServed {
    punt: Arc<Punt>,
    pub socket: SocketPair,
    /// Taken from the queue, and not accepted by the socket yet.
    pub unsent: Option<Mbuf>,
    /// There may be something for the host.
    waiting: bool,
    socket_ready: SocketReady,
}

impl PuntServed {
    pub fn new(punt: Arc<Punt>, socket: SocketPair) -> PuntServed {
        PuntServed { punt, socket, unsent: None, waiting: true, socket_ready: SocketReady::default() }
    }

    pub fn sources(&self) -> [BorrowedFd<'_>; 2] {
        [self.punt.bell(), self.socket.fd()]
    }

    /// The bell, or the socket: which of them does not matter, a look at both costs little.
    pub fn notice(&mut self, events: EpollFlags) {
        self.waiting = true;
        self.socket_ready.readable |= events.contains(EpollFlags::EPOLLIN);
        self.socket_ready.writable |= events.contains(EpollFlags::EPOLLOUT);
    }

    /// When to look at the socket unasked.
    pub fn due(&self) -> Option<Instant> {
        self.socket_ready.again
    }

    pub fn turn(&mut self) {
        let ready = &mut self.socket_ready;
        ready.wake(Instant::now());
        if self.waiting && ready.writable {
            match self.punt.give_host(&mut self.socket, &mut self.unsent) {
                Stop::SocketFull => ready.writable = false,
                Stop::SocketFailed(_) => ready.fail(),
                _ => self.waiting = false,
            }
        }
        if ready.readable {
            match self.punt.take_from_host(&mut self.socket) {
                Stop::SocketFailed(_) => ready.fail(),
                _ => ready.readable = false,
            }
        }
    }
}
