//! The split ring (virtio 1.2, section 2.7), device side.
#![allow(unsafe_code)] // the three areas are guest memory, reached through pointers checked at start

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT,
    VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, VRING_USED_F_NO_NOTIFY,
};

use crate::memory::Translator;
use crate::{Call, Memory, Reservation, RingConfig, Segment, SetupError, Violation};

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
/// Bytes of a descriptor (virtio 1.2, 2.7.5).
const DESC_LEN: u32 = 16;
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

/// Half a descriptor as the guest wrote it. An indirect table need not be aligned, hence `packed`.
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
    fn entry(&self, index: u16) -> u16 {
        // SAFETY: the slot is masked to the ring's size.
        unsafe { self.at.add(2 + usize::from(index & (self.size - 1))).read_volatile() }
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
        // SAFETY: the slot is masked to the ring's size; the ring is aligned to 4 bytes.
        unsafe {
            let entry = self.at.cast::<u32>().add(slot);
            entry.write_volatile(u32::from(head));
            entry.add(1).write_volatile(len);
        }
    }

    /// The avail index at which we want a kick (virtio 1.2, 2.7.10).
    fn set_avail_event(&self, index: u16) {
        // SAFETY: the word behind the entries is part of the checked area.
        unsafe { self.at.add(2 + 4 * usize::from(self.size)).write_volatile(index) }
    }
}

