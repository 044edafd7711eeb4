//! The split ring (virtio 1.2, section 2.7), device side.
#![allow(unsafe_code)] // the three areas are guest memory, reached through pointers checked at start

use std::iter::repeat;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT,
    VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, VRING_USED_F_NO_NOTIFY,
};

use crate::chain::{DESC_LEN, Latch, MAX_CHAIN, Pieces, add_len};
use crate::offer::Offered;
use crate::ring::area;
use crate::singles::{self, Finder, Singles};
use crate::{Call, Offer, RingConfig, Segment, SetupError, Taken, Token, Violation, Virtqueue, prefetch};

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
/// Largest queue size (virtio 1.2, 2.7).
const MAX_SIZE: u16 = 32768;

/// A descriptor, read once (virtio 1.2, 2.7.5).
#[derive(Clone, Copy)]
struct Desc {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// Half a descriptor, or a used entry. Indirect tables need not be aligned, and entries are to 4 bytes only,
/// hence `packed`.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Word(u64);

/// A table of descriptors: the ring's own, or an indirect one.
#[derive(Clone, Copy)]
struct Table {
    at: *const Word,
    size: u16,
    indirect: bool,
}

impl Table {
    /// Reads descriptor `index` out of guest memory: each half once, never looked at again.
    ///
    /// # Safety
    ///
    /// `index` is less than `size`, and the table is mapped.
    #[inline(always)]
    unsafe fn read(self, index: u16) -> Desc {
        // SAFETY: by the caller's promise both words lie in the mapped table; `Word` asks for no alignment.
        let (addr, rest) = unsafe {
            let at = self.at.add(2 * usize::from(index));
            (at.read_volatile().0, at.add(1).read_volatile().0)
        };
        Desc { addr, len: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
    }
}

/// The avail ring: written by the guest, but for the avail event at the used ring's end (virtio 1.2, 2.7.6).
#[derive(Clone, Copy)]
struct Avail {
    at: *const u16,
    size: u16,
}

/// The used ring: written by us, but for what the guest does against the rules (virtio 1.2, 2.7.8).
struct Used {
    at: *mut u16,
    size: u16,
}

// The accessors below are the only places that touch the two rings. Each relies on `SplitRing::start`
// having checked that the whole area, event word included, is mapped and aligned, and on the ring holding
// the memory table that keeps it so.
impl Avail {
    const fn len(size: u16) -> u64 {
        6 + 2 * size as u64
    }

    #[inline(always)]
    fn flags(&self) -> u16 {
        // SAFETY: word 0 of a checked area.
        unsafe { self.at.read_volatile() }
    }

    /// Acquire: orders the read of the index before the reads of the entries and descriptors it publishes.
    #[inline(always)]
    fn index(&self) -> u16 {
        // SAFETY: word 1 of a checked, aligned area.
        unsafe { AtomicU16::from_ptr(self.at.add(1).cast_mut()) }.load(Ordering::Acquire)
    }

    #[inline(always)]
    fn entry(&self, index: usize) -> u16 {
        // SAFETY: the slot is masked to the ring's size.
        unsafe { self.at.add(2 + (index & usize::from(self.size - 1))).read_volatile() }
    }

    /// The used index after which the guest wants a call (virtio 1.2, 2.7.7.1).
    #[inline(always)]
    fn used_event(&self) -> u16 {
        // SAFETY: the word behind the entries is part of the checked area.
        unsafe { self.at.add(2 + usize::from(self.size)).read_volatile() }
    }
}

impl Used {
    const fn len(size: u16) -> u64 {
        6 + 8 * size as u64
    }

    fn set_flags(&self, flags: u16) {
        // SAFETY: word 0 of a checked area.
        unsafe { self.at.write_volatile(flags) }
    }

    fn index(&self) -> u16 {
        // SAFETY: word 1 of a checked area.
        unsafe { self.at.add(1).read_volatile() }
    }

    /// Release: orders the entries, and the data in the buffers, before the index that publishes them.
    #[inline(always)]
    fn publish(&self, index: u16) {
        // SAFETY: word 1 of a checked, aligned area.
        unsafe { AtomicU16::from_ptr(self.at.add(1)) }.store(index, Ordering::Release)
    }

