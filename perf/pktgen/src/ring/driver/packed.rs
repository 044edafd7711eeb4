//! The packed ring, driver's side (virtio 1.2, 2.8).
//!
//! Addresses are written once. To offer a descriptor again is one store of eight bytes: length, id, flags
//! (the device overwrites just those).
#![allow(unsafe_code)]

use std::rc::Rc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering, fence};

use super::super::{
    AVAIL, Areas, DESCRIPTOR, Descriptor, Disorder, EVENTS_AT, EVENTS_OFF, Slot, USED, need_event,
};
use super::{Each, RingFeatures, UNKNOWN};
use crate::memory::Shared;

/// Of a descriptor's upper half: id, AVAIL and USED.
const HALF: u32 = ((AVAIL | USED) as u32) << 16 | 0xffff;

/// Pointers into the shared memory, and the driver's own indices, which count on: the position is the low
/// bits, the wrap counter the bit above.
#[derive(Debug)]
pub struct PackedRing {
    descriptors: *mut u8,
    device_event: *const AtomicU16,
    mask: u32,
    shift: u32,
    head: u32,
    tail: u32,
    kicked: u32,
    features: RingFeatures,
    /// `WRITE` or `INDIRECT`.
    flags: u16,
    /// Address and length of each descriptor.
    contents: Vec<(u64, u32)>,
    /// All descriptors have the length of the first one.
    uniform: bool,
    disorder: Option<Box<Disorder>>,
    broken: Option<String>,
    _memory: Rc<Shared>,
}

impl PackedRing {
    pub fn new(memory: &Rc<Shared>, areas: Areas, features: RingFeatures) -> Option<PackedRing> {
        let n = usize::from(areas.size);
        let driver_event = memory.pointer::<u16>(areas.driver, 2)?;
        // SAFETY: two words, found to be inside: offset and wrap, flags.
        unsafe { driver_event.add(1).write_volatile(EVENTS_OFF) };
        Some(PackedRing {
            descriptors: memory.pointer::<AtomicU64>(areas.descriptors, 2 * n)?.cast(),
            device_event: memory.pointer::<AtomicU16>(areas.device, 2)?,
            mask: u32::from(areas.size.checked_sub(1)?),
            shift: areas.size.trailing_zeros(),
            head: 0,
            tail: 0,
            kicked: 0,
            features,
            flags: 0,
            contents: vec![(0, 0); n],
            uniform: true,
            disorder: None,
            broken: None,
            _memory: memory.clone(),
        })
    }

    pub fn fill(&mut self, describe: impl Fn(Slot) -> Descriptor) {
        for p in 0..=self.mask {
            let Descriptor { address, length, flags } = describe(Slot(p as u16));
            self.contents[p as usize] = (address, length);
            self.flags = flags;
            self.set_address(p, address);
        }
        self.uniform = self.contents.iter().all(|(_, length)| *length == self.contents[0].1);
    }

    fn set_address(&self, position: u32, address: u64) {
        // SAFETY: masked, so inside the ring; the driver has the descriptor.
        unsafe {
            let entry = self.descriptors.add(DESCRIPTOR * (position & self.mask) as usize);
            entry.cast::<u64>().write_volatile(address);
        }
    }

    /// Length, id and flags of the descriptor at `position`.
    #[inline(always)]
    fn word(&self, position: u32) -> &AtomicU64 {
        // SAFETY: masked, so inside the ring, which outlives the reference; aligned to 8.
        unsafe { &*self.descriptors.add(DESCRIPTOR * (position & self.mask) as usize + 8).cast() }
    }

    pub fn size(&self) -> u32 {
        self.mask + 1
    }

    #[inline(always)]
    pub fn free(&self) -> u32 {
        self.size() - self.head.wrapping_sub(self.tail)
    }

    /// The flags of a descriptor that is offered at `position`: AVAIL is the wrap counter, USED its inverse.
    #[inline(always)]
    fn offered(&self, position: u32) -> u16 {
        self.flags | if position >> self.shift & 1 == 0 { AVAIL } else { USED }
    }

    /// The upper half of a descriptor that was used at `position`, in order: both flags are the wrap counter.
    #[inline(always)]
    fn used_half(&self, position: u32) -> u32 {
        let both = if position >> self.shift & 1 == 0 { AVAIL | USED } else { 0 };
        u32::from(both) << 16 | position & self.mask
    }

    #[inline(always)]
    pub fn reclaim(&mut self) {
        self.take(u32::MAX, &mut |_: Slot, _: u32| ());
    }

    #[inline(always)]
    pub fn take(&mut self, max: u32, each: &mut impl Each) -> u32 {
        let limit = self.head.wrapping_sub(self.tail).min(max);
        let mut done = 0;
        while done < limit {
            // One lap at a time: flags are the same, and entries adjoin, within.
            let in_lap = self.size() - (self.tail & self.mask);
            let count = (limit - done).min(in_lap);
            let first = self.used_half(self.tail);
            let mut entry: *const AtomicU64 = self.word(self.tail);
            let (mut taken, mut other) = (0, None);
            while taken < count {
                // Acquire: the buffer is read after the flags that say it is there; the length and the id are
                // in the same word.
                // SAFETY: `taken` is below the entries that are left in this lap.
                let word = unsafe { &*entry }.load(Ordering::Acquire);
                let expected = first + taken;
                if (word >> 32) as u32 & HALF != expected || self.disorder.is_some() {
                    // Looked at once: it may be used by the time of a second look.
                    other = Some(word);
                    break;
                }
                each.each(Slot(expected as u16), word as u32);
                taken += 1;
                // Not used when it is past the last entry.
                entry = entry.wrapping_add(DESCRIPTOR / 8);
            }
            (self.tail, done) = (self.tail.wrapping_add(taken), done + taken);
            let Some(word) = other else { continue };
            if (word >> 32) as u32 & HALF & !0xffff != first & !0xffff {
                break;
            }
            match self.unexpected((word >> 32) as u32 & 0xffff, word as u32, &mut |s, l| each.each(s, l)) {
                0 => break,
                n => done += n,
            }
        }
        done
    }

