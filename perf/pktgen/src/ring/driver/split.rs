//! The split ring, driver's side (virtio 1.2, 2.7).
//!
//! Entry `p` of the avail ring says descriptor `p` from the start, and as long as the device returns
//! descriptors in order it is never written again: to offer a burst is one store of the avail index.
#![allow(unsafe_code)]

use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use super::super::{Areas, DESCRIPTOR, Descriptor, Disorder, NO_NOTIFY, Slot, need_event};
use super::{Each, RingFeatures};
use crate::memory::Shared;

/// Pointers into the shared memory, and the driver's own indices.
#[derive(Debug)]
pub struct SplitRing {
    descriptors: *mut u8,
    avail_index: *const AtomicU16,
    avail_ring: *mut u16,
    used_flags: *const AtomicU16,
    used_index: *const AtomicU16,
    used_ring: *const u64,
    avail_event: *const AtomicU16,
    mask: u16,
    head: u16,
    tail: u16,
    kicked: u16,
    features: RingFeatures,
    disorder: Option<Box<Disorder>>,
    broken: Option<String>,
    _memory: Rc<Shared>,
}

impl SplitRing {
    pub fn new(memory: &Rc<Shared>, areas: Areas, features: RingFeatures) -> Option<SplitRing> {
        let n = usize::from(areas.size);
        let avail = |offset, count| memory.pointer::<u16>(areas.driver + offset, count);
        let used = |offset| memory.pointer::<AtomicU16>(areas.device + offset, 1);
        let ring = SplitRing {
            descriptors: memory.pointer(areas.descriptors, DESCRIPTOR * n)?,
            avail_index: avail(2, 1)?.cast(),
            avail_ring: avail(4, n + 1)?,
            used_flags: used(0)?,
            used_index: used(2)?,
            used_ring: memory.pointer::<u32>(areas.device + 4, 2 * n)?.cast(),
            avail_event: used(4 + 8 * n)?,
            mask: areas.size.checked_sub(1)?,
            head: 0,
            tail: 0,
            kicked: 0,
            features,
            disorder: None,
            broken: None,
            _memory: memory.clone(),
        };
        for p in 0..areas.size {
            // SAFETY: the avail ring has `size` entries, found to be inside.
            unsafe { ring.avail_ring.add(usize::from(p)).write_volatile(p) };
        }
        // With EVENT_IDX the flag must be 0; `used_event` stays 0 and asks for a call each 65536 at most.
        let flags = if features.event_idx { 0 } else { NO_NOTIFY };
        // SAFETY: the flags are in front of the index, inside.
        unsafe { ring.avail_index.cast_mut().cast::<u16>().sub(1).write_volatile(flags) };
        Some(ring)
    }

    pub fn fill(&mut self, describe: impl Fn(Slot) -> Descriptor) {
        for p in 0..=self.mask {
            let Descriptor { address, length, flags } = describe(Slot(p));
            // SAFETY: entry `p` of the descriptor table, found to be inside.
            unsafe {
                let entry = self.descriptors.add(DESCRIPTOR * usize::from(p));
                entry.cast::<u64>().write_volatile(address);
                entry.add(8).cast::<u32>().write_volatile(length);
                entry.add(12).cast::<u16>().write_volatile(flags);
                entry.add(14).cast::<u16>().write_volatile(0);
            }
        }
    }

    pub fn size(&self) -> u32 {
        u32::from(self.mask) + 1
    }

    #[inline(always)]
    pub fn free(&self) -> u32 {
        self.size() - u32::from(self.head.wrapping_sub(self.tail))
    }

    /// Used entries that are new, at most `max`.
    #[inline(always)]
    fn ready(&mut self, max: u32) -> u16 {
        // SAFETY: the used index was found to be inside. Acquire: entries, and buffers the device wrote, are
        // read after the index that says they are there.
        let used = unsafe { &*self.used_index }.load(Ordering::Acquire);
        let ready = used.wrapping_sub(self.tail);
        if ready > self.head.wrapping_sub(self.tail) {
            return self.refuse(format!("used index {used}, but only {} were offered", self.head));
        }
        u32::from(ready).min(max) as u16
    }

    #[cold]
    fn refuse(&mut self, why: String) -> u16 {
        self.broken.get_or_insert(why);
        0
    }

    /// Used entry at `position`: descriptor, and length above.
    #[inline(always)]
    fn entry(&self, position: u16) -> u64 {
        // SAFETY: masked, so inside the used ring. The device does not write entries it has published. They
        // are aligned to 4 only.
        unsafe { self.used_ring.add(usize::from(position & self.mask)).read_unaligned() }
    }

