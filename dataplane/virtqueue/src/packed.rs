//! The packed ring (virtio 1.2, section 2.8), device side. A mirror image of `split.rs`.
#![allow(unsafe_code)] // the three areas are guest memory: `start` checks where they are

use std::iter::repeat;
use std::ops::RangeInclusive;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_PACKED_EVENT_FLAG_DESC,
    VRING_PACKED_EVENT_FLAG_DISABLE, VRING_PACKED_EVENT_FLAG_ENABLE,
};

use crate::chain::{Latch, Pieces, WRITE};
use crate::offer::Offered;
use crate::ring::area;
use crate::singles::Singles;
use crate::{Call, Offer, RingConfig, Segment, SetupError, Taken, Token, Violation, Virtqueue};

mod avail;
mod layout;

use layout::{Descs, Event, Position};

/// Largest queue size (virtio 1.2, 2.8.10.1).
const MAX_SIZE: u16 = 32768;

/// A running packed ring. Its operations are those of [`Virtqueue`].
///
/// From `next_used` to `next_avail` are as many descriptors as are `held` or `hidden`. The guest may not
/// touch these; so there are never more than the ring has, and none of them is looked at again.
pub struct PackedRing {
    descs: Descs,
    /// Says when the guest wants a call.
    driver: Event,
    /// Says when we want a kick.
    device: Event,
    /// Next descriptor to take.
    next_avail: Position,
    /// Descriptors seen to be available from `next_avail` on.
    seen: u16,
    /// Descriptors of chains that were taken and not returned.
    held: u16,
    /// What `next_avail` and `seen` were before the chain taken last, and how many descriptors that has.
    before: (Position, u16, u16),
    /// Next descriptor to write as used.
    next_used: Position,
    /// First used descriptor that the guest does not see yet, and its flags: the last to be written.
    first_used: Option<(Position, u16)>,
    /// Descriptors of chains that were returned and are not seen by the guest yet.
    hidden: u16,
    /// One used descriptor stands for all that are published together: that of this chain, returned last.
    last: Option<u16>,
    event_idx: bool,
    indirect: bool,
    /// No call was decided about yet: the first used descriptors always call.
    first_call: bool,
    pieces: Pieces,
    singles: Box<Singles>,
    offered: Offered,
    latch: Latch,
    config: RingConfig,
}

impl PackedRing {
    /// Checks size, alignment and mapping of the three areas once, and caches where they are.
    pub fn start(config: RingConfig) -> Result<PackedRing, SetupError> {
        let size = config.size;
        if !(1..=MAX_SIZE).contains(&size) {
            return Err(SetupError::PackedSize(size));
        }
        let next_avail = Position::from_bits(config.base as u16);
        let next_used = match (config.base >> 16) as u16 {
            0 => next_avail,
            bits => Position::from_bits(bits),
        };
        // What lies between was taken by another, and is not known here: it stays held for ever.
        let held = next_avail.distance(next_used, size);
        let (true, true, Some(held)) = (next_avail.slot < size, next_used.slot < size, held) else {
            return Err(SetupError::Base(config.base));
        };
        let descs = area(&config.memory, "descriptor ring", config.desc, Descs::len(size), 16)?;
        let driver = area(&config.memory, "driver event suppression", config.avail, Event::LEN, 4)?;
        let device = area(&config.memory, "device event suppression", config.used, Event::LEN, 4)?;
        // SAFETY: alignment and mapping of each were just checked, and the ring holds the memory table that
        // keeps them mapped. Every slot is that of a position: less than the size here and after each step.
        let (descs, driver, device) =
            unsafe { (Descs::new(descs, size), Event::new(driver), Event::new(device)) };
        let mut ring = PackedRing {
            descs,
            driver,
            device,
            next_avail,
            seen: 0,
            held,
            before: (next_avail, 0, 0),
            next_used,
            first_used: None,
            hidden: 0,
            last: config.is_batched().then_some(0),
            event_idx: config.has(VIRTIO_RING_F_EVENT_IDX),
            indirect: config.has(VIRTIO_RING_F_INDIRECT_DESC),
            first_call: true,
            pieces: Pieces::new(config.memory.clone()),
            singles: Singles::new(),
            offered: Offered::new(size),
            latch: Latch::default(),
            config,
        };
        ring.set_kicks(true);
        Ok(ring)
    }

    #[cold]
    fn fail(&mut self, violation: Violation) -> Violation {
        self.latch.fail(&self.config, violation)
    }

