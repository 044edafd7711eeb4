//! A guest's memory.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::USER;
use crate::{Memory, Region, Segment};

struct Ram {
    host: *mut u8,
    layout: Layout,
}

// SAFETY: an allocation; who touches it when is up to the test.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `Guest::new`.
        unsafe { dealloc(self.host, self.layout) }
    }
}

/// A guest's memory.
#[derive(Clone)]
pub struct Guest {
    pub memory: Arc<Memory>,
    ram: Vec<(u64, Arc<Ram>)>,
}

impl Guest {
    /// Memory at each (guest address, length).
    pub fn new(ranges: &[(u64, usize)]) -> Guest {
        let ram = |&(addr, len): &(u64, usize)| {
            // No more aligned than the descriptor table asks: so that untouched memory costs nothing.
            let layout = Layout::from_size_align(len, 16).unwrap();
            // SAFETY: no range is empty.
            let host = unsafe { alloc_zeroed(layout) };
            assert!(!host.is_null());
            (addr, Arc::new(Ram { host, layout }))
        };
        let ram: Vec<_> = ranges.iter().map(ram).collect();
        let places = ram.iter().map(|(addr, _)| (*addr, addr + USER));
        Guest { memory: Arc::new(table(&ram, places)), ram }
    }

    /// The same memory, shown by the frontend at other addresses of its own.
    pub fn shown_at(&self, users: &[u64]) -> Memory {
        table(&self.ram, self.ram.iter().zip(users).map(|((guest, _), user)| (*guest, *user)))
    }

    /// The same memory at other guest addresses.
    pub fn at_guest(&self, guests: &[u64]) -> Memory {
        table(&self.ram, self.ram.iter().zip(guests).map(|((guest, _), other)| (*other, guest + USER)))
    }

    /// Where `addr` is, and how many bytes of its range follow.
    fn at(&self, addr: u64) -> (*mut u8, usize) {
        let hit = |(start, ram): &(u64, Arc<Ram>)| {
            let offset = addr.checked_sub(*start)? as usize;
            (offset < ram.layout.size()).then(|| (ram.host.wrapping_add(offset), ram.layout.size() - offset))
        };
        self.ram.iter().find_map(hit).unwrap_or_else(|| panic!("the test touches {addr:#x}"))
    }

    pub fn write(&self, mut addr: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (to, room) = self.at(addr);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            // SAFETY: `at` found that much room in one of our allocations.
            unsafe { std::ptr::copy(now.as_ptr(), to, now.len()) }
            (addr, bytes) = (addr + now.len() as u64, later);
        }
    }

    pub fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            let (from, room) = self.at(addr + done as u64);
            let n = room.min(len - done);
            // SAFETY: as in `write`.
            unsafe { std::ptr::copy(from, bytes[done..].as_mut_ptr(), n) }
            done += n;
        }
        bytes
    }

    fn word(&self, addr: u64) -> &AtomicU16 {
        assert!(addr.is_multiple_of(2));
        let (at, room) = self.at(addr);
        assert!(room > 1);
        // SAFETY: the word is in one of our allocations; each is aligned, and so is the address.
        unsafe { AtomicU16::from_ptr(at.cast()) }
    }

    pub fn write_u16(&self, addr: u64, value: u16) {
        self.word(addr).store(value.to_le(), Ordering::Release);
    }

    pub fn read_u16(&self, addr: u64) -> u16 {
        u16::from_le(self.word(addr).load(Ordering::Acquire))
    }

    pub fn read_u32(&self, addr: u64) -> u32 {
        u32::from_le_bytes(self.read(addr, 4).try_into().unwrap())
    }

    /// Guest address of a segment; the whole of it must be guest memory.
    pub fn addr_of(&self, segment: &Segment) -> u64 {
        let at = segment.ptr().addr();
        let inside = |(start, ram): &(u64, Arc<Ram>)| {
            let offset = at.checked_sub(ram.host.addr())?;
            (offset + segment.len() <= ram.layout.size()).then_some(start + offset as u64)
        };
        self.ram.iter().find_map(inside).expect("a segment outside the guest's memory")
    }
}

fn table(ram: &[(u64, Arc<Ram>)], places: impl Iterator<Item = (u64, u64)>) -> Memory {
    let region = |((_, ram), (guest, user)): (&(u64, Arc<Ram>), _)| {
        // SAFETY: the allocation lives as long as `ram`.
        unsafe { Region::new(guest, user, ram.layout.size() as u64, ram.host, ram.clone()) }
    };
    Memory::new(ram.iter().zip(places).map(region).collect()).unwrap()
}