    #[inline(always)]
    pub fn reclaim(&mut self) {
        let ready = self.ready(u32::MAX);
        if self.features.in_order {
            self.tail = self.tail.wrapping_add(ready);
            return;
        }
        let mut done = 0;
        if self.disorder.is_none() {
            while done < ready {
                let position = self.tail.wrapping_add(done);
                if self.entry(position) as u32 != u32::from(position & self.mask) {
                    break;
                }
                done += 1;
            }
            self.tail = self.tail.wrapping_add(done);
        }
        for _ in done..ready {
            let entry = self.entry(self.tail);
            if self.settle(entry as u32).is_none() {
                return;
            }
        }
    }

    /// Takes descriptor `id` back at the tail, out of order.
    #[cold]
    fn settle(&mut self, id: u32) -> Option<Slot> {
        let (size, position) = (self.size(), self.tail & self.mask);
        let (head, tail) = (u32::from(self.head), u32::from(self.tail));
        let disorder = self.disorder.get_or_insert_with(|| Box::new(Disorder::after(size, head, tail)));
        match disorder.settle(u32::from(position), id) {
            Ok(id) => {
                // SAFETY: masked. The device reads the entry only after it is offered again.
                unsafe { self.avail_ring.add(usize::from(position)).write_volatile(id) };
                self.tail = self.tail.wrapping_add(1);
                Some(Slot(id))
            }
            Err(why) => {
                self.refuse(why);
                None
            }
        }
    }

    #[inline(always)]
    pub fn take(&mut self, max: u32, each: &mut impl Each) -> u32 {
        let ready = self.ready(max);
        let mut done = 0;
        if self.disorder.is_none() {
            while done < ready {
                let position = self.tail.wrapping_add(done) & self.mask;
                let entry = self.entry(position);
                if entry as u32 != u32::from(position) {
                    break;
                }
                each.each(Slot(position), (entry >> 32) as u32);
                done += 1;
            }
            self.tail = self.tail.wrapping_add(done);
        }
        if done < ready {
            done += self.take_disordered(ready - done, &mut |slot, length| each.each(slot, length));
        }
        u32::from(done)
    }

    #[cold]
    fn take_disordered(&mut self, ready: u16, each: &mut dyn FnMut(Slot, u32)) -> u16 {
        for done in 0..ready {
            let entry = self.entry(self.tail);
            let Some(slot) = self.settle(entry as u32) else { return done };
            each(slot, (entry >> 32) as u32);
        }
        ready
    }

    #[inline(always)]
    pub fn next(&self, ahead: u32) -> Slot {
        let position = self.head.wrapping_add(ahead as u16) & self.mask;
        Slot(self.disorder.as_ref().map_or(position, |d| d.owner[usize::from(position)]))
    }

    pub fn set_length(&mut self, ahead: u32, length: u32) {
        let slot = self.next(ahead);
        // SAFETY: slots are below the size, so inside the descriptor table.
        unsafe {
            let entry = self.descriptors.add(DESCRIPTOR * slot.number() as usize);
            entry.add(8).cast::<u32>().write_volatile(length);
        }
    }

    #[inline(always)]
    pub fn offer(&mut self, count: u32) {
        if let Some(disorder) = &mut self.disorder {
            for k in 0..count as u16 {
                disorder.offer(u32::from(self.head.wrapping_add(k) & self.mask));
            }
        }
        self.head = self.head.wrapping_add(count as u16);
        // SAFETY: found to be inside. Release: descriptors and frames are written before the index says so.
        unsafe { &*self.avail_index }.store(self.head, Ordering::Release);
    }

    #[inline(always)]
    pub fn kick_wanted(&mut self) -> bool {
        // Full barrier: the index is seen by the device before the device's wish is read, or a device going
        // to sleep and this one would miss each other.
        fence(Ordering::SeqCst);
        let old = std::mem::replace(&mut self.kicked, self.head);
        // SAFETY: both were found to be inside.
        unsafe {
            if self.features.event_idx {
                need_event((*self.avail_event).load(Ordering::Relaxed), self.head, old)
            } else {
                (*self.used_flags).load(Ordering::Relaxed) & NO_NOTIFY == 0
            }
        }
    }

    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    #[inline(always)]
    pub fn orderly(&self) -> bool {
        self.disorder.is_none()
    }
}