    /// Descriptor `id` at the tail, which is not the one that was offered there. How many came back with it.
    #[cold]
    fn unexpected(&mut self, id: u32, length: u32, each: &mut dyn FnMut(Slot, u32)) -> u32 {
        let (size, position) = (self.size(), self.tail & self.mask);
        if self.features.in_order && self.disorder.is_none() {
            // IN_ORDER: one used descriptor for a batch, with the id of its last (2.8.8).
            let skipped = id.wrapping_sub(position) & self.mask;
            if id > self.mask || skipped >= self.head.wrapping_sub(self.tail) {
                self.broken.get_or_insert(format!("descriptor {id} was used, but not offered"));
                return 0;
            }
            for k in 0..skipped {
                each(Slot((position.wrapping_add(k) & self.mask) as u16), UNKNOWN);
            }
            each(Slot(id as u16), length);
            self.tail = self.tail.wrapping_add(skipped + 1);
            return skipped + 1;
        }
        let (head, tail) = (self.head, self.tail);
        let disorder = self.disorder.get_or_insert_with(|| Box::new(Disorder::after(size, head, tail)));
        match disorder.settle(position, id) {
            Ok(id) => {
                self.set_address(position, self.contents[usize::from(id)].0);
                self.tail = self.tail.wrapping_add(1);
                each(Slot(id), length);
                1
            }
            Err(why) => {
                self.broken.get_or_insert(why);
                0
            }
        }
    }

    #[inline(always)]
    pub fn next(&self, ahead: u32) -> Slot {
        let position = self.head.wrapping_add(ahead) & self.mask;
        Slot(self.disorder.as_ref().map_or(position as u16, |d| d.owner[position as usize]))
    }

    pub fn set_length(&mut self, ahead: u32, length: u32) {
        let slot = self.next(ahead);
        self.contents[slot.number() as usize].1 = length;
        self.uniform = false;
    }

    #[inline(always)]
    pub fn offer(&mut self, count: u32) {
        if count == 0 {
            return;
        }
        // The first one last: until its flags say so, the device looks at none of them.
        let mut position = self.head.wrapping_add(1);
        let end = self.head.wrapping_add(count);
        if self.uniform && self.disorder.is_none() {
            while position != end {
                // One lap at a time: the flags are the same within.
                let lap = (position | self.mask).wrapping_add(1);
                let last = if lap.wrapping_sub(position) < end.wrapping_sub(position) { lap } else { end };
                let mut word = self.offer_word(position);
                let mut entry: *const AtomicU64 = self.word(position);
                for _ in 0..last.wrapping_sub(position) {
                    // SAFETY: up to the lap's last entry, so inside the ring.
                    unsafe { &*entry }.store(word, Ordering::Relaxed);
                    entry = entry.wrapping_add(DESCRIPTOR / 8);
                    word = word.wrapping_add(1 << 32);
                }
                position = last;
            }
        } else {
            while position != end {
                let word = self.offer_word(position);
                self.word(position).store(word, Ordering::Relaxed);
                position = position.wrapping_add(1);
            }
        }
        if let Some(disorder) = &mut self.disorder {
            for k in 0..count {
                disorder.offer(self.head.wrapping_add(k) & self.mask);
            }
        }
        let word = self.offer_word(self.head);
        // Release: frames and the other descriptors are written before this one says that they are.
        self.word(self.head).store(word, Ordering::Release);
        self.head = end;
    }

    #[inline(always)]
    fn offer_word(&self, position: u32) -> u64 {
        let at = position & self.mask;
        let id = self.disorder.as_ref().map_or(at, |d| u32::from(d.owner[at as usize]));
        let length = self.contents[id as usize].1;
        u64::from(length) | u64::from(id) << 32 | u64::from(self.offered(position)) << 48
    }

    #[inline(always)]
    pub fn kick_wanted(&mut self) -> bool {
        // Full barrier: the descriptors are seen by the device before the device's wish is read.
        fence(Ordering::SeqCst);
        let old = std::mem::replace(&mut self.kicked, self.head);
        // SAFETY: two words, found to be inside: offset and wrap, flags.
        let (event, flags) = unsafe {
            let flags = (*self.device_event.add(1)).load(Ordering::Acquire);
            ((*self.device_event).load(Ordering::Relaxed), flags)
        };
        if flags & 3 != EVENTS_AT || !self.features.event_idx {
            return flags & 3 != EVENTS_OFF;
        }
        // The event's position in the lap it names: this one, or the one before.
        let wrap = self.head >> self.shift & 1 == 0;
        let mut at = event & 0x7fff;
        if wrap != (event >> 15 != 0) {
            at = at.wrapping_sub(self.size() as u16);
        }
        let new = (self.head & self.mask) as u16;
        let moved = self.head.wrapping_sub(old) as u16;
        need_event(at, new, new.wrapping_sub(moved))
    }

    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    #[inline(always)]
    pub fn orderly(&self) -> bool {
        self.disorder.is_none()
    }
}
