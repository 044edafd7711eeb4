//! The memory a frontend shared, and buffers in it.
#![allow(unsafe_code)]

use std::rc::Rc;

use super::super::{DESCRIPTOR, NEXT, WRITE};
use crate::memory::Shared;
use crate::proto::RegionMessage;

/// All regions.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    regions: Vec<(RegionMessage, Rc<Shared>)>,
}

/// A piece of a buffer in shared memory. Valid as long as the [`Memory`] it came from.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    address: *mut u8,
    /// Bytes.
    pub length: usize,
    /// The device may write it.
    pub writable: bool,
}

impl Memory {
    /// Adds a region.
    pub fn add(&mut self, region: RegionMessage, shared: Rc<Shared>) {
        self.regions.push((region, shared));
    }

    fn find<T>(&self, start: impl Fn(&RegionMessage) -> u64, address: u64, count: usize) -> Option<*mut T> {
        let (region, shared) = self.regions.iter().find(|(r, _)| address.wrapping_sub(start(r)) < r.size)?;
        let inside = address - start(region);
        let bytes = size_of::<T>().checked_mul(count)? as u64;
        if bytes > region.size - inside {
            return None;
        }
        shared.pointer((region.offset + inside) as usize, count)
    }

    /// `count` values at an address of the frontend's own.
    pub fn at_user<T>(&self, address: u64, count: usize) -> Option<*mut T> {
        self.find(|r| r.user, address, count)
    }

    /// A buffer that a descriptor names.
    pub fn segment(&self, address: u64, length: u32, flags: u16) -> Option<Segment> {
        let address = self.find::<u8>(|r| r.guest, address, length as usize)?;
        Some(Segment { address, length: length as usize, writable: flags & WRITE != 0 })
    }

    /// The buffers of an indirect table; in a packed ring's, flags come last and all entries count.
    pub fn indirect(&self, address: u64, length: u32, packed: bool, out: &mut Vec<Segment>) -> Option<()> {
        let count = (length as usize / DESCRIPTOR).min(256);
        let table = self.find::<u8>(|r| r.guest, address, count * DESCRIPTOR)?;
        let mut i = 0;
        for _ in 0..count {
            // SAFETY: `i` is below `count` entries, found to be inside.
            let (address, length, third, fourth) = unsafe {
                let entry = table.add(i * DESCRIPTOR);
                (
                    entry.cast::<u64>().read_unaligned(),
                    entry.add(8).cast::<u32>().read_unaligned(),
                    entry.add(12).cast::<u16>().read_unaligned(),
                    entry.add(14).cast::<u16>().read_unaligned(),
                )
            };
            let flags = if packed { fourth } else { third };
            out.push(self.segment(address, length, flags)?);
            i = if packed { i + 1 } else { usize::from(fourth) };
            if i >= count || (!packed && flags & NEXT == 0) {
                break;
            }
        }
        Some(())
    }
}

impl Segment {
    /// The part from `skip` on, at most `length` bytes long.
    pub fn part(&self, skip: usize, length: usize) -> Segment {
        let skip = skip.min(self.length);
        // SAFETY: not past the segment's end.
        let address = unsafe { self.address.add(skip) };
        Segment { address, length: length.min(self.length - skip), ..*self }
    }

    /// Copies all of it to the start of `to`, as far as there is room. How much.
    pub fn copy_to(&self, to: &Segment) -> usize {
        let length = self.length.min(to.length);
        // SAFETY: both are inside mappings; `copy` allows them to overlap, as a driver may have them.
        unsafe { to.address.copy_from(self.address, length) };
        length
    }

    /// Writes `bytes` at its start, if there is room.
    pub fn write(&self, bytes: &[u8]) {
        if bytes.len() <= self.length {
            // SAFETY: inside the segment.
            unsafe { self.address.copy_from(bytes.as_ptr(), bytes.len()) };
        }
    }
}