/// A running split ring.
///
/// Chains are taken with [`take`](SplitRing::take) (guest sends) or [`reserve`](SplitRing::reserve) (guest
/// receives), returned with [`complete`](SplitRing::complete), and shown to the guest, all at once, by
/// [`publish`](SplitRing::publish).
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
    event_idx: bool,
    indirect: bool,
    /// No call was decided about yet: the first used entries always call.
    first_call: bool,
    translator: Translator,
    /// Pieces of the chains taken last.
    segments: Box<[Segment]>,
    pieces: usize,
    violation: Option<Violation>,
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
        let has = |bit: u32| config.features & 1 << bit != 0;
        let mut ring = SplitRing {
            desc: Table { at: desc.cast(), size, indirect: false },
            avail: Avail { at: avail.cast(), size },
            used: Used { at: used.cast(), size },
            next_avail: base,
            avail_seen: base,
            next_used: 0,
            published: 0,
            returned: base,
            event_idx: has(VIRTIO_RING_F_EVENT_IDX),
            indirect: has(VIRTIO_RING_F_INDIRECT_DESC),
            first_call: true,
            translator: Translator::new(config.memory.clone()),
            segments: vec![Segment::EMPTY; usize::from(size) + SPARE_PIECES].into(),
            pieces: 0,
            violation: None,
            config,
        };
        // As Linux vhost does: the base says what to take next, the ring itself what was returned last.
        ring.published = ring.used.index();
        ring.next_used = ring.published;
        ring.set_kicks(true);
        Ok(ring)
    }

    /// Virtqueue index.
    pub fn index(&self) -> u16 {
        self.config.index
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.config.size
    }

    /// Feature bits the ring was started with.
    pub fn features(&self) -> u64 {
        self.config.features
    }

    /// Next avail index: where a ring started in this one's place goes on.
    pub fn base(&self) -> u32 {
        u32::from(self.next_avail)
    }

    /// Whether virtio 1 was negotiated (it settles the virtio-net header's length).
    pub fn is_version_1(&self) -> bool {
        self.config.features & 1 << VIRTIO_F_VERSION_1 != 0
    }

    /// What the guest did, if the ring was stopped for it.
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }

    /// Asks the guest to kick when it publishes more than was seen so far, or not to kick. With EVENT_IDX
    /// a wish is good for one kick; ask again before each wait, and look at
    /// [`has_news`](SplitRing::has_news) after asking.
    pub fn set_kicks(&mut self, wanted: bool) {
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

    /// How many chains can be taken. Looks at the guest's index only when fewer than `wanted` are known of.
    #[inline(always)]
    pub fn available(&mut self, wanted: u16) -> Result<u16, Violation> {
        if self.violation.is_some() {
            return Ok(0);
        }
        let known = self.avail_seen.wrapping_sub(self.next_avail);
        if known >= wanted {
            return Ok(known);
        }
        let seen = self.avail.index();
        let ahead = seen.wrapping_sub(self.next_avail);
        let in_flight = self.next_avail.wrapping_sub(self.returned);
        if ahead > self.config.size.wrapping_sub(in_flight) {
            let (from, size) = (self.next_avail, self.config.size);
            return Err(self.fail(Violation::AvailJump { from, to: seen, size }));
        }
        self.avail_seen = seen;
        Ok(ahead)
    }

    /// Takes the next chain of device-readable buffers: its head, its length in bytes, and where it is.
    /// Ask [`available`](SplitRing::available) first.
    #[inline(always)]
    pub fn take(&mut self) -> Result<(u16, u32, &[Segment]), Violation> {
        debug_assert_ne!(self.next_avail, self.avail_seen);
        self.pieces = 0;
        let (head, len) = self.walk::<0>()?;
        Ok((head, len, &self.segments[..self.pieces]))
    }

    /// Puts the chain taken last back: it was not completed, and will be taken again.
    pub fn untake(&mut self) {
        self.next_avail = self.next_avail.wrapping_sub(1);
    }

    /// Takes as many chains of device-writable buffers as `len` bytes need, at most `max_chains`, and
    /// enters them as used; [`segments`](SplitRing::segments) then says where they are. The first must
    /// have room for `header` bytes. Unless it answers `Ready`, nothing was taken.
    #[inline(always)]
    pub fn reserve(&mut self, len: u32, header: u32, max_chains: u16) -> Result<Reservation, Violation> {
        let (avail, used) = (self.next_avail, self.next_used);
        self.pieces = 0;
        let outcome = self.reserve_chains(len, header, max_chains);
        if !matches!(outcome, Ok(Reservation::Ready(_))) {
            (self.next_avail, self.next_used) = (avail, used);
            self.pieces = 0;
        }
        outcome
    }

    #[inline(always)]
    fn reserve_chains(&mut self, len: u32, header: u32, max_chains: u16) -> Result<Reservation, Violation> {
        let (mut chains, mut left, mut least) = (0, len, header);
        while chains < max_chains {
            if self.available(1)? == 0 {
                let all = chains == self.config.size;
                return Ok(if all { Reservation::TooSmall } else { Reservation::Short });
            }
            let (head, room) = self.walk::<WRITE>()?;
            if room < least {
                return Err(self.fail(Violation::NoRoom { head, room }));
            }
            chains += 1;
            self.complete(head, room.min(left));
            left -= room.min(left);
            if left == 0 {
                return Ok(Reservation::Ready(chains));
            }
            least = 1;
        }
        Ok(Reservation::TooSmall)
    }

    /// Where the chains taken last are.
    #[inline(always)]
    pub fn segments(&self) -> &[Segment] {
        &self.segments[..self.pieces]
    }

    /// Whether the guest has published anything since the avail index was last read; a stopped ring has no
    /// news.
    #[inline(always)]
    pub fn has_news(&self) -> bool {
        self.violation.is_none() && self.avail.index() != self.avail_seen
    }

    /// Returns chain `head` as used, with `len` bytes written to it. The guest sees it after `publish`.
    #[inline(always)]
    pub fn complete(&mut self, head: u16, len: u32) {
        self.used.set_entry(self.next_used, head, len);
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Shows all returned chains to the guest, and calls it if it wants that: once a burst.
    #[inline(always)]
    pub fn publish(&mut self) -> Call {
        let (old, new) = (self.published, self.next_used);
        if old == new {
            return Call::Nothing;
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
        match &self.config.call {
            Some(call) if wanted => {
                call.signal();
                Call::Sent
            }
            _ => Call::Suppressed,
        }
    }

    /// Stops the ring for good: nothing more is available, and the frontend is told.
    #[cold]
    fn fail(&mut self, violation: Violation) -> Violation {
        if self.violation.is_none() {
            self.violation = Some(violation);
            if let Some(err) = &self.config.err {
                err.signal();
            }
        }
        violation
    }

    /// Takes the chain at `next_avail`, all of whose descriptors must have the direction `WAY`, and adds
    /// its pieces to `segments`. One or two descriptors, the common case, are read without a loop.
    #[inline(always)]
    fn walk<const WAY: u16>(&mut self) -> Result<(u16, u32), Violation> {
        let head = self.avail.entry(self.next_avail);
        let size = self.config.size;
        if head >= size {
            let at = self.next_avail;
            return Err(self.fail(Violation::Head { at, head, size }));
        }
        // SAFETY: head was compared to the table's size; the table is mapped as long as the ring lives.
        let first = unsafe { self.desc.read(head) };
        let len = if first.flags == WAY {
            self.add(head, first)?;
            first.len
        } else if first.flags == WAY | NEXT && first.next < size {
            // SAFETY: next was compared to the table's size.
            let second = unsafe { self.desc.read(first.next) };
            self.add(head, first)?;
            if second.flags == WAY && first.len.checked_add(second.len).is_some() {
                self.add(head, second)?;
                first.len + second.len
            } else {
                self.walk_on::<WAY>(head, self.desc, second, size.saturating_sub(1), first.len)?
            }
        } else {
            self.walk_on::<WAY>(head, self.desc, first, size, 0)?
        };
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok((head, len))
    }

    /// The rest of a chain from `desc` on, at most `left` descriptors, with `len` bytes before it.
    #[cold]
    fn walk_on<const WAY: u16>(
        &mut self,
        head: u16,
        table: Table,
        mut desc: Desc,
        mut left: u16,
        mut len: u32,
    ) -> Result<u32, Violation> {
        loop {
            if left == 0 {
                return Err(self.fail(Violation::ChainTooLong { head }));
            }
            left -= 1;
            if desc.flags & INDIRECT != 0 {
                return self.walk_indirect::<WAY>(head, table, desc, len);
            }
            if desc.flags & WRITE != WAY {
                return Err(self.fail(Violation::Direction { head }));
            }
            self.add(head, desc)?;
            len = match len.checked_add(desc.len) {
                Some(len) => len,
                None => return Err(self.fail(Violation::Length { head })),
            };
            if desc.flags & NEXT == 0 {
                return Ok(len);
            }
            let (next, size) = (desc.next, table.size);
            if next >= size {
                return Err(self.fail(Violation::Next { head, next, size }));
            }
            // SAFETY: next was compared to the table's size; the table is mapped.
            desc = unsafe { table.read(next) };
        }
    }

    /// An indirect table in place of the rest of the chain (virtio 1.2, 2.7.5.3).
    fn walk_indirect<const WAY: u16>(
        &mut self,
        head: u16,
        table: Table,
        desc: Desc,
        len: u32,
    ) -> Result<u32, Violation> {
        let entries = desc.len / DESC_LEN;
        let sound = self.indirect
            && desc.flags & NEXT == 0
            && !table.indirect
            && desc.len.is_multiple_of(DESC_LEN)
            && (1..=u32::from(self.config.size)).contains(&entries);
        if !sound {
            return Err(self.fail(Violation::Indirect { head }));
        }
        let mapped = self.translator.translate(desc.addr, desc.len);
        let Some((at, _)) = mapped.filter(|(_, room)| *room == desc.len) else {
            let (addr, len) = (desc.addr, desc.len);
            return Err(self.fail(Violation::Unmapped { head, addr, len }));
        };
        let table = Table { at: at.cast(), size: entries as u16, indirect: true };
        // SAFETY: the table has at least one entry, and all of it was just found mapped.
        let first = unsafe { table.read(0) };
        self.walk_on::<WAY>(head, table, first, table.size, len)
    }

    /// Adds the pieces of one descriptor's buffer: one, unless it goes on in another memory region.
    #[inline(always)]
    fn add(&mut self, head: u16, desc: Desc) -> Result<(), Violation> {
        match self.translator.translate(desc.addr, desc.len) {
            Some((ptr, len)) if len == desc.len && self.pieces < self.segments.len() && len > 0 => {
                // SAFETY: the range was found mapped, and the translator keeps the memory table alive.
                self.segments[self.pieces] = unsafe { Segment::new(ptr, len) };
                self.pieces += 1;
                Ok(())
            }
            _ => self.add_in_pieces(head, desc),
        }
    }

    #[cold]
    fn add_in_pieces(&mut self, head: u16, desc: Desc) -> Result<(), Violation> {
        let (mut addr, mut left) = (desc.addr, desc.len);
        while left > 0 {
            if self.pieces == self.segments.len() {
                return Err(self.fail(Violation::TooManyPieces { head }));
            }
            let Some((ptr, len)) = self.translator.translate(addr, left) else {
                return Err(self.fail(Violation::Unmapped { head, addr, len: left }));
            };
            // SAFETY: as in `add`.
            self.segments[self.pieces] = unsafe { Segment::new(ptr, len) };
            self.pieces += 1;
            left -= len;
            // A region never ends at 2^64, so only a range that goes on beyond all regions can wrap.
            addr = addr.wrapping_add(u64::from(len));
        }
        Ok(())
    }
}

/// Pieces kept beyond one a descriptor: buffers may cross memory regions, and a packet may take several
/// chains.
const SPARE_PIECES: usize = 64;

/// Finds one of the ring's areas in our memory.
fn area(
    memory: &Arc<Memory>,
    area: &'static str,
    addr: u64,
    len: u64,
    align: usize,
) -> Result<*mut u8, SetupError> {
    let host = memory.user_to_host(addr, len).ok_or(SetupError::Unmapped { area, addr, len })?;
    // Ours counts, not the frontend's: it is ours that is dereferenced.
    match host.addr().is_multiple_of(align) {
        true => Ok(host),
        false => Err(SetupError::Unaligned { area, addr, align }),
    }
}

#[cfg(test)]
mod tests;
