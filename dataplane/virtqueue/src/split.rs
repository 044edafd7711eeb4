//! The split ring (virtio 1.2, section 2.7), device side.
#![allow(unsafe_code)] // the three areas are guest memory: `start` checks where they are

use std::iter::repeat;
use std::ops::RangeInclusive;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY,
};

use crate::chain::{Latch, Pieces, WRITE};
use crate::offer::Offered;
use crate::ring::area;
use crate::singles::Singles;
use crate::{Call, Offer, RingConfig, Segment, SetupError, Taken, Token, Violation, Virtqueue};

mod avail;
mod layout;

use layout::{Avail, Table, Used};

/// Largest queue size (virtio 1.2, 2.7).
const MAX_SIZE: u16 = 32768;

/// A running split ring. Its operations are those of [`Virtqueue`].
pub struct SplitRing {
    desc: Table,
    avail: Avail,
    used: Used,
    /// Next avail index to take.
    next_avail: u16,
    /// The avail index as last read.
    avail_seen: u16,
    /// Next used index to write.
    next_used: u16,
    /// Used index as the guest sees it.
    published: u16,
    /// Avail index up to which as many chains were published as used as were taken: from here to
    /// `next_avail` they are in flight.
    returned: u16,
    /// One used entry stands for all that are published together: that of this chain, returned last.
    last: Option<u16>,
    event_idx: bool,
    indirect: bool,
    /// No call was decided about yet: the first used entries always call.
    first_call: bool,
    pieces: Pieces,
    singles: Box<Singles>,
    offered: Offered,
    latch: Latch,
    config: RingConfig,
}

impl SplitRing {
    /// Checks size, alignment and mapping of the three areas once, and caches where they are.
    pub fn start(config: RingConfig) -> Result<SplitRing, SetupError> {
        let size = config.size;
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(SetupError::Size(size));
        }
        let base = u16::try_from(config.base).map_err(|_| SetupError::Base(config.base))?;
        let desc = area(&config.memory, "descriptor table", config.desc, Table::len(size), 16)?;
        let avail = area(&config.memory, "avail ring", config.avail, Avail::len(size), 2)?;
        let used = area(&config.memory, "used ring", config.used, Used::len(size), 4)?;
        // SAFETY: alignment and mapping of each were just checked, and the ring holds the memory table that
        // keeps them mapped.
        let (desc, avail, used) =
            unsafe { (Table::new(desc, size, false), Avail::new(avail, size), Used::new(used, size)) };
        let mut ring = SplitRing {
            desc,
            avail,
            used,
            next_avail: base,
            avail_seen: base,
            next_used: 0,
            published: 0,
            returned: base,
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
        // As Linux vhost does: the base says what to take next, the ring itself what was returned last.
        ring.published = ring.used.index();
        ring.next_used = ring.published;
        ring.set_kicks(true);
        Ok(ring)
    }

    #[cold]
    fn fail(&mut self, violation: Violation) -> Violation {
        self.latch.fail(&self.config, violation)
    }

    /// Asks for as many used entries as are about to be written.
    #[inline(always)]
    fn prefetch_used(&self, count: u16) {
        let count = if self.last.is_some() { count.min(1) } else { count };
        self.used.prefetch(self.next_used, count);
    }

    /// Enters the first `count` of the chains found as used, with as many bytes written to each as `lens` says.
    #[inline(always)]
    fn complete_singles(&mut self, count: u16, lens: impl Iterator<Item = u32>) {
        let ids = self.singles.ids(count.into());
        match &mut self.last {
            Some(last) => *last = ids.last().copied().unwrap_or(*last),
            None => self.used.set_entries(self.next_used, ids, lens),
        }
        self.next_used = self.next_used.wrapping_add(count);
    }
}

impl Virtqueue for SplitRing {
    fn config(&self) -> &RingConfig {
        &self.config
    }

    fn base(&self) -> u32 {
        u32::from(self.next_avail)
    }

    fn violation(&self) -> Option<Violation> {
        self.latch.violation()
    }

