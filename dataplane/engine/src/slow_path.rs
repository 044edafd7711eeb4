//! The slow path: one thread, event driven, between guests and sockets.
//!
//! It sleeps until a guest kicks or a socket has become readable or writable. What it then does for one queue is
//! bounded by a budget of bytes, as on a worker, and the next queue has its turn. While there is something to do for
//! a queue its kicks are off; before it waits, they are switched on and the ring is looked at once more.
//!
//! All events are edge triggered: nothing is read to rearm them. (An eventfd is shared with the frontend, which can
//! make reading it block.)

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use port::punt::Punt;
use port::socket::SocketPair;

use crate::handle::Handle;
use crate::lane::{Lane, LaneId};
use crate::nap::Bell;

mod punt;
mod ready;
mod served;

use punt::PuntServed;
use served::Served;

/// Events fetched at a time.
const EVENTS: usize = 64;
/// The bell's event.
const WAKE: u64 = u64::MAX;

/// What control asks of the slow path.
enum Command {
    Give(Lane),
    Take(LaneId, Sender<Lane>),
    GivePunt(PuntId, Box<PuntServed>),
    TakePunt(PuntId, Sender<Box<PuntServed>>),
    /// Say that you live.
    Answer(Sender<()>),
}

/// Names an exception path for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PuntId(u64);

/// Control's handle on the slow path. The thread ends when this is dropped.
pub struct SlowPath(Handle<Command>);

impl SlowPath {
    /// Starts the thread.
    pub fn start() -> io::Result<SlowPath> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let bell = Bell::new()?;
        epoll.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, WAKE))?;
        let (commands, inbox) = unbounded();
        let run = move || Runner { epoll, inbox, lanes: BTreeMap::new(), punts: BTreeMap::new() }.run();
        let thread = std::thread::Builder::new().name("slow-path".to_owned()).spawn(run)?;
        Ok(SlowPath(Handle::new("the slow path".to_owned(), commands, Arc::new(bell), thread)))
    }

    /// Gives a lane to the slow path.
    pub fn give(&self, lane: Lane) {
        self.0.send(Command::Give(lane));
    }

    /// Serves the host's side of an exception path from now on.
    pub fn serve_punt(&self, punt: Arc<Punt>, socket: SocketPair) -> PuntId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = PuntId(NEXT.fetch_add(1, Ordering::Relaxed));
        self.0.send(Command::GivePunt(id, Box::new(PuntServed::new(punt, socket))));
        id
    }

    /// Takes the tap of an exception path back. Also, how many packets were taken for the host, and not sent.
    pub fn take_punt(&self, id: PuntId) -> (SocketPair, u64) {
        let served = self.0.fetch(|reply| Command::TakePunt(id, reply));
        (served.socket, served.unsent.is_some().into())
    }

    /// Takes a lane back: nothing is in flight, and every used entry is published.
    pub fn take(&self, id: LaneId) -> Lane {
        self.0.fetch(|reply| Command::Take(id, reply))
    }

    /// Asks for an answer, which comes between two rounds.
    pub fn ask(&self) -> Receiver<()> {
        self.0.ask(Command::Answer)
    }
}

/// The thread's own.
struct Runner {
    epoll: Epoll,
    inbox: Receiver<Command>,
    lanes: BTreeMap<u64, Served>,
    punts: BTreeMap<u64, Box<PuntServed>>,
}

impl Runner {
    fn run(mut self) {
        if let Err(cause) = virtqueue::prepare_to_signal() {
            tracing::warn!("no asynchronous I/O ({cause}): a hostile frontend can block the slow path");
        }
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            loop {
                match self.inbox.try_recv() {
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let mut busy = false;
            for served in self.lanes.values_mut() {
                busy |= served.turn();
            }
            self.punts.values_mut().for_each(|punt| punt.turn());
            let timeout = if busy { EpollTimeout::ZERO } else { self.timeout() };
            let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
            for event in &events[..count] {
                let (id, source) = Source::of(event.data());
                if let Source::Punt = source {
                    self.punts.get_mut(&id).into_iter().for_each(|punt| punt.notice(event.events()));
                } else if let Some(served) = self.lanes.get_mut(&id) {
                    served.notice(source, event.events());
                }
            }
        }
    }

    /// Until the first queue that no event will tell of has to be looked at.
    fn timeout(&self) -> EpollTimeout {
        let punts = self.punts.values().filter_map(|punt| punt.due());
        let due = self.lanes.values().filter_map(Served::due).chain(punts).min();
        let Some(due) = due else { return EpollTimeout::NONE };
        let left = due.saturating_duration_since(Instant::now());
        // Rounded up: else it would be looked at in vain until then.
        EpollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(EpollTimeout::MAX)
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Give(lane) => {
                let served = Served::new(lane, &self.epoll);
                self.lanes.insert(served.lane.id.0, served);
            }
            Command::GivePunt(PuntId(id), served) => {
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                for fd in served.sources() {
                    if let Err(errno) = self.epoll.add(fd, EpollEvent::new(flags, Source::Punt.number(id))) {
                        tracing::error!("an exception path cannot be waited for: {errno}");
                    }
                }
                self.punts.insert(id, served);
            }
            Command::TakePunt(PuntId(id), reply) => {
                if let Some(served) = self.punts.remove(&id) {
                    for fd in served.sources() {
                        let _ = self.epoll.delete(fd);
                    }
                    let _ = reply.send(served);
                }
            }
            Command::Take(id, reply) => {
                if let Some(served) = self.lanes.remove(&id.0) {
                    let _ = reply.send(served.let_go(&self.epoll));
                }
            }
            Command::Answer(reply) => {
                let _ = reply.send(());
            }
        }
    }
}

/// What an event is about.
#[derive(Clone, Copy)]
enum Source {
    /// Guest pair k has sent something.
    Sent(usize),
    /// Guest pair k has room.
    Room(usize),
    /// Socket j.
    Socket(usize),
    /// Either side of an exception path.
    Punt,
}

/// An event's number: lane or exception path, pair, and which of the sources. A guest has 128 pairs at most.
const PAIR_BITS: u32 = 8;

impl Source {
    fn number(self, id: u64) -> u64 {
        let (kind, pair) = match self {
            Source::Sent(k) => (0, k),
            Source::Room(k) => (1, k),
            Source::Socket(j) => (2, j),
            Source::Punt => (3, 0),
        };
        ((id << PAIR_BITS | pair as u64) << 2) | kind
    }

    fn of(number: u64) -> (u64, Source) {
        let pair = (number >> 2) as usize & ((1 << PAIR_BITS) - 1);
        let source = match number & 3 {
            0 => Source::Sent(pair),
            1 => Source::Room(pair),
            2 => Source::Socket(pair),
            _ => Source::Punt,
        };
        (number >> 2 >> PAIR_BITS, source)
    }
}
