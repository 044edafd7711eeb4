//! How a worker without work sleeps, and is back for the first packet.
//!
//! After some rounds in vain it asks all guests for kicks and all NICs for interrupts, looks once more, and sleeps
//! until one of them comes. Where one cannot come (a driver without interrupts, a guest without kick eventfd, a full
//! NIC) it looks each millisecond, and after a while each four.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::lane::Lane;

/// Rounds in vain before a nap: a fraction of a millisecond.
const ROUNDS: u32 = 4096;
/// Of these, from when on each is followed by some pauses more.
const SLOW_ROUNDS: u32 = 1024;
const PAUSES: u32 = 16;
/// Naps that nobody would end last a millisecond, and the double after so many in vain, up to four milliseconds.
const SHORT_NAPS: u32 = 64;
const LONGEST: u32 = 2;

/// The bell's event.
const BELL: u64 = u64::MAX;
/// A waker's event is its lane's id, and behind that its number among the lane's.
const LANE_SHIFT: u32 = 16;

/// Wakes a worker, or the slow path: control has something for it.
pub struct Bell(EventFd);

impl Bell {
    /// A bell that nobody hears yet.
    pub fn new() -> io::Result<Bell> {
        Ok(Bell(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?))
    }

    /// Ends the nap, or the next one.
    pub fn ring(&self) {
        // It can only fail when the counter is full, and then it is ringing.
        let _ = self.0.write(1);
    }
}

/// A worker's sleep.
pub struct Nap {
    epoll: Epoll,
    bell: Arc<Bell>,
    /// Rounds in vain, one after the other.
    rounds: u32,
    /// Naps that nobody ended, one after the other.
    naps: u32,
}

impl Nap {
    /// A worker that hears `bell`.
    pub fn new(bell: Arc<Bell>) -> io::Result<Nap> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&bell.0, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        Ok(Nap { epoll, bell, rounds: 0, naps: 0 })
    }

    /// What may wake the worker for a lane. Edge triggered: a kick's eventfd is not read, because the frontend could
    /// make that block.
    pub fn watch(&mut self, lane: &Lane) {
        for (number, (fd, _)) in (lane.id.0 << LANE_SHIFT..).zip(lane.wakers()) {
            let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, number);
            if let Err(errno) = self.epoll.add(fd, event) {
                tracing::error!("a queue cannot wake its worker: {errno}");
            }
        }
        self.rounds = 0;
    }

    /// The lane goes elsewhere.
    pub fn forget(&mut self, lane: &Lane) {
        for (fd, _) in lane.wakers() {
            // The frontend has the same eventfds: they would not leave by being closed here.
            let _ = self.epoll.delete(fd);
        }
    }

    /// Whether to sleep, after a round that was `busy` or not.
    #[inline]
    pub fn is_due(&mut self, busy: bool) -> bool {
        if busy {
            (self.rounds, self.naps) = (0, 0);
            return false;
        }
        self.rounds += 1;
        if self.rounds > SLOW_ROUNDS {
            (0..PAUSES).for_each(|_| std::hint::spin_loop());
        }
        self.rounds >= ROUNDS
    }

    /// Sleeps until there may be something to do. How many packets it moved instead, so many at a time.
    pub fn sleep<'a>(&mut self, lanes: impl Iterator<Item = &'a mut Lane>, burst: u16) -> u64 {
        let mut lanes: Vec<&mut Lane> = lanes.collect();
        let heard = lanes.iter_mut().fold(true, |heard, lane| lane.ask_for_wakers() & heard);
        // What came before that tells nobody. So each lane is looked at once more.
        let moved: u64 = lanes.iter_mut().map(|lane| lane.turn(burst)).sum();
        if moved == 0 {
            let look = EpollTimeout::from(1u8 << (self.naps / SHORT_NAPS).min(LONGEST));
            let timeout = if heard { EpollTimeout::NONE } else { look };
            let mut events = [EpollEvent::empty(); 16];
            let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
            events[..count].iter().for_each(|event| count_kick(&lanes, event.data()));
            if count > 0 {
                let _ = self.bell.0.read();
                (self.rounds, self.naps) = (0, 0);
            } else {
                // Nobody called: one look, and back to sleep.
                (self.rounds, self.naps) = (ROUNDS - 2, self.naps.saturating_add(1));
            }
        } else {
            (self.rounds, self.naps) = (0, 0);
        }
        lanes.into_iter().for_each(Lane::poll_again);
        moved
    }
}

/// Counts what has ended a nap, where that is a guest's kick.
fn count_kick(lanes: &[&mut Lane], event: u64) {
    let lane = lanes.iter().find(|lane| lane.id.0 == event >> LANE_SHIFT);
    let waker = event & ((1 << LANE_SHIFT) - 1);
    let counter = lane.and_then(|lane| lane.wakers().into_iter().nth(waker as usize)?.1);
    counter.into_iter().for_each(|kicks| kicks.add(1));
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
