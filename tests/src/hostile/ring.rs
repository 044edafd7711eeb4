//! The driver's side of a ring that does what it is told, also what no driver should. Either format; the areas
//! of ring `k` are where `guest` says.

use std::collections::VecDeque;
use std::sync::Arc;

use super::guest::{AVAIL, GUEST, RING, Ram, USED};

/// Flag of a descriptor: the chain goes on.
pub const NEXT: u16 = 1;
/// Flag of a descriptor: the device writes.
pub const WRITE: u16 = 2;
/// Flag of a descriptor: it names a table.
pub const INDIRECT: u16 = 4;
/// Flags of a packed descriptor, see virtio 1.2, 2.8.1.
pub const PACKED_AVAIL: u16 = 1 << 7;
/// Likewise.
pub const PACKED_USED: u16 = 1 << 15;

/// A buffer; its address is an offset from [`GUEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buf {
    /// Where it is.
    pub at: u64,
    /// Bytes.
    pub len: u32,
    /// Flags, NEXT left out where a chain is posted.
    pub flags: u16,
}

impl Buf {
    /// One the device reads.
    pub fn readable(at: u64, len: u32) -> Buf {
        Buf { at, len, flags: 0 }
    }

    /// One the device writes.
    pub fn writable(at: u64, len: u32) -> Buf {
        Buf { at, len, flags: WRITE }
    }

    /// A descriptor: its last two words are flags and next (split), or id and flags (packed).
    fn bytes(self, words: [u16; 2]) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&GUEST.wrapping_add(self.at).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&words[0].to_le_bytes());
        bytes[14..].copy_from_slice(&words[1].to_le_bytes());
        bytes
    }
}

/// A ring, as a driver sees it.
pub struct Ring {
    /// Where it is.
    pub ram: Arc<Ram>,
    /// Where its areas start.
    pub base: u64,
    /// Entries.
    pub size: u16,
    /// Its format.
    pub packed: bool,
    /// Packed: the id in every descriptor, instead of its slot.
    pub id: Option<u16>,
    /// Descriptors posted since the ring was started.
    pub posted: u64,
    chains: u64,
    used: u64,
    /// Packed: first descriptor not found used, and lengths of the chains from there on.
    behind: (u64, VecDeque<u64>),
}

impl Ring {
    /// Ring `index`, empty.
    pub fn new(ram: Arc<Ram>, index: u32, size: u16, packed: bool) -> Ring {
        let base = u64::from(index) * RING;
        let behind = (0, VecDeque::new());
        Ring { ram, base, size, packed, id: None, posted: 0, chains: 0, used: 0, behind }
    }

    /// Chains posted.
    pub fn chains(&self) -> u64 {
        self.chains
    }

    /// Posts a chain over the next descriptors, in order.
    pub fn post(&mut self, chain: &[Buf]) {
        let first = self.posted;
        self.place(chain);
        if self.packed {
            self.behind.1.push_back(chain.len() as u64);
            self.expose(first);
        } else {
            self.offer(self.slot(first));
        }
    }

    /// Posts chains of one buffer each, all at once.
    pub fn post_all(&mut self, bufs: &[Buf]) {
        let first = self.posted;
        bufs.iter().for_each(|buf| self.place(&[*buf]));
        if self.packed {
            self.behind.1.extend(bufs.iter().map(|_| 1));
            // The first last: the backend looks no further than that.
            (first..self.posted).rev().for_each(|count| self.expose(count));
        } else {
            for count in first..self.posted {
                self.ram.store(
                    self.base + AVAIL + 4 + 2 * (self.chains % u64::from(self.size)),
                    self.slot(count),
                );
                self.chains += 1;
            }
            self.set_avail_index(self.chains as u16);
        }
    }

    /// Posts this chain as often as there is room for it.
    pub fn fill(&mut self, chain: &[Buf]) {
        let room = u64::from(self.size) / chain.len() as u64;
        // Looked up once: a device that is as fast as we are would never let it be full.
        let free = room.saturating_sub(self.chains - self.collect().min(self.chains));
        (0..free).for_each(|_| self.post(chain));
    }

