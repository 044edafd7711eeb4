//! The packed ring, device's side (virtio 1.2, 2.8).
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering, fence};

use super::super::{AVAIL, DESCRIPTOR, EVENTS_OFF, INDIRECT, NEXT, USED};
use super::{Chain, DeviceSetup, Memory, Segment};

/// Pointers into the frontend's memory, and the device's own indices, which count on: the position is the
/// low bits, the wrap counter the bit above.
#[derive(Debug)]
pub struct PackedDevice {
    descriptors: *mut u8,
    driver_event: *const AtomicU16,
    mask: u32,
    shift: u32,
    next: u32,
    used: u32,
    /// The first of the chains pushed since the last flush: its flags are written last.
    held: Option<(u32, u64)>,
    _memory: Memory,
}

impl PackedDevice {
    pub fn new(memory: &Memory, setup: DeviceSetup) -> Option<PackedDevice> {
        let (mask, shift) = (setup.size - 1, setup.size.trailing_zeros());
        let device_event = memory.at_user::<u16>(setup.device, 2)?;
        // SAFETY: two words, found to be inside: offset and wrap, flags. The device polls: no kicks.
        unsafe { device_event.add(1).write_volatile(EVENTS_OFF) };
        let counter = |base: u32| (base & 0x7fff) | u32::from(base & 0x8000 == 0) << shift;
        Some(PackedDevice {
            descriptors: memory.at_user::<AtomicU64>(setup.descriptors, 2 * setup.size as usize)?.cast(),
            driver_event: memory.at_user::<AtomicU16>(setup.driver, 2)?,
            mask,
            shift,
            next: counter(setup.base),
            // Some frontends (virtio-user) send 16 bits, which then go for both halves.
            used: counter(if setup.base >> 16 == 0 { setup.base } else { setup.base >> 16 }),
            held: None,
            _memory: memory.clone(),
        })
    }

    /// Length, id and flags of the descriptor at `position`.
    #[inline(always)]
    fn word(&self, position: u32) -> &AtomicU64 {
        // SAFETY: masked, so inside the ring, which outlives the reference; aligned to 8.
        unsafe { &*self.descriptors.add(DESCRIPTOR * (position & self.mask) as usize + 8).cast() }
    }

    fn address(&self, position: u32) -> u64 {
        // SAFETY: as above.
        unsafe {
            self.descriptors.add(DESCRIPTOR * (position & self.mask) as usize).cast::<u64>().read_volatile()
        }
    }

    /// The word at the next position, if it is available: AVAIL is the wrap counter, USED its inverse.
    #[inline(always)]
    fn available(&self, position: u32) -> Option<u64> {
        // Acquire: buffers are read after the flags that say they are there.
        let word = self.word(position).load(Ordering::Acquire);
        let wanted = if position >> self.shift & 1 == 0 { AVAIL } else { USED };
        ((word >> 48) as u16 & (AVAIL | USED) == wanted).then_some(word)
    }

    /// A used descriptor's word at `position`.
    #[inline(always)]
    fn used_word(&self, position: u32, id: u16, length: u32) -> u64 {
        let both = if position >> self.shift & 1 == 0 { AVAIL | USED } else { 0 };
        u64::from(length) | u64::from(id) << 32 | u64::from(both) << 48
    }

    #[inline(always)]
    pub fn return_all(&mut self, max: u32, length: u32) -> u32 {
        let mut done = 0;
        while done < max {
            let Some(mut word) = self.available(self.next) else { break };
            let mut entries = 1;
            while (word >> 48) as u16 & NEXT != 0 && entries <= self.mask {
                word = self.word(self.next.wrapping_add(entries)).load(Ordering::Relaxed);
                entries += 1;
            }
            self.next = self.next.wrapping_add(entries);
            self.push(Chain { id: (word >> 32) as u16, entries: entries as u16 }, length);
            done += 1;
        }
        self.flush();
        done
    }

    pub fn pop(&mut self, memory: &Memory, segments: &mut Vec<Segment>) -> Option<Chain> {
        let mut word = self.available(self.next)?;
        let mut entries = 1;
        loop {
            let (at, flags) = (self.next.wrapping_add(entries - 1), (word >> 48) as u16);
            if flags & INDIRECT != 0 {
                memory.indirect(self.address(at), word as u32, true, segments)?;
            } else {
                segments.push(memory.segment(self.address(at), word as u32, flags)?);
            }
            if flags & NEXT == 0 || entries > self.mask {
                break;
            }
            word = self.word(at.wrapping_add(1)).load(Ordering::Relaxed);
            entries += 1;
        }
        self.next = self.next.wrapping_add(entries);
        Some(Chain { id: (word >> 32) as u16, entries: entries as u16 })
    }

    pub fn unpop(&mut self, chains: &[Chain]) {
        let entries: u32 = chains.iter().map(|c| u32::from(c.entries)).sum();
        self.next = self.next.wrapping_sub(entries);
    }

    #[inline(always)]
    pub fn push(&mut self, chain: Chain, length: u32) {
        let word = self.used_word(self.used, chain.id, length);
        if self.held.is_none() {
            self.held = Some((self.used, word));
        } else {
            // Release: the buffer is written before the driver can see it as used.
            self.word(self.used).store(word, Ordering::Release);
        }
        self.used = self.used.wrapping_add(u32::from(chain.entries));
    }

    #[inline(always)]
    pub fn flush(&mut self) {
        if let Some((position, word)) = self.held.take() {
            // Release: as above; the driver looks at none of the burst before this one.
            self.word(position).store(word, Ordering::Release);
        }
    }

    pub fn call_wanted(&self) -> bool {
        // Full barrier: the used descriptors are seen by the driver before the driver's wish is read.
        fence(Ordering::SeqCst);
        // SAFETY: two words, found to be inside.
        unsafe { &*self.driver_event.add(1) }.load(Ordering::Relaxed) != EVENTS_OFF
    }

    pub fn base(&self) -> u32 {
        let half = |c: u32| (c & self.mask) | u32::from(c >> self.shift & 1 == 0) << 15;
        half(self.next) | half(self.used) << 16
    }
}