    /// Returns the first `count` of the chains found as used, with as many bytes written to each as `lens` says.
    #[inline(always)]
    fn complete_singles<const WAY: u16>(&mut self, count: u16, mut lens: impl Iterator<Item = u32>) {
        let size = self.config.size;
        let (mut at, mut done) = (self.next_used, 0);
        if let (Some(last), [.., id]) = (&mut self.last, self.singles.ids(count.into())) {
            *last = *id;
            self.first_used.get_or_insert((at, at.used()));
            (at, done) = (at.after(count, size), count);
        } else if count > 0 && self.first_used.is_none() {
            self.write_used(at, self.singles.ids(1)[0], lens.next().unwrap_or(0));
            (at, done) = (at.after(1, size), 1);
        }
        while done < count {
            let here = at.on_this_lap(count - done, size);
            let ids = &self.singles.ids(count.into())[usize::from(done)..][..usize::from(here)];
            // As those of the descriptors: what was to be written was (virtio 1.2, 2.8.4).
            let flags = at.used() | WAY;
            for ((slot, id), len) in (at.slot..).zip(ids).zip(&mut lens) {
                self.descs.set_hidden(slot, *id, len, flags);
            }
            (at, done) = (at.after(here, size), done + here);
        }
        self.next_used = at;
        self.held -= count;
        self.hidden += count;
    }

    /// Writes a used descriptor, but for the flags of the first that is not published.
    #[inline(always)]
    fn write_used(&mut self, at: Position, id: u16, len: u32) {
        let flags = used_flags(at, len);
        self.descs.set_used(at.slot, id, len);
        if self.first_used.is_some() {
            // Ordered by `publish`.
            self.descs.set_flags(at.slot, flags, Ordering::Relaxed);
        } else {
            self.first_used = Some((at, flags));
        }
    }

    /// Whether the guest wants a call for what was used from `old` to `new` (virtio 1.2, 2.8.10).
    #[inline(always)]
    fn wants_call(&self, old: Position, new: Position) -> bool {
        let (event, flags) = self.driver.read();
        match flags {
            VRING_PACKED_EVENT_FLAG_DISABLE => false,
            VRING_PACKED_EVENT_FLAG_DESC if self.event_idx => {
                self.first_call || Position::passed(event, old, new, self.config.size)
            }
            _ => true,
        }
    }
}

impl Virtqueue for PackedRing {
    fn config(&self) -> &RingConfig {
        &self.config
    }

    /// Both halves are the same if nothing is held.
    fn base(&self) -> u32 {
        u32::from(self.next_avail.bits()) | u32::from(self.next_used.bits()) << 16
    }

    fn violation(&self) -> Option<Violation> {
        self.latch.violation()
    }

    fn set_kicks(&mut self, wanted: bool) {
        // The guest kicks when it makes this descriptor available: what was seen but is not taken yet (too
        // little for a packet) must not stand in the way of the next kick.
        let next = self.next_avail.after(self.seen, self.config.size);
        let flags = match wanted {
            false => VRING_PACKED_EVENT_FLAG_DISABLE,
            true if self.event_idx => VRING_PACKED_EVENT_FLAG_DESC,
            true => VRING_PACKED_EVENT_FLAG_ENABLE,
        };
        self.device.write(next, flags);
        // Orders the wish before the look at the descriptors that must follow it (virtio 1.2, 2.8.21.3).
        fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn is_idle(&self) -> bool {
        !self.descs.is_available(self.next_avail)
    }

    #[inline(always)]
    fn seen(&self) -> u16 {
        if self.latch.broken() { 0 } else { self.seen }
    }

    /// Counts descriptors: a chain may take up several.
    #[inline(always)]
    fn available(&mut self, wanted: u16) -> Result<u16, Violation> {
        if self.latch.broken() {
            return Ok(0);
        }
        let most = wanted.min(self.open());
        if self.seen < most {
            let behind = self.next_avail.after(self.seen, self.config.size);
            self.seen += self.descs.available(behind, most - self.seen);
        }
        Ok(self.seen)
    }

    #[inline(always)]
    fn take(&mut self) -> Result<Option<Taken<'_>>, Violation> {
        if self.seen == 0 || self.latch.broken() {
            return Ok(None);
        }
        self.pieces.clear();
        let taken = self.walk::<0>()?;
        Ok(taken.map(|(token, len)| Taken { token, len, segments: self.pieces.as_slice() }))
    }

    fn untake(&mut self) {
        let (next_avail, seen, descs) = self.before;
        self.before.2 = 0;
        (self.next_avail, self.seen) = (next_avail, seen);
        self.held = self.held.saturating_sub(descs);
    }

    #[inline(always)]
    fn take_singles(&mut self, most: u16, lens: RangeInclusive<u32>) -> Result<&[Segment], Violation> {
        let lens = (*lens.start()).max(1)..=*lens.end();
        self.find_singles::<0>(most.into(), |finder, desc| {
            lens.contains(&desc.len) && finder.add::<false>(desc.id, desc.addr, desc.len)
        });
        Ok(self.singles.segments())
    }

