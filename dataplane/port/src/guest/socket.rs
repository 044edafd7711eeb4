//! Guest virtqueues <-> a kernel socket: the kernel copies from and to the guest's own buffers.
//!
//! Nothing is taken from either side before the other one has room for it, but for one case: the socket tells a
//! frame's length only by handing it out. One that is longer than the buffers that were held out to it is copied to
//! [`SocketPair::held`], and goes on from there once the guest has posted enough; nothing is read meanwhile.

use std::io;

use nix::libc::EIO;
use virtqueue::{Notifier, Virtqueue};

use super::{GuestPair, Moved, Side};
use crate::counters::{DropReason, RingCounters, Sizes};
use crate::socket::{Fault, SocketPair};

mod offload;
mod receive;
mod send;

/// Chains returned that are published together.
const BATCH: u64 = 64;

/// What a turn came to, and why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What was done with: sent on or dropped.
    pub moved: Moved,
    /// Why no more.
    pub stop: Stop,
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The budget is spent.
    Budget,
    /// The guest has sent nothing more, or posted no or not enough receive buffers.
    GuestEmpty,
    /// The socket takes no more for now; it says when it does.
    SocketFull,
    /// The socket has nothing more for now; it says when it has.
    SocketEmpty,
    /// The socket does not work, with this errno: its interface is down or gone, or the kernel is short of memory
    /// (ENOBUFS, ENOMEM). Nothing was lost; whether it works again is found out by trying again after a while.
    SocketFailed(i32),
    /// The guest broke the rules, and its ring is stopped.
    Broken,
}

/// What became of one frame that is not sent on.
pub(super) enum Refused {
    /// It is done with.
    Drop(DropReason),
    /// It stays where it is.
    Stop(Stop),
}

/// What has happened in a turn so far.
struct Progress<'a> {
    /// Where the guest's frames are counted: those it sent, or those it was delivered.
    sizes: &'a Sizes,
    /// Done with: sent on or dropped.
    moved: Moved,
    /// Delivered to the guest, and their bytes.
    delivered: (u64, u64),
    /// Returned to the guest, and not published.
    chains: u64,
    /// How many more frames are expected to be as long as any.
    long: u8,
}

impl GuestPair {
    /// Hands what the guest sent to `socket`, until that has cost `budget` (see [`Moved::cost`]). What the socket
    /// does not take stays with the guest.
    pub fn send_to(&mut self, socket: &mut SocketPair, budget: u64) -> Turn {
        let mut progress = Progress::new(&self.counters.rx.sizes);
        let Side { ring, header, counters, .. } = &mut self.from;
        let ring = ring.as_dyn();
        let outcome = progress.send(ring, header.len(), socket, budget, counters, |reason| {
            self.counters.dropped(reason, 1);
        });
        progress.publish(ring, counters);
        if progress.moved.packets > 0 {
            self.counters.rx.add(progress.moved.packets, progress.moved.bytes);
        }
        let stop = outcome.unwrap_or_else(|violation| {
            self.from.report(&self.name, violation);
            Stop::Broken
        });
        Turn { moved: progress.moved, stop }
    }

    /// Hands what `socket` has received to the guest, until that has cost `budget` (see [`Moved::cost`]). Without
    /// receive buffers the socket is not read.
    pub fn receive_from(&mut self, socket: &mut SocketPair, budget: u64) -> Turn {
        let Side { ring, header, counters, long, .. } = &mut self.to;
        let mut progress = Progress { long: *long, ..Progress::new(&self.counters.tx.sizes) };
        let ring = ring.as_dyn();
        let outcome = progress.receive(ring, header, socket, budget, counters);
        progress.publish(ring, counters);
        *long = progress.long;
        if progress.delivered.0 > 0 {
            self.counters.tx.add(progress.delivered.0, progress.delivered.1);
        }
        let stop = outcome.unwrap_or_else(|violation| {
            self.to.report(&self.name, violation);
            Stop::Broken
        });
        Turn { moved: progress.moved, stop }
    }

    /// Asks the guest for a kick when it sends, and says whether it has already, and would not kick for that.
    pub fn wait_for_sent(&mut self) -> bool {
        let ring = self.from.ring.as_dyn();
        ring.set_kicks(true);
        ring.seen() > 0 || ring.has_news()
    }

    /// Asks the guest for a kick when it posts receive buffers, and says whether it has already, and would not kick
    /// for that. (Buffers that were there before, and were too few, do not count.)
    pub fn wait_for_room(&mut self) -> bool {
        let ring = self.to.ring.as_dyn();
        ring.set_kicks(true);
        ring.has_news()
    }

    /// No kicks when the guest sends: it will be looked at.
    pub fn poll_sent(&mut self) {
        self.from.ring.as_dyn().set_kicks(false);
    }

    /// No kicks when the guest posts receive buffers: it will be looked at.
    pub fn poll_room(&mut self) {
        self.to.ring.as_dyn().set_kicks(false);
    }

    /// The kick eventfds: of the ring the guest sends on, and of the one it receives on.
    pub fn kicks(&self) -> [Option<&Notifier>; 2] {
        [&self.from, &self.to].map(|side| side.ring.config().kick.as_ref())
    }

    /// The counters of the rings that they are for.
    pub fn kicked(&self) -> [&RingCounters; 2] {
        [&self.from, &self.to].map(|side| &**side.counters)
    }
}

impl<'a> Progress<'a> {
    fn new(sizes: &'a Sizes) -> Progress<'a> {
        Progress { sizes, moved: Moved::default(), delivered: (0, 0), chains: 0, long: 0 }
    }

    /// Counts a frame that is done with.
    fn done(&mut self, bytes: usize, cost: u64) {
        self.moved.packets += 1;
        self.moved.bytes += bytes as u64;
        self.moved.cost += cost;
    }

    fn publish(&mut self, ring: &mut dyn Virtqueue, counters: &RingCounters) {
        counters.published(self.chains, ring.publish());
        self.chains = 0;
    }

    fn publish_batch(&mut self, ring: &mut dyn Virtqueue, counters: &RingCounters) {
        if self.chains >= BATCH {
            self.publish(ring, counters);
        }
    }
}

/// What becomes of a frame that the kernel did not take or give.
pub(super) fn refused(error: &io::Error) -> Refused {
    match Fault::of(error) {
        Fault::Again => Refused::Stop(Stop::SocketFull),
        Fault::Frame => Refused::Drop(DropReason::SocketError),
        Fault::Later | Fault::Down | Fault::Gone => {
            Refused::Stop(Stop::SocketFailed(error.raw_os_error().unwrap_or(EIO)))
        }
    }
}

/// Why there is nothing to take.
pub(super) fn idle(ring: &dyn Virtqueue) -> Stop {
    if ring.violation().is_some() { Stop::Broken } else { Stop::GuestEmpty }
}

#[cfg(test)]
mod tests;