    /// Writes a chain over the next descriptors, and does not make it available.
    pub fn place(&mut self, chain: &[Buf]) {
        for (i, buf) in chain.iter().enumerate() {
            let more = if i + 1 < chain.len() { NEXT } else { 0 };
            let (count, flags) = (self.posted, buf.flags | more);
            let buf = Buf { flags, ..*buf };
            let id = self.id.unwrap_or(self.slot(count));
            match (self.packed, i) {
                (false, _) => self.set_split(self.slot(count), buf, self.slot(count + 1)),
                // The first descriptor's flags are those that count.
                (true, 0) => self.set_packed(count, buf, id, flags | self.idle_flags(count)),
                (true, _) => self.set_packed(count, buf, id, flags | self.avail_flags(count)),
            }
            self.posted += 1;
        }
    }

    /// Writes an indirect table at `at`, and gives the buffer that names it.
    pub fn table(&self, at: u64, bufs: &[Buf]) -> Buf {
        for (i, buf) in bufs.iter().enumerate() {
            let more = if i + 1 < bufs.len() { NEXT } else { 0 };
            let flags = buf.flags | more;
            let words = if self.packed { [0, flags] } else { [flags, i as u16 + 1] };
            self.ram.write(at + 16 * i as u64, &buf.bytes(words));
        }
        Buf { at, len: 16 * bufs.len() as u32, flags: INDIRECT }
    }

    /// Chains found used so far.
    pub fn collect(&mut self) -> u64 {
        if self.packed {
            while !self.behind.1.is_empty() && self.is_used(self.behind.0) {
                let (first, lens) = &mut self.behind;
                *first += lens.pop_front().unwrap_or(0);
                self.used += 1;
            }
        } else {
            self.used += u64::from(self.used_index().wrapping_sub(self.used as u16));
        }
        self.used
    }

    /// The slot of descriptor number `count`.
    pub fn slot(&self, count: u64) -> u16 {
        (count % u64::from(self.size)) as u16
    }

    /// Where descriptor number `count` is.
    pub fn desc(&self, count: u64) -> u64 {
        self.base + 16 * u64::from(self.slot(count))
    }
}

/// Split rings.
impl Ring {
    /// Writes a descriptor.
    pub fn set_split(&self, slot: u16, buf: Buf, next: u16) {
        self.ram.write(self.desc(slot.into()), &buf.bytes([buf.flags, next]));
    }

    /// Makes the chain that starts at `head` available.
    pub fn offer(&mut self, head: u16) {
        self.ram.store(self.base + AVAIL + 4 + 2 * (self.chains % u64::from(self.size)), head);
        self.chains += 1;
        self.set_avail_index(self.chains as u16);
    }

    /// Writes the avail index.
    pub fn set_avail_index(&self, index: u16) {
        self.ram.store(self.base + AVAIL + 2, index);
    }

    /// The used index.
    pub fn used_index(&self) -> u16 {
        self.ram.load(self.base + USED + 2)
    }
}

/// Packed rings.
impl Ring {
    fn wrap(&self, count: u64) -> bool {
        (count / u64::from(self.size)).is_multiple_of(2)
    }

    /// The flags that make descriptor number `count` available.
    pub fn avail_flags(&self, count: u64) -> u16 {
        if self.wrap(count) { PACKED_AVAIL } else { PACKED_USED }
    }

    /// Flags that do not make it available.
    pub fn idle_flags(&self, count: u64) -> u16 {
        // As it was used in the lap before.
        if self.wrap(count) { 0 } else { PACKED_AVAIL | PACKED_USED }
    }

    /// Writes descriptor number `count`.
    pub fn set_packed(&self, count: u64, buf: Buf, id: u16, flags: u16) {
        let at = self.desc(count);
        self.ram.write(at, &buf.bytes([id, 0])[..14]);
        self.ram.store(at + 14, flags);
    }

    /// Flags of descriptor number `count`.
    pub fn flags(&self, count: u64) -> u16 {
        self.ram.load(self.desc(count) + 14)
    }

    /// Makes the chain available that starts with descriptor number `count`.
    pub fn expose(&mut self, count: u64) {
        let both = PACKED_AVAIL | PACKED_USED;
        let flags = self.flags(count) & !both | self.avail_flags(count);
        self.ram.store(self.desc(count) + 14, flags);
        self.chains += 1;
    }

    fn is_used(&self, count: u64) -> bool {
        let both = PACKED_AVAIL | PACKED_USED;
        self.flags(count) & both == if self.wrap(count) { both } else { 0 }
    }
}