    #[inline(always)]
    fn return_singles(&mut self, done: u16) {
        let taken = self.singles.count() as u16;
        let done = done.min(taken);
        self.complete_singles::<0>(done, repeat(0));
        if done < taken {
            let (first, seen, _) = self.before;
            self.next_avail = first.after(done, self.config.size);
            self.seen = seen - done;
            self.held -= taken - done;
        }
        self.singles.clear();
    }

    #[inline(always)]
    fn reserve_singles(&mut self, lens: &[u32]) -> Result<&[Segment], Violation> {
        debug_assert!(!lens.contains(&0));
        let mut needs = lens.iter();
        self.find_singles::<WRITE>(lens.len(), |finder, desc| {
            let fits = needs.next().is_some_and(|need| desc.len >= (*need).max(1));
            fits && finder.add::<true>(desc.id, desc.addr, desc.len)
        });
        self.complete_singles::<WRITE>(self.singles.count() as u16, lens.iter().copied());
        Ok(self.singles.segments())
    }

    #[inline(always)]
    fn offer(&mut self, len: u32, header: u32, max_chains: u16) -> Result<Offer, Violation> {
        self.decline();
        if self.latch.broken() {
            return Ok(Offer::default());
        }
        let (next_avail, seen, held) = (self.next_avail, self.seen, self.held);
        let offer = self.look_for_room(len, header, max_chains);
        // What was walked was seen: the next kick is wanted for what comes behind it.
        self.seen = seen.max(self.held - held);
        (self.next_avail, self.held) = (next_avail, held);
        if offer.is_err() {
            self.decline();
        }
        offer
    }

    /// Only now are descriptors written: a used one takes the place of one that was available.
    #[inline(always)]
    fn accept(&mut self, len: u32) -> u16 {
        let (mut taken, mut left) = (0, len);
        while taken < self.offered.count() && (left > 0 || taken == 0) {
            let (token, room) = self.offered.chain(taken);
            self.next_avail = self.next_avail.after(token.descs, self.config.size);
            self.seen = self.seen.saturating_sub(token.descs);
            self.held += token.descs;
            self.complete(token, room.min(left));
            taken += 1;
            left -= room.min(left);
        }
        self.offered.clear();
        taken
    }

    #[inline(always)]
    fn decline(&mut self) {
        self.offered.clear();
        self.pieces.clear();
    }

    #[inline(always)]
    fn segments(&self) -> &[Segment] {
        self.pieces.as_slice()
    }

    #[inline(always)]
    fn has_news(&self) -> bool {
        !self.latch.broken()
            && self.seen < self.open()
            && self.descs.is_available(self.next_avail.after(self.seen, self.config.size))
    }

    /// The guest looks at one descriptor after the other, so as long as the first one's flags are not
    /// written it sees none of them (virtio 1.2, 2.8.2 and 2.8.9).
    #[inline(always)]
    fn complete(&mut self, token: Token, len: u32) {
        // A token of another ring must not lead beyond what is held, and so into what is the guest's.
        let descs = token.descs.min(self.held);
        debug_assert_eq!(descs, token.descs, "a chain was returned that was not taken");
        if descs == 0 {
            return;
        }
        let at = self.next_used;
        if let Some(last) = &mut self.last {
            *last = token.id;
            self.first_used.get_or_insert((at, at.used()));
        } else {
            self.write_used(at, token.id, len);
        }
        self.held -= descs;
        self.hidden += descs;
        self.next_used = at.after(descs, self.config.size);
    }

    #[inline(always)]
    fn publish(&mut self) -> Call {
        let Some((first, flags)) = self.first_used.take() else {
            return Call::Nothing;
        };
        self.hidden = 0;
        if let Some(last) = self.last {
            // In the first one's place; the guest knows how many there are (virtio 1.2, 2.8.8).
            self.descs.set_used(first.slot, last, 0);
        }
        // Release: orders all used descriptors, and the data in the buffers, before the flags that show
        // them.
        self.descs.set_flags(first.slot, flags, Ordering::Release);
        // Orders the used descriptors before the look at the guest's wish; the guest writes its wish, then
        // looks at the descriptors, so one of the two sees the other (virtio 1.2, 2.8.21.3).
        fence(Ordering::SeqCst);
        let wanted = self.wants_call(first, self.next_used);
        self.first_call = false;
        self.config.call_if(wanted)
    }
}

/// Flags of a used descriptor: WRITE says that its length counts (virtio 1.2, 2.8.4).
#[inline(always)]
fn used_flags(at: Position, len: u32) -> u16 {
    at.used() | if len > 0 { WRITE } else { 0 }
}

#[cfg(test)]
mod tests;