    #[inline(always)]
    fn set_entry(&self, index: u16, head: u16, len: u32) {
        let slot = 1 + 2 * usize::from(index & (self.size - 1));
        let entry = Word(u64::from(head) | u64::from(len) << 32);
        // SAFETY: the slot is masked to the ring's size; `Word` asks for no alignment.
        unsafe { self.at.cast::<u32>().add(slot).cast::<Word>().write_volatile(entry) }
    }

    /// Asks for the lines of `count` entries from `index` on: the guest has read them last.
    #[inline(always)]
    fn prefetch(&self, index: u16, count: u16) {
        const ENTRIES: u16 = (prefetch::LINE / size_of::<Word>()) as u16;
        for ahead in (0..count).step_by(ENTRIES.into()) {
            let slot = usize::from(index.wrapping_add(ahead) & (self.size - 1));
            prefetch::write_line(self.at.wrapping_add(2 + 4 * slot).cast());
        }
    }

    /// Writes entries from `index` on: chains `heads` with their lengths.
    #[inline(always)]
    fn set_entries(&self, index: u16, heads: &[u16], mut lens: impl Iterator<Item = u32>) {
        let first = index & (self.size - 1);
        let to_the_end = heads.len().min(usize::from(self.size - first));
        // Up to the ring's end, and from its start.
        let (before, behind) = heads.split_at(to_the_end);
        for (slot, heads) in [(first, before), (0, behind)] {
            for ((slot, head), len) in (usize::from(slot)..).zip(heads).zip(&mut lens) {
                let entry = Word(u64::from(*head) | u64::from(len) << 32);
                // SAFETY: there are fewer chains than the ring has entries, so the slot is less than its size.
                unsafe { self.at.cast::<u32>().add(1).cast::<Word>().add(slot).write_volatile(entry) }
            }
        }
    }

