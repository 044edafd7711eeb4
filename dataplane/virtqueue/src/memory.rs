//! The guest's memory table, and the translation of its addresses to ours.
#![allow(unsafe_code)] // host pointers into mappings are made and offset here, and nowhere else

use std::any::Any;
use std::sync::Arc;

/// One contiguous piece of guest memory, mapped into this process.
pub struct Region {
    guest_addr: u64,
    user_addr: u64,
    len: u64,
    host: *mut u8,
    _mapping: Arc<dyn Any + Send + Sync>,
}

// SAFETY: a region is plain addresses plus a shared owner of the mapping; nothing in it is tied to a thread.
unsafe impl Send for Region {}
// SAFETY: a shared region only hands out addresses; access through them is the ring owner's business.
unsafe impl Sync for Region {}

impl Region {
    /// A region of `len` bytes at guest-physical `guest_addr`, at `user_addr` in the frontend's address
    /// space, and at `host` in ours.
    ///
    /// # Safety
    ///
    /// `host .. host + len` must stay mapped readable and writable for as long as `mapping` is alive.
    pub unsafe fn new(
        guest_addr: u64,
        user_addr: u64,
        len: u64,
        host: *mut u8,
        mapping: Arc<dyn Any + Send + Sync>,
    ) -> Region {
        Region { guest_addr, user_addr, len, host, _mapping: mapping }
    }

    /// First guest-physical address.
    pub fn guest_addr(&self) -> u64 {
        self.guest_addr
    }

    /// First address in the frontend's address space (ring addresses are given in it).
    pub fn user_addr(&self) -> u64 {
        self.user_addr
    }

    /// Length in bytes; never 0 in a [`Memory`].
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the region has no bytes; such a region is refused by [`Memory::new`].
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes of the region follow `addr`, and where `addr` is mapped, if it starts at `base`.
    fn at(&self, base: u64, addr: u64) -> Option<(*mut u8, u64)> {
        let offset = addr.checked_sub(base).filter(|offset| *offset < self.len)?;
        // SAFETY: offset is less than the region's length, so the result stays inside its mapping.
        Some((unsafe { self.host.add(offset as usize) }, self.len - offset))
    }
}

/// A memory table that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// A region without a byte.
    #[error("memory region at guest address {guest_addr:#x} is empty")]
    Empty {
        /// Where it starts.
        guest_addr: u64,
    },
    /// A region whose end does not fit 64 bits.
    #[error("memory region at guest address {guest_addr:#x} with {len:#x} bytes wraps around")]
    Wraps {
        /// Where it starts.
        guest_addr: u64,
        /// Its length.
        len: u64,
    },
    /// Two regions claim the same guest address. (The same frontend address is fine: a VMM may show one
    /// piece of its memory to the guest twice.)
    #[error("memory regions at {first:#x} and {second:#x} overlap")]
    Overlap {
        /// Start of the lower one.
        first: u64,
        /// Start of the higher one.
        second: u64,
    },
}

/// All of a guest's memory: immutable, replaced as a whole.
pub struct Memory {
    /// Sorted by guest address.
    regions: Box<[Region]>,
}

impl Memory {
    /// A table of `regions`, in any order.
    pub fn new(mut regions: Vec<Region>) -> Result<Memory, MemoryError> {
        for region in &regions {
            let (guest_addr, len) = (region.guest_addr, region.len);
            if len == 0 {
                return Err(MemoryError::Empty { guest_addr });
            }
            let wraps = |start: u64| start.checked_add(len).is_none();
            if wraps(guest_addr) || wraps(region.user_addr) {
                return Err(MemoryError::Wraps { guest_addr, len });
            }
        }
        regions.sort_by_key(|region| region.guest_addr);
        for pair in regions.windows(2) {
            let (first, second) = (pair[0].guest_addr, pair[1].guest_addr);
            if second - first < pair[0].len {
                return Err(MemoryError::Overlap { first, second });
            }
        }
        Ok(Memory { regions: regions.into() })
    }

    /// The regions, by rising guest address.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Where `len` bytes at frontend address `addr` are mapped; `None` unless they lie in one region.
    pub fn user_to_host(&self, addr: u64, len: u64) -> Option<*mut u8> {
        // Frontend addresses may overlap, so a region with too little room does not settle it.
        let mut mapped = self.regions.iter().filter_map(|region| region.at(region.user_addr, addr));
        mapped.find(|(_, room)| len <= *room).map(|(host, _)| host)
    }

    /// Where `len` bytes at guest-physical `addr` are mapped; `None` unless they lie in one region.
    pub fn guest_to_host(&self, addr: u64, len: u64) -> Option<*mut u8> {
        let region = self.containing(addr)?;
        let (host, room) = region.at(region.guest_addr, addr)?;
        (len <= room).then_some(host)
    }

    fn containing(&self, addr: u64) -> Option<&Region> {
        let behind = self.regions.partition_point(|region| region.guest_addr <= addr);
        let region = &self.regions[behind.checked_sub(1)?];
        (addr - region.guest_addr < region.len).then_some(region)
    }
}

