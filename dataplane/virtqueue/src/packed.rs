//! The packed ring (virtio 1.2, section 2.8), device side. A mirror image of `split.rs`.
#![allow(unsafe_code)] // the three areas are guest memory: `start` checks where they are

use std::iter::repeat;
use std::ops::RangeInclusive;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT,
    VRING_DESC_F_WRITE, VRING_PACKED_EVENT_FLAG_DESC, VRING_PACKED_EVENT_FLAG_DISABLE,
    VRING_PACKED_EVENT_FLAG_ENABLE,
};

use crate::chain::{Latch, MAX_CHAIN, Pieces, add_len};
use crate::offer::Offered;
use crate::ring::area;
use crate::singles::{self, Finder, Singles};
use crate::{Call, Offer, RingConfig, Segment, SetupError, Taken, Token, Violation, Virtqueue};

mod layout;

use layout::{Desc, Descs, Event, KIND, Position, table_entry};

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
/// Descriptors of a cache line: as many are read together.
const LINE: u16 = 4;
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

    /// How many descriptors from `next_avail` on are the guest's to make available.
    #[inline(always)]
    fn open(&self) -> u16 {
        self.config.size.saturating_sub(self.held).saturating_sub(self.hidden)
    }

    /// Takes the chain at `next_avail`, if there is one, all of whose descriptors must have the direction
    /// `WAY`, and adds its pieces to those kept.
    #[inline(always)]
    fn walk<const WAY: u16>(&mut self) -> Result<Option<(Token, u32)>, Violation> {
        let most = self.open().min(MAX_CHAIN);
        if most == 0 {
            return Ok(None);
        }
        let first = self.descs.read(self.next_avail.slot);
        let chain = if first.is_available(self.next_avail) {
            self.read_chain::<WAY>(first, most)
        } else if self.seen == 0 {
            return Ok(None);
        } else {
            Err(Violation::Withdrawn { head: self.next_avail.slot })
        };
        match chain {
            Ok((token, len)) => {
                self.before = (self.next_avail, self.seen, token.descs);
                self.next_avail = self.next_avail.after(token.descs, self.config.size);
                // The others of a chain are not looked at one by one, and may not all have been seen.
                self.seen = self.seen.saturating_sub(token.descs);
                self.held += token.descs;
                Ok(Some((token, len)))
            }
            Err(violation) => Err(self.fail(violation)),
        }
    }

    /// One or two descriptors, the common case, are read without a loop. A chain's id is its last
    /// descriptor's (virtio 1.2, 2.8.6).
    #[inline(always)]
    fn read_chain<const WAY: u16>(&mut self, first: Desc, most: u16) -> Result<(Token, u32), Violation> {
        let slot = self.next_avail.slot;
        if first.flags & KIND == WAY {
            self.pieces.add(slot, first.addr, first.len)?;
            return Ok((Token { id: first.id, descs: 1 }, first.len));
        }
        if first.flags & KIND != WAY | NEXT || most == 1 {
            return self.read_on::<WAY>(first, most, 1, 0);
        }
        let second = self.descs.read(self.next_avail.after(1, self.config.size).slot);
        self.pieces.add(slot, first.addr, first.len)?;
        if second.flags & KIND != WAY {
            return self.read_on::<WAY>(second, most, 2, first.len);
        }
        self.pieces.add(slot, second.addr, second.len)?;
        Ok((Token { id: second.id, descs: 2 }, add_len(slot, first.len, second.len)?))
    }

    /// The rest of a chain of at most `most` descriptors from `desc`, its `descs`th, on, with `len` bytes
    /// before it.
    #[cold]
    fn read_on<const WAY: u16>(
        &mut self,
        mut desc: Desc,
        most: u16,
        mut descs: u16,
        mut len: u32,
    ) -> Result<(Token, u32), Violation> {
        let head = self.next_avail.slot;
        loop {
            if desc.flags & INDIRECT != 0 {
                // An indirect descriptor is a chain of its own (virtio 1.2, 2.8.19).
                if !self.indirect || desc.flags & NEXT != 0 || descs > 1 {
                    return Err(Violation::Indirect { head });
                }
                len = self.read_indirect::<WAY>(head, desc)?;
                return Ok((Token { id: desc.id, descs }, len));
            }
            if desc.flags & WRITE != WAY {
                return Err(Violation::Direction { head });
            }
            self.pieces.add(head, desc.addr, desc.len)?;
            len = add_len(head, len, desc.len)?;
            if desc.flags & NEXT == 0 {
                return Ok((Token { id: desc.id, descs }, len));
            }
            if descs == most {
                return Err(Violation::ChainTooLong { head });
            }
            desc = self.descs.read(self.next_avail.after(descs, self.config.size).slot);
            descs += 1;
        }
    }

    /// An indirect table: its descriptors lie in order, and only their direction counts (virtio 1.2, 2.8.7).
    fn read_indirect<const WAY: u16>(&mut self, head: u16, desc: Desc) -> Result<u32, Violation> {
        let (at, entries) = self.pieces.table(head, desc.addr, desc.len, self.config.size)?;
        if entries > MAX_CHAIN {
            return Err(Violation::ChainTooLong { head });
        }
        let mut len = 0;
        for index in 0..entries {
            // SAFETY: the whole table was just found mapped.
            let entry = unsafe { table_entry(at, index) };
            if entry.flags & INDIRECT != 0 {
                return Err(Violation::Indirect { head });
            }
            // DPDK's driver marks entries of its transmit tables as device-writable.
            // Reading them harms nobody; writing what the guest has not offered for it would.
            if WAY == WRITE && entry.flags & WRITE == 0 {
                return Err(Violation::Direction { head });
            }
            self.pieces.add(head, entry.addr, entry.len)?;
            len = add_len(head, len, entry.len)?;
        }
        Ok(len)
    }

    /// Finds the next chains of one descriptor and one piece, at most `most`, of direction `WAY`, as far as `add` adds
    /// them, and counts them as held.
    #[inline(always)]
    fn find_singles<const WAY: u16>(&mut self, most: usize, mut add: impl FnMut(&mut Finder, Desc) -> bool) {
        let broken = self.latch.broken();
        let most = if broken { 0 } else { most.min(singles::MOST).min(self.open().into()) };
        let PackedRing { descs, singles, pieces, config, .. } = self;
        let mut at = self.next_avail;
        let mut finder = singles.find(pieces.translator());
        while finder.count() < most {
            let here = at.on_this_lap((most - finder.count()) as u16, config.size);
            let found = match here {
                LINE.. => look::<WAY, { LINE as usize }>(descs, at, &mut finder, &mut add),
                _ => look::<WAY, 1>(descs, at, &mut finder, &mut add),
            };
            at = at.after(found, config.size);
            if found < here.min(LINE) && (here >= LINE || found == 0) {
                break;
            }
        }
        let found = finder.finish() as u16;
        self.before = (self.next_avail, self.seen.max(found), 0);
        self.next_avail = at;
        self.seen = self.seen.saturating_sub(found);
        self.held += found;
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

    /// Walks chains for a packet, from `next_avail` on, and moves that on.
    #[inline(always)]
    fn look_for_room(&mut self, len: u32, header: u32, max_chains: u16) -> Result<Offer, Violation> {
        let most = max_chains.min(MAX_CHAIN);
        let (mut offer, mut descs) = (Offer::default(), 0);
        while offer.chains < most {
            let head = self.next_avail.slot;
            let Some((token, room)) = self.walk::<WRITE>()? else {
                // Whether the guest has no descriptor left that it could add.
                offer.all = descs == self.config.size;
                return Ok(offer);
            };
            if offer.chains == 0 && room < header {
                return Err(self.fail(Violation::NoRoom { head, room }));
            }
            descs += token.descs;
            self.offered.add(&token, room);
            offer.chains += 1;
            offer.room = offer.room.saturating_add(room);
            if offer.room >= len {
                return Ok(offer);
            }
        }
        Ok(Offer { all: true, ..offer })
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

/// Looks at `K` descriptors from `at` on, all on one lap: how many of them are of direction `WAY` and were added.
#[inline(always)]
fn look<const WAY: u16, const K: usize>(
    descs: &Descs,
    at: Position,
    finder: &mut Finder<'_>,
    add: &mut impl FnMut(&mut Finder, Desc) -> bool,
) -> u16 {
    let read: [Desc; K] = std::array::from_fn(|k| descs.read(at.slot + k as u16));
    for (k, desc) in read.into_iter().enumerate() {
        if !desc.is(at, WAY) || !add(finder, desc) {
            return k as u16;
        }
    }
    // They are the next to be written, too.
    descs.prefetch(at.slot);
    K as u16
}

#[cfg(test)]
mod tests;