    /// The avail index at which we want a kick (virtio 1.2, 2.7.10).
    fn set_avail_event(&self, index: u16) {
        // SAFETY: the word behind the entries is part of the checked area.
        unsafe { self.at.add(2 + 4 * usize::from(self.size)).write_volatile(index) }
    }
}

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

// SAFETY: the pointers lead into guest memory that `config.memory` keeps mapped; a ring has one owner, and
// may change threads as a whole.
unsafe impl Send for SplitRing {}

impl SplitRing {
    /// Checks size, alignment and mapping of the three areas once, and caches where they are.
    pub fn start(config: RingConfig) -> Result<SplitRing, SetupError> {
        let size = config.size;
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(SetupError::Size(size));
        }
        let base = u16::try_from(config.base).map_err(|_| SetupError::Base(config.base))?;
        let desc_len = u64::from(DESC_LEN) * u64::from(size);
        let desc = area(&config.memory, "descriptor table", config.desc, desc_len, 16)?;
        let avail = area(&config.memory, "avail ring", config.avail, Avail::len(size), 2)?;
        let used = area(&config.memory, "used ring", config.used, Used::len(size), 4)?;
        let mut ring = SplitRing {
            desc: Table { at: desc.cast(), size, indirect: false },
            avail: Avail { at: avail.cast(), size },
            used: Used { at: used.cast(), size },
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

    /// Takes the chain at `next_avail`, all of whose descriptors must have the direction `WAY`, and adds
    /// its pieces to those kept.
    #[inline(always)]
    fn walk<const WAY: u16>(&mut self) -> Result<(Token, u32), Violation> {
        match self.read_chain::<WAY>() {
            Ok(chain) => {
                self.next_avail = self.next_avail.wrapping_add(1);
                Ok(chain)
            }
            Err(violation) => Err(self.fail(violation)),
        }
    }

    /// One or two descriptors, the common case, are read without a loop.
    #[inline(always)]
    fn read_chain<const WAY: u16>(&mut self) -> Result<(Token, u32), Violation> {
        let id = self.avail.entry(self.next_avail.into());
        let size = self.config.size;
        if id >= size {
            return Err(Violation::Head { at: self.next_avail, head: id, size });
        }
        // SAFETY: the head was compared to the table's size; the table is mapped as long as the ring lives.
        let first = unsafe { self.desc.read(id) };
        if first.flags == WAY {
            self.pieces.add(id, first.addr, first.len)?;
            return Ok((Token { id, descs: 1 }, first.len));
        }
        if first.flags != WAY | NEXT || first.next >= size {
            let (descs, len) = self.read_on::<WAY>(id, self.desc, first, 1, 0)?;
            return Ok((Token { id, descs }, len));
        }
        // SAFETY: next was compared to the table's size.
        let second = unsafe { self.desc.read(first.next) };
        self.pieces.add(id, first.addr, first.len)?;
        if second.flags != WAY {
            let (descs, len) = self.read_on::<WAY>(id, self.desc, second, 2, first.len)?;
            return Ok((Token { id, descs }, len));
        }
        self.pieces.add(id, second.addr, second.len)?;
        Ok((Token { id, descs: 2 }, add_len(id, first.len, second.len)?))
    }

    /// The rest of a chain from `desc`, its `descs`th in `table`, on, with `len` bytes before it. Returns
    /// how many descriptors of the table the chain has, and its length.
    #[cold]
    fn read_on<const WAY: u16>(
        &mut self,
        head: u16,
        table: Table,
        mut desc: Desc,
        mut descs: u16,
        mut len: u32,
    ) -> Result<(u16, u32), Violation> {
        loop {
            if descs > table.size.min(MAX_CHAIN) {
                return Err(Violation::ChainTooLong { head });
            }
            if desc.flags & INDIRECT != 0 {
                return Ok((descs, self.read_indirect::<WAY>(head, table, desc, len)?));
            }
            if desc.flags & WRITE != WAY {
                return Err(Violation::Direction { head });
            }
            self.pieces.add(head, desc.addr, desc.len)?;
            len = add_len(head, len, desc.len)?;
            if desc.flags & NEXT == 0 {
                return Ok((descs, len));
            }
            let (next, size) = (desc.next, table.size);
            if next >= size {
                return Err(Violation::Next { head, next, size });
            }
            // SAFETY: next was compared to the table's size; the table is mapped.
            desc = unsafe { table.read(next) };
            descs += 1;
        }
    }

    /// An indirect table in place of the rest of the chain (virtio 1.2, 2.7.5.3).
    fn read_indirect<const WAY: u16>(
        &mut self,
        head: u16,
        table: Table,
        desc: Desc,
        len: u32,
    ) -> Result<u32, Violation> {
        if !self.indirect || desc.flags & NEXT != 0 || table.indirect {
            return Err(Violation::Indirect { head });
        }
        let (at, size) = self.pieces.table(head, desc.addr, desc.len, self.config.size)?;
        let table = Table { at: at.cast(), size, indirect: true };
        // SAFETY: the table has at least one entry, and all of it was just found mapped.
        let first = unsafe { table.read(0) };
        let (_, len) = self.read_on::<WAY>(head, table, first, 1, len)?;
        Ok(len)
    }

    /// Finds the next chains of one piece, at most `most`, of direction `WAY`, as far as `add` adds them.
    #[inline(always)]
    fn find_singles<const WAY: u16>(
        &mut self,
        most: u16,
        mut add: impl FnMut(&mut Finder, u16, Desc) -> bool,
    ) {
        let SplitRing { desc: table, avail, singles, pieces, next_avail, .. } = self;
        let (next, table, avail) = (usize::from(*next_avail), *table, *avail);
        let mut finder = singles.find(pieces.translator());
        while finder.count() < usize::from(most).min(singles::MOST) {
            let id = avail.entry(next + finder.count());
            if id >= table.size {
                break;
            }
            // SAFETY: just compared; the table is mapped as long as the ring lives.
            let desc = unsafe { table.read(id) };
            if desc.flags != WAY || !add(&mut finder, id, desc) {
                break;
            }
        }
        finder.finish();
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

    /// Walks chains for a packet, from `next_avail` on, and moves that on.
    #[inline(always)]
    fn look_for_room(&mut self, len: u32, header: u32, max_chains: u16) -> Result<Offer, Violation> {
        let most = max_chains.min(MAX_CHAIN);
        let (mut offer, mut descs) = (Offer::default(), 0);
        while offer.chains < most {
            if self.available(1)? == 0 {
                // Whether the guest has no descriptor left that it could add.
                offer.all = descs >= u32::from(self.config.size);
                return Ok(offer);
            }
            let (token, room) = self.walk::<WRITE>()?;
            if offer.chains == 0 && room < header {
                return Err(self.fail(Violation::NoRoom { head: token.id, room }));
            }
            descs += u32::from(token.descs);
            self.offered.add(&token, room);
            offer.chains += 1;
            offer.room = offer.room.saturating_add(room);
            if offer.room >= len {
                return Ok(offer);
            }
        }
        Ok(Offer { all: true, ..offer })
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
