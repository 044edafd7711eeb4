//! A lane that is served: what it waits for, and its turns.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use port::capture::Watcher;
use port::guest::{GuestPair, Stop};
use port::socket::SocketPair;

use super::Source;
use super::ready::{GuestReady, SocketReady};
use crate::lane::{Far, Lane, TURN_COST};

/// A lane, and for which of its queues there may be something to do.
pub(super) struct Served {
    pub lane: Lane,
    /// By guest pair.
    guests: Vec<GuestReady>,
    /// By socket pair.
    sockets: Vec<SocketReady>,
}

impl Served {
    /// Everything may be ready: what happened before it was watched told nobody.
    pub fn new(lane: Lane, epoll: &Epoll) -> Served {
        let mut served = Served {
            guests: lane.guests.iter().map(GuestReady::of).collect(),
            sockets: (0..lane.sockets()).map(|_| SocketReady::default()).collect(),
            lane,
        };
        served.watch(epoll);
        served
    }

    fn watch(&mut self, epoll: &Epoll) {
        let id = self.lane.id.0;
        for (source, fd, flags) in sources(&self.lane) {
            let event = EpollEvent::new(flags | EpollFlags::EPOLLET, source.number(id));
            if let Err(errno) = epoll.add(fd, event) {
                tracing::error!("a queue cannot be waited for, and is looked at each millisecond: {errno}");
                self.guests.iter_mut().for_each(|guest| guest.look = Some(Instant::now()));
            }
        }
    }

    /// The lane, of which nobody is told anything any more.
    pub fn let_go(self, epoll: &Epoll) -> Lane {
        for (_, fd, _) in sources(&self.lane) {
            // The frontend has the same eventfds: they would not leave by being closed here.
            let _ = epoll.delete(fd);
        }
        self.lane
    }

    pub fn notice(&mut self, source: Source, events: EpollFlags) {
        match source {
            Source::Sent(k) => {
                self.guests[k].sent = true;
                self.lane.guests[k].kicked()[0].kicks.add(1);
            }
            Source::Room(k) => {
                self.guests[k].room = true;
                self.lane.guests[k].kicked()[1].kicks.add(1);
            }
            Source::Socket(j) => {
                let socket = &mut self.sockets[j];
                // An error is found out by trying.
                let error = events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
                socket.readable |= error || events.contains(EpollFlags::EPOLLIN);
                socket.writable |= error || events.contains(EpollFlags::EPOLLOUT);
            }
            Source::Punt => {}
        }
    }

    /// When to look at something unasked.
    pub fn due(&self) -> Option<Instant> {
        let guests = self.guests.iter().filter_map(|guest| guest.look);
        guests.chain(self.sockets.iter().filter_map(|socket| socket.again)).min()
    }

    /// One turn at every queue that may have something to do. Whether any has more.
    pub fn turn(&mut self) -> bool {
        let now = Instant::now();
        self.guests.iter_mut().for_each(|guest| guest.wake(now));
        self.sockets.iter_mut().for_each(|socket| socket.wake(now));
        let Some(mut taps) = self.lane.taps.take() else { return self.turn_with(&mut ()) };
        let more = self.turn_with(&mut *taps);
        self.lane.taps = Some(taps);
        more
    }

    fn turn_with(&mut self, watcher: &mut impl Watcher) -> bool {
        let Far::Socket(sockets) = &mut self.lane.far else { return false };
        let guests = &mut self.lane.guests;
        let mut more = false;
        for (k, guest) in guests.iter_mut().enumerate() {
            let j = k % sockets.len();
            let ready = (&mut self.guests[k], &mut self.sockets[j]);
            more |= guest_to_socket(guest, &mut sockets[j], ready, watcher);
        }
        for (j, socket) in sockets.iter_mut().enumerate() {
            let k = j % guests.len();
            let ready = (&mut self.guests[k], &mut self.sockets[j]);
            more |= socket_to_guest(&mut guests[k], socket, ready, watcher);
        }
        more
    }
}

/// All that a lane waits for.
fn sources(lane: &Lane) -> Vec<(Source, BorrowedFd<'_>, EpollFlags)> {
    let mut sources = Vec::new();
    for (k, guest) in lane.guests.iter().enumerate() {
        let [sent, room] = guest.kicks();
        sources.extend(sent.map(|kick| (Source::Sent(k), kick.as_fd(), EpollFlags::EPOLLIN)));
        sources.extend(room.map(|kick| (Source::Room(k), kick.as_fd(), EpollFlags::EPOLLIN)));
    }
    if let Far::Socket(sockets) = &lane.far {
        let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        sources.extend(sockets.iter().enumerate().map(|(j, pair)| (Source::Socket(j), pair.fd(), both)));
    }
    sources
}

/// Guest tx virtqueue -> socket. Whether there is more to do at once.
fn guest_to_socket(
    guest: &mut GuestPair,
    socket: &mut SocketPair,
    (from, to): (&mut GuestReady, &mut SocketReady),
    watcher: &mut impl Watcher,
) -> bool {
    if !(from.sent && to.writable) {
        return false;
    }
    guest.poll_sent();
    match watcher.send_to(guest, socket, TURN_COST).stop {
        Stop::Budget => {}
        Stop::SocketFull => to.writable = false,
        Stop::SocketFailed(_) => to.fail(),
        Stop::GuestEmpty => from.sent = guest.wait_for_sent(),
        Stop::SocketEmpty | Stop::Broken => from.sent = false,
    }
    from.sent && to.writable
}

/// Socket -> guest rx virtqueue. Whether there is more to do at once.
fn socket_to_guest(
    guest: &mut GuestPair,
    socket: &mut SocketPair,
    (to, from): (&mut GuestReady, &mut SocketReady),
    watcher: &mut impl Watcher,
) -> bool {
    if !(to.room && from.readable) {
        return false;
    }
    guest.poll_room();
    match watcher.receive_from(guest, socket, TURN_COST).stop {
        Stop::Budget => {}
        Stop::SocketEmpty => from.readable = false,
        Stop::SocketFailed(_) => from.fail(),
        Stop::GuestEmpty => to.room = guest.wait_for_room(),
        Stop::SocketFull | Stop::Broken => to.room = false,
    }
    to.room && from.readable
}
