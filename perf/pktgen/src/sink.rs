//! A queue that receives: each frame's stamp is read where the device wrote it, and its buffer offered again.

use crate::frame::{self, Checker, KEY_WORD, LENGTH_WORD, MIN, SEQUENCE, TIMESTAMP, stated_length};
use crate::generator::Generator;
use crate::kick::Kick;
use crate::ring::driver::{Each, Ring, UNKNOWN};
use crate::ring::{HEADER_LEN, Pool, Slot, WRITE};
use crate::track::Tracker;

/// A packet that takes several buffers, as far as it has come.
#[derive(Debug)]
struct Partial {
    left: u16,
    length: usize,
    stamp: Option<(u64, u64, u32, usize)>,
    checker: Checker,
    fits: bool,
}

/// A receive queue with its buffers.
#[derive(Debug)]
pub struct Sink {
    /// The virtqueue.
    pub ring: Ring,
    pool: Pool,
    kick: Kick,
    mergeable: bool,
    checksum: bool,
    partial: Option<Partial>,
    /// Counting: buffers of the current frame that are still to come.
    further: u16,
    /// Frames received since the last arming, of whatever kind.
    pub frames: u64,
    /// Echo: frames that were longer than what can be sent.
    pub too_long: u64,
}

impl Sink {
    /// A queue whose buffers are offered by [`Sink::open`].
    pub fn new(mut ring: Ring, pool: Pool, kick: Kick, mergeable: bool, checksum: bool) -> Sink {
        ring.fill(|slot| pool.describe(slot, pool.room(), WRITE));
        Sink { ring, pool, kick, mergeable, checksum, partial: None, further: 0, frames: 0, too_long: 0 }
    }

    /// Offers all buffers.
    pub fn open(&mut self) {
        self.ring.offer(self.ring.free());
        self.kick.after(&mut self.ring);
    }

    /// Receives up to `max` buffers. How many.
    #[inline(always)]
    pub fn receive(&mut self, max: u32, now: u64, tracker: &mut Tracker) -> u32 {
        let Sink { ring, pool, partial, mergeable, checksum, .. } = self;
        let plain = !*mergeable && !*checksum;
        tracker.burst(now);
        let mut bytes = 0;
        let mut unusual =
            Unusual { pool, partial, mergeable: *mergeable, checksum: *checksum, count: 0, further: 0 };
        let each = Receiver { pool, plain, tracker: &mut *tracker, bytes: &mut bytes, unusual: &mut unusual };
        let taken = ring.take(max, each);
        let Unusual { count, further, .. } = unusual;
        if taken > 0 {
            self.frames += u64::from(taken - further);
            tracker.usual(u64::from(taken - count), bytes);
            self.again(taken);
        }
        taken
    }

    /// Receives up to `max` buffers, and counts frames without looking at them. How many buffers.
    pub fn count(&mut self, max: u32) -> u32 {
        let Sink { ring, pool, mergeable, further, .. } = self;
        let mut frames = 0;
        let taken = if *mergeable {
            ring.take(max, |slot: Slot, _: u32| {
                if *further == 0 {
                    frames += 1;
                    *further = pool.buffers(slot).max(1);
                }
                *further -= 1;
            })
        } else {
            frames = ring.take(max, |_: Slot, _: u32| {});
            frames
        };
        if taken > 0 {
            self.frames += u64::from(frames);
            self.again(taken);
        }
        taken
    }

    /// Offers the buffers again.
    #[inline(always)]
    fn again(&mut self, count: u32) {
        self.ring.offer(count);
        self.kick.after(&mut self.ring);
    }

    /// Sends up to `max` received frames back, with their MAC addresses swapped.
    pub fn echo(&mut self, max: u32, to: &mut Generator) -> u32 {
        let room = to.room(max).min(max);
        let Sink { ring, pool, partial, mergeable, .. } = self;
        let (mut frames, mut too_long) = (0, 0);
        let taken = ring.take(room, |slot: Slot, length: u32| {
            let mut part = partial.take().unwrap_or_else(|| Partial::new(pool, *mergeable, slot));
            let bytes = part.bytes(pool, slot, length as usize);
            part.fits &= to.draft(part.length, bytes);
            if part.length == 0 && bytes.len() >= 12 {
                let mut macs = [0; 12];
                macs.copy_from_slice(&bytes[..12]);
                frame::swap_macs(&mut macs);
                to.draft(0, &macs);
            }
            part.length += bytes.len();
            part.left = part.left.saturating_sub(1);
            if part.left > 0 {
                *partial = Some(part);
                return;
            }
            frames += 1;
            if part.fits && to.ring.free() > 0 {
                to.send_draft(part.length);
            } else {
                too_long += 1;
            }
        });
        if taken > 0 {
            (self.frames, self.too_long) = (self.frames + frames, self.too_long + too_long);
            to.notify();
            self.again(taken);
        }
        taken
    }
}

