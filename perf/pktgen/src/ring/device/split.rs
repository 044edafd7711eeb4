//! The split ring, device's side (virtio 1.2, 2.7).
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU16, Ordering, fence};

use super::super::{DESCRIPTOR, INDIRECT, NEXT, NO_NOTIFY};
use super::{Chain, DeviceSetup, Memory, Segment};

/// Pointers into the frontend's memory, and the device's own indices.
#[derive(Debug)]
pub struct SplitDevice {
    descriptors: *const u8,
    avail_flags: *const AtomicU16,
    avail_index: *const AtomicU16,
    avail_ring: *const u16,
    used_index: *const AtomicU16,
    used_ring: *mut u32,
    mask: u16,
    next: u16,
    used: u16,
    _memory: Memory,
}

impl SplitDevice {
    pub fn new(memory: &Memory, setup: DeviceSetup) -> Option<SplitDevice> {
        let n = setup.size as usize;
        let avail = memory.at_user::<u16>(setup.driver, 2 + n)?;
        let used = memory.at_user::<u32>(setup.device, 1 + 2 * n)?;
        // SAFETY: all parts are inside what was just found to be there. The device polls, so it wants no
        // kicks, and says so.
        let (avail_index, avail_ring, used_index, used_ring) = unsafe {
            used.cast::<u16>().write_volatile(NO_NOTIFY);
            (avail.add(1), avail.add(2), used.cast::<u16>().add(1), used.add(1))
        };
        Some(SplitDevice {
            descriptors: memory.at_user::<u64>(setup.descriptors, 2 * n)?.cast(),
            avail_flags: avail.cast(),
            avail_index: avail_index.cast(),
            avail_ring,
            used_index: used_index.cast(),
            used_ring,
            mask: (setup.size - 1) as u16,
            next: setup.base as u16,
            used: setup.base as u16,
            _memory: memory.clone(),
        })
    }

    fn available(&self) -> u16 {
        // SAFETY: found to be inside. Acquire: entries are read after the index that says they are there.
        unsafe { &*self.avail_index }.load(Ordering::Acquire).wrapping_sub(self.next)
    }

    /// Entry of the avail ring.
    #[inline(always)]
    fn head(&self, at: u16) -> u16 {
        // SAFETY: masked, so inside.
        unsafe { self.avail_ring.add(usize::from(at & self.mask)).read_volatile() }
    }

    #[inline(always)]
    fn put(&mut self, id: u16, length: u32) {
        // SAFETY: masked, so inside; the driver reads it only after the index is published.
        unsafe {
            let entry = self.used_ring.add(2 * usize::from(self.used & self.mask));
            entry.write_volatile(u32::from(id));
            entry.add(1).write_volatile(length);
        }
        self.used = self.used.wrapping_add(1);
    }

    #[inline(always)]
    pub fn return_all(&mut self, max: u32, length: u32) -> u32 {
        let count = u32::from(self.available()).min(max);
        if count == 0 {
            return 0;
        }
        for _ in 0..count {
            let id = self.head(self.next);
            self.next = self.next.wrapping_add(1);
            self.put(id, length);
        }
        self.flush();
        count
    }

    pub fn pop(&mut self, memory: &Memory, segments: &mut Vec<Segment>) -> Option<Chain> {
        if self.available() == 0 {
            return None;
        }
        let id = self.head(self.next);
        self.next = self.next.wrapping_add(1);
        let mut at = id;
        for _ in 0..=self.mask {
            // SAFETY: masked, so inside the descriptor table.
            let (address, length, flags, next) = unsafe {
                let entry = self.descriptors.add(DESCRIPTOR * usize::from(at & self.mask));
                (
                    entry.cast::<u64>().read_volatile(),
                    entry.add(8).cast::<u32>().read_volatile(),
                    entry.add(12).cast::<u16>().read_volatile(),
                    entry.add(14).cast::<u16>().read_volatile(),
                )
            };
            if flags & INDIRECT != 0 {
                memory.indirect(address, length, false, segments)?;
            } else {
                segments.push(memory.segment(address, length, flags)?);
            }
            if flags & NEXT == 0 {
                break;
            }
            at = next;
        }
        Some(Chain { id, entries: 1 })
    }

    pub fn unpop(&mut self, chains: &[Chain]) {
        self.next = self.next.wrapping_sub(chains.len() as u16);
    }

    pub fn push(&mut self, chain: Chain, length: u32) {
        self.put(chain.id, length);
    }

    #[inline(always)]
    pub fn flush(&mut self) {
        // SAFETY: found to be inside. Release: used entries and buffers are written before the index.
        unsafe { &*self.used_index }.store(self.used, Ordering::Release);
    }

    pub fn call_wanted(&self) -> bool {
        // Full barrier: the used index is seen by the driver before the driver's wish is read.
        fence(Ordering::SeqCst);
        // SAFETY: found to be inside.
        unsafe { &*self.avail_flags }.load(Ordering::Relaxed) & NO_NOTIFY == 0
    }

    pub fn base(&self) -> u32 {
        u32::from(self.next)
    }
}
