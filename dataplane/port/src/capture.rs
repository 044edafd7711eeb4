//! Captures: copies of the frames that pass a port, for whoever wants to look at them.
//!
//! A [`Capture`] says of which port, which frames, and how much of each. Whoever owns queues of that port has a [`Tap`]
//! for it among the lane's [`Taps`], runs the filter there, and puts copies into a ring of memory; a thread of its
//! own [reads](Capture::read) them. What finds no room in the ring is counted and not copied: nobody waits for the
//! reader, and no packet is held up or lost for it.

mod filter;
mod ring;
mod taps;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::counters::{Counter, Shared, shared};

pub use filter::{BadProgram, Instruction, Program};
pub use ring::Record;
pub use taps::{Side, Taps, Watcher};

use ring::{Ring, Writer};

/// Bytes of the rings of one capture, if its port has few pairs: there is one for each lane.
const MEMORY: usize = 8 << 20;
/// A ring has room for some of the longest frames, and a burst of ordinary ones.
const RING: std::ops::RangeInclusive<usize> = 256 << 10..=4 << 20;
/// Bytes that a capture may copy in a turn of a lane: more than bursts of the longest ordinary frames, one each way.
/// A NIC that makes one packet of many may hand out far more, and a ring may have room for it.
const TURN: usize = 2 << 20;
/// Records read from one ring before it is the next one's turn.
const BATCH: usize = 256;

/// Which way a frame goes: the datapath's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Into the datapath. From a guest: it sent it.
    Rx,
    /// Out of it.
    Tx,
}

/// What is wanted of a capture.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The port.
    pub port: String,
    /// One queue pair of it; all if absent.
    pub queue: Option<u16>,
    /// One direction; both if absent.
    pub direction: Option<Direction>,
    /// Only frames that it wants.
    pub filter: Option<Program>,
    /// Bytes to keep of each frame, at most.
    pub snaplen: u32,
}

/// What a pair has come to, since the capture began.
#[derive(Debug, Default)]
pub struct Counts {
    /// Frames that passed in a direction that is wanted.
    pub seen: Counter,
    /// Those of them that the filter wants, or that there was no time to show to it.
    pub matched: Counter,
    /// Those of these that found no room, or no time, and are not captured.
    pub dropped: Counter,
}

/// A capture, shared by its taps and its reader.
pub struct Capture {
    wanted: Wanted,
    /// By pair.
    counts: Box<[Shared<Counts>]>,
    rings: Mutex<Rings>,
    ring_bytes: usize,
}

#[derive(Default)]
struct Rings {
    all: Vec<Arc<Ring>>,
    /// The writers of those that nobody writes to.
    spare: Vec<Writer>,
}

/// A lane's end of a capture: the ring it writes to. It goes to another lane when this one is no more.
pub struct Tap {
    capture: Arc<Capture>,
    /// There is one until it is dropped.
    writer: Option<Writer>,
    /// Bytes that it may still copy in this turn.
    left: usize,
}

impl Capture {
    /// A capture of a port that has so many queue pairs.
    pub fn new(wanted: Wanted, pairs: u16) -> Arc<Capture> {
        let counts = (0..pairs).map(|_| shared()).collect();
        let ring_bytes = (MEMORY / usize::from(pairs.max(1))).clamp(*RING.start(), *RING.end());
        Arc::new(Capture { wanted, counts, rings: Mutex::default(), ring_bytes })
    }

    /// What is wanted.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// What was seen so far, by queue pair.
    pub fn counts(&self) -> &[Shared<Counts>] {
        &self.counts
    }

    /// Hands out what was captured, up to some hundred frames; of each queue in the order in which they passed. Whether
    /// there was anything. For one thread.
    pub fn read(&self, each: &mut impl FnMut(Record<'_>)) -> bool {
        let mut space = Vec::new();
        let rings = self.rings().all.clone();
        let counts = rings.iter().map(|ring| ring.read(BATCH, &mut space, each));
        counts.sum::<usize>() > 0
    }

    /// A tap for one more lane.
    fn tap(self: &Arc<Capture>) -> Tap {
        let mut rings = self.rings();
        let writer = rings.spare.pop().unwrap_or_else(|| {
            let (ring, writer) = Ring::new(self.ring_bytes);
            rings.all.push(ring);
            writer
        });
        Tap { capture: self.clone(), writer: Some(writer), left: TURN }
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tap {
    fn wants(&self, pair: u16, direction: Direction) -> bool {
        let Wanted { queue, direction: only, .. } = &self.capture.wanted;
        queue.is_none_or(|queue| queue == pair) && only.is_none_or(|only| only == direction)
    }

    /// Puts a copy of a frame into the ring, if it is wanted, and there is time and room. `data` gives it as a whole,
    /// for which so many bytes have to be copied; there is none in `frame` yet.
    fn see<'a>(&mut self, frame: Record<'a>, to_copy: usize, data: impl FnOnce() -> &'a [u8]) {
        let Tap { capture, writer, left } = self;
        let Capture { wanted, counts, .. } = &**capture;
        let Some(counts) = counts.get(usize::from(frame.pair)) else { return };
        counts.seen.add(1);
        if !take(left, to_copy) {
            counts.matched.add(1);
            counts.dropped.add(1);
            return;
        }
        let data = data();
        if !wanted.filter.as_ref().is_none_or(|filter| filter.wants(data, frame.len)) {
            return;
        }
        counts.matched.add(1);
        let data = &data[..data.len().min(wanted.snaplen as usize)];
        // A frame is charged once.
        let affordable = take(left, data.len().saturating_sub(to_copy));
        if !(affordable && writer.as_mut().is_some_and(|writer| writer.push(&Record { data, ..frame }))) {
            counts.dropped.add(1);
        }
    }
}

/// Takes so many bytes of those that are `left`, if there are as many. Whether there are.
fn take(left: &mut usize, bytes: usize) -> bool {
    let rest = left.checked_sub(bytes);
    *left = rest.unwrap_or(*left);
    rest.is_some()
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.capture.rings().spare.extend(self.writer.take());
    }
}

#[cfg(test)]
mod tests;