impl Partial {
    fn new(pool: &Pool, mergeable: bool, slot: Slot) -> Partial {
        let left = if mergeable { pool.buffers(slot).max(1) } else { 1 };
        Partial { left, length: 0, stamp: None, checker: Checker::default(), fits: true }
    }

    /// The frame's bytes in a buffer of which the device wrote `written`.
    fn bytes<'a>(&self, pool: &'a Pool, slot: Slot, written: usize) -> &'a [u8] {
        if self.length == 0 {
            pool.bytes(slot, false, written.saturating_sub(HEADER_LEN))
        } else {
            pool.bytes(slot, true, written)
        }
    }
}

/// What [`Sink::receive`] does with each buffer.
struct Receiver<'a, 'b> {
    pool: &'a Pool,
    /// One buffer a packet, and checksums are not looked at.
    plain: bool,
    tracker: &'a mut Tracker,
    bytes: &'a mut u64,
    unusual: &'a mut Unusual<'b>,
}

impl Each for Receiver<'_, '_> {
    #[inline(always)]
    fn each(&mut self, slot: Slot, length: u32) {
        let pool = self.pool;
        let frame = (length as usize).wrapping_sub(HEADER_LEN);
        let stated = stated_length(pool.u32(slot, LENGTH_WORD));
        if frame == stated && frame >= MIN && (self.plain || self.unusual.is_not(slot)) {
            let key = frame::key_of(pool.u64(slot, KEY_WORD));
            let (timestamp, sequence) = (pool.u64(slot, TIMESTAMP), pool.u32(slot, SEQUENCE));
            if self.tracker.next(key, timestamp, sequence) {
                *self.bytes += frame as u64;
                return;
            }
        }
        self.unusual.buffer(slot, frame, self.tracker);
    }
}

/// All buffers that are not one packet with a good stamp and the number that was expected.
struct Unusual<'a> {
    pool: &'a Pool,
    partial: &'a mut Option<Partial>,
    mergeable: bool,
    checksum: bool,
    /// Of these, so far.
    count: u32,
    /// Of these, a packet's further buffers.
    further: u32,
}

impl Unusual<'_> {
    /// Whether a buffer is a packet by itself, and need not be summed up.
    #[inline(always)]
    fn is_not(&self, slot: Slot) -> bool {
        !self.checksum && self.partial.is_none() && (!self.mergeable || self.pool.buffers(slot) == 1)
    }

    #[inline(never)]
    fn buffer(&mut self, slot: Slot, length: usize, tracker: &mut Tracker) {
        let pool = self.pool;
        let first = self.partial.is_none();
        self.count += 1;
        self.further += u32::from(!first);
        let mut part = self.partial.take().unwrap_or_else(|| Partial::new(pool, self.mergeable, slot));
        // A batch that was used with one used entry does not say how long the others are: the frame does.
        let written = if length == (UNKNOWN as usize).wrapping_sub(HEADER_LEN) {
            stated_length(pool.u32(slot, LENGTH_WORD)) + HEADER_LEN
        } else {
            length.wrapping_add(HEADER_LEN)
        };
        let bytes = part.bytes(pool, slot, written);
        if self.checksum {
            part.checker.add(bytes);
        }
        part.length += bytes.len();
        if first && bytes.len() >= MIN {
            let stated = stated_length(pool.u32(slot, LENGTH_WORD));
            let key = frame::key_of(pool.u64(slot, KEY_WORD));
            part.stamp = Some((key, pool.u64(slot, TIMESTAMP), pool.u32(slot, SEQUENCE), stated));
        }
        part.left = part.left.saturating_sub(1);
        if part.left > 0 {
            *self.partial = Some(part);
            return;
        }
        match part.stamp {
            Some((key, timestamp, sequence, stated)) if frame::split_key(key).is_some() => {
                if stated != part.length || (self.checksum && !part.checker.good()) {
                    tracker.counts.corrupt += 1;
                } else {
                    tracker.packet(key, timestamp, sequence, part.length);
                }
            }
            _ => tracker.counts.foreign += 1,
        }
    }
}