/// One region, for translation.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    start: u64,
    len: u64,
    host: *mut u8,
}

impl Window {
    /// Where guest address `addr` is mapped, if `len` bytes, at least one, from there on are.
    #[inline(always)]
    pub(crate) fn at(self, addr: u64, len: u32) -> Option<*mut u8> {
        let offset = addr.wrapping_sub(self.start);
        let fits = len > 0 && offset.checked_add(len.into()).is_some_and(|end| end <= self.len);
        // SAFETY: offset is less than the region's length, so the result is inside its mapping.
        fits.then(|| unsafe { self.host.add(offset as usize) })
    }
}

/// Translates guest addresses, remembering the region of the last hit: the common case is one compare.
pub(crate) struct Translator {
    memory: Arc<Memory>,
    window: Window,
}

// SAFETY: the cached pointer points into a mapping that `memory` keeps alive, on whatever thread.
unsafe impl Send for Translator {}

impl Translator {
    pub(crate) fn new(memory: Arc<Memory>) -> Translator {
        Translator { memory, window: Window { start: 0, len: 0, host: std::ptr::null_mut() } }
    }

    /// The region of the last hit.
    #[inline(always)]
    pub(crate) fn window(&self) -> Window {
        self.window
    }

    /// Where guest address `addr` is mapped, and how many of the `len` bytes from there on are contiguous:
    /// fewer than `len` only where a range goes on in the next region. `None` if `addr` is not mapped.
    #[inline(always)]
    pub(crate) fn translate(&mut self, addr: u64, len: u32) -> Option<(*mut u8, u32)> {
        match self.window.at(addr, len) {
            Some(host) => Some((host, len)),
            None => self.translate_elsewhere(addr, len),
        }
    }

    #[cold]
    fn translate_elsewhere(&mut self, addr: u64, len: u32) -> Option<(*mut u8, u32)> {
        let region = self.memory.containing(addr)?;
        let (host, room) = region.at(region.guest_addr, addr)?;
        self.window = Window { start: region.guest_addr, len: region.len, host: region.host };
        Some((host, room.min(u64::from(len)) as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(guest_addr: u64, user_addr: u64, len: u64) -> Region {
        let mut bytes = vec![0u8; len as usize];
        let host = bytes.as_mut_ptr();
        // SAFETY: the vector's memory is kept by the region and never moves.
        unsafe { Region::new(guest_addr, user_addr, len, host, Arc::new(bytes)) }
    }

    #[test]
    fn refuses_empty_wrapping_and_overlapping_regions() {
        let refused = |regions| Memory::new(regions).err().unwrap();
        assert_eq!(refused(vec![region(5, 0, 0)]), MemoryError::Empty { guest_addr: 5 });
        assert_eq!(
            refused(vec![region(u64::MAX - 1, 0, 4)]),
            MemoryError::Wraps { guest_addr: u64::MAX - 1, len: 4 }
        );
        assert_eq!(refused(vec![region(0, u64::MAX - 1, 4)]), MemoryError::Wraps { guest_addr: 0, len: 4 });
        assert_eq!(
            refused(vec![region(0x1800, 0, 0x1000), region(0x1000, 0x8000, 0x1000)]),
            MemoryError::Overlap { first: 0x1000, second: 0x1800 }
        );
    }

    #[test]
    fn translates_at_the_edges_of_regions() {
        let memory = Memory::new(vec![region(0x1000, 0, 0x1000), region(0x2000, 0x9000, 0x1000)]).unwrap();
        let first = memory.regions()[0].host;
        assert_eq!(memory.guest_to_host(0x1fff, 1), Some(first.wrapping_add(0xfff)));
        assert_eq!(memory.guest_to_host(0x1fff, 2), None);
        assert_eq!(memory.guest_to_host(0xfff, 1), None);
        assert_eq!(memory.guest_to_host(0x3000, 1), None);
        assert_eq!(memory.user_to_host(0x9000, 0x1000), Some(memory.regions()[1].host));
        assert_eq!(memory.user_to_host(0x9001, 0x1000), None);
        assert_eq!(memory.user_to_host(0x1000, 1), None);
    }

    #[test]
    fn a_translator_says_how_much_is_contiguous() {
        let memory =
            Arc::new(Memory::new(vec![region(0x1000, 0, 0x1000), region(0x2000, 0x9000, 0x1000)]).unwrap());
        let mut translator = Translator::new(memory.clone());
        for _ in 0..2 {
            assert_eq!(translator.translate(0x1ff0, 0x20).unwrap().1, 0x10);
            assert_eq!(translator.translate(0x2000, 0x10), Some((memory.regions()[1].host, 0x10)));
            assert_eq!(translator.translate(0x2fff, u32::MAX).unwrap().1, 1);
            assert_eq!(translator.translate(0x3000, 0), None);
            assert_eq!(translator.translate(u64::MAX, 2), None);
        }
    }
}