    fn set_kicks(&mut self, wanted: bool) {
        if self.event_idx {
            // The guest kicks when it passes this index: what was seen but is not taken yet (too little for
            // a packet) must not stand in the way of the next kick. Unwanted kicks are put half a lap
            // away; as nobody moves it on, one kick in 65536 entries remains, into an eventfd that nobody
            // reads. The flags stay 0 (virtio 1.2, 2.7.10.1).
            let event = if wanted { self.avail_seen } else { self.avail_seen.wrapping_add(1 << 15) };
            self.used.set_flags(0);
            self.used.set_avail_event(event);
        } else {
            self.used.set_flags(if wanted { 0 } else { VRING_USED_F_NO_NOTIFY as u16 });
        }
        // Orders the wish before the look at the avail index that must follow it (virtio 1.2, 2.7.10).
        fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn is_idle(&self) -> bool {
        self.avail.index() == self.next_avail
    }

    #[inline(always)]
    fn seen(&self) -> u16 {
        if self.latch.broken() { 0 } else { self.avail_seen.wrapping_sub(self.next_avail) }
    }

    /// Looks at the guest's index only when fewer than `wanted` chains are known of.
    #[inline(always)]
    fn available(&mut self, wanted: u16) -> Result<u16, Violation> {
        if self.latch.broken() {
            return Ok(0);
        }
        let known = self.avail_seen.wrapping_sub(self.next_avail);
        if known >= wanted {
            return Ok(known);
        }
        let seen = self.avail.index();
        if seen == self.avail_seen {
            return Ok(known);
        }
        let ahead = seen.wrapping_sub(self.next_avail);
        let in_flight = self.next_avail.wrapping_sub(self.returned);
        if ahead > self.config.size.wrapping_sub(in_flight) {
            let (from, size) = (self.next_avail, self.config.size);
            return Err(self.fail(Violation::AvailJump { from, to: seen, size }));
        }
        self.avail_seen = seen;
        Ok(ahead)
    }

    #[inline(always)]
    fn take(&mut self) -> Result<Option<Taken<'_>>, Violation> {
        if self.next_avail == self.avail_seen || self.latch.broken() {
            return Ok(None);
        }
        self.pieces.clear();
        let (token, len) = self.walk::<0>()?;
        Ok(Some(Taken { token, len, segments: self.pieces.as_slice() }))
    }

    fn untake(&mut self) {
        self.next_avail = self.next_avail.wrapping_sub(1);
    }

    #[inline(always)]
    fn take_singles(&mut self, most: u16, lens: RangeInclusive<u32>) -> Result<&[Segment], Violation> {
        let most = self.available(most)?.min(most);
        self.prefetch_used(most);
        let lens = (*lens.start()).max(1)..=*lens.end();
        self.find_singles::<0>(most, |finder, id, desc| {
            lens.contains(&desc.len) && finder.add::<false>(id, desc.addr, desc.len)
        });
        self.next_avail = self.next_avail.wrapping_add(self.singles.count() as u16);
        Ok(self.singles.segments())
    }

    #[inline(always)]
    fn return_singles(&mut self, done: u16) {
        let taken = self.singles.count() as u16;
        let done = done.min(taken);
        self.complete_singles(done, repeat(0));
        self.next_avail = self.next_avail.wrapping_sub(taken - done);
        self.singles.clear();
    }

    #[inline(always)]
    fn reserve_singles(&mut self, lens: &[u32]) -> Result<&[Segment], Violation> {
        debug_assert!(!lens.contains(&0));
        let most = self.available(lens.len() as u16)?.min(lens.len() as u16);
        self.prefetch_used(most);
        let mut needs = lens.iter();
        self.find_singles::<WRITE>(most, |finder, id, desc| {
            let fits = needs.next().is_some_and(|need| desc.len >= (*need).max(1));
            fits && finder.add::<true>(id, desc.addr, desc.len)
        });
        let count = self.singles.count() as u16;
        self.complete_singles(count, lens.iter().copied());
        self.next_avail = self.next_avail.wrapping_add(count);
        Ok(self.singles.segments())
    }

    #[inline(always)]
    fn offer(&mut self, len: u32, header: u32, max_chains: u16) -> Result<Offer, Violation> {
        self.decline();
        let next_avail = self.next_avail;
        let offer = self.look_for_room(len, header, max_chains);
        self.next_avail = next_avail;
        if offer.is_err() {
            self.decline();
        }
        offer
    }

    #[inline(always)]
    fn accept(&mut self, len: u32) -> u16 {
        let (mut taken, mut left) = (0, len);
        while taken < self.offered.count() && (left > 0 || taken == 0) {
            let (token, room) = self.offered.chain(taken);
            self.complete(token, room.min(left));
            taken += 1;
            left -= room.min(left);
        }
        self.next_avail = self.next_avail.wrapping_add(taken);
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
        !self.latch.broken() && self.avail.index() != self.avail_seen
    }

    #[inline(always)]
    fn complete(&mut self, token: Token, len: u32) {
        match &mut self.last {
            Some(last) => *last = token.id,
            None => self.used.set_entry(self.next_used, token.id, len),
        }
        self.next_used = self.next_used.wrapping_add(1);
    }

    #[inline(always)]
    fn publish(&mut self) -> Call {
        let (old, new) = (self.published, self.next_used);
        if old == new {
            return Call::Nothing;
        }
        if let Some(last) = self.last {
            // "at an offset matching the first available ring entry in the batch" (virtio 1.2, 2.7.9)
            self.used.set_entry(old, last, 0);
        }
        self.used.publish(new);
        self.published = new;
        self.returned = self.returned.wrapping_add(new.wrapping_sub(old));
        // Orders the used index before the look at the guest's wish; the guest writes its wish, then looks
        // at the used index, so one of the two sees the other (virtio 1.2, 2.7.7).
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let event = self.avail.used_event();
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old) || self.first_call
        } else {
            self.avail.flags() & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0
        };
        self.first_call = false;
        self.config.call_if(wanted)
    }
}

#[cfg(test)]
mod tests;
