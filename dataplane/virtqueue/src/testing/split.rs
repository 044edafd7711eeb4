//! The driver's side of a split ring.

use super::*;
use crate::{RingConfig, SplitRing};

/// The driver.
pub struct Driver {
    pub guest: Guest,
    pub size: u16,
    pub features: u64,
    pub avail: u16,
    pub seen: u16,
    /// Heads of what is not used, in the order in which they were published.
    posted: VecDeque<u16>,
    wires: Wires,
}

impl Driver {
    pub fn new(size: u16, features: u64) -> Driver {
        let rings = used_of(size) - RINGS + 6 + 8 * u64::from(size);
        let guest = guest_with_rings(rings);
        Driver { guest, size, features, avail: 0, seen: 0, posted: VecDeque::new(), wires: Wires::new() }
    }

    /// As if `index` entries had gone by already.
    pub fn at_index(mut self, index: u16) -> Driver {
        (self.avail, self.seen) = (index, index);
        self.set_avail_index(index);
        self.set_used_index(index);
        self
    }

    /// The same driver on other memory.
    pub fn over(self, guest: Guest) -> Driver {
        Driver { guest, ..self }
    }

    pub fn config(&self) -> RingConfig {
        self.wires.connect(RingConfig {
            index: 1,
            size: self.size,
            desc: self.desc_addr() + USER,
            avail: self.avail_addr() + USER,
            used: self.used_addr() + USER,
            base: u32::from(self.avail),
            features: self.features,
            memory: self.guest.memory.clone(),
            kick: None,
            call: None,
            err: None,
        })
    }

    /// A ring over what is published so far and not used.
    pub fn start(&self) -> SplitRing {
        self.start_at(self.seen)
    }

    pub fn start_at(&self, base: u16) -> SplitRing {
        SplitRing::start(RingConfig { base: base.into(), ..self.config() }).unwrap()
    }

    pub fn desc_addr(&self) -> u64 {
        RINGS
    }

    pub fn avail_addr(&self) -> u64 {
        avail_of(self.size)
    }

    pub fn used_addr(&self) -> u64 {
        used_of(self.size)
    }

    /// Writes a descriptor at any address.
    pub fn set_desc_at(&self, at: u64, buf: Buf, next: u16) {
        self.guest.write(at, &desc_bytes(buf, [buf.flags, next]));
    }

    /// Writes a descriptor of the ring's own table.
    pub fn set_desc(&self, index: u16, buf: Buf, next: u16) {
        self.set_desc_at(self.desc_addr() + 16 * u64::from(index), buf, next);
    }

    /// Links `bufs` through the descriptors `slots`; the last keeps its flags.
    pub fn chain(&self, slots: &[u16], bufs: &[Buf]) {
        assert_eq!(slots.len(), bufs.len());
        for (i, (slot, buf)) in slots.iter().zip(bufs).enumerate() {
            match slots.get(i + 1) {
                Some(next) => self.set_desc(*slot, Buf { flags: buf.flags | NEXT, ..*buf }, *next),
                None => self.set_desc(*slot, *buf, 0xdead),
            }
        }
    }

    /// Writes an indirect table and returns the buffer that names it.
    pub fn table(&self, at: u64, bufs: &[Buf]) -> Buf {
        for (i, buf) in bufs.iter().enumerate() {
            let more = if i + 1 < bufs.len() { NEXT } else { 0 };
            let next = if more == NEXT { i as u16 + 1 } else { 0xdead };
            self.set_desc_at(at + 16 * i as u64, Buf { flags: buf.flags | more, ..*buf }, next);
        }
        Buf { addr: at, len: 16 * bufs.len() as u32, flags: INDIRECT }
    }

    /// Publishes the chain that starts at `head`.
    pub fn offer(&mut self, head: u16) {
        self.set_avail_entry(self.avail, head);
        self.posted.push_back(head);
        self.avail = self.avail.wrapping_add(1);
        self.set_avail_index(self.avail);
    }

    /// Links and publishes a chain.
    pub fn post(&mut self, slots: &[u16], bufs: &[Buf]) {
        self.chain(slots, bufs);
        self.offer(slots[0]);
    }

    /// What was used since the last look: (id, length). With IN_ORDER an entry stands for all that were
    /// published before, and the next one is as many entries further (virtio 1.2, 2.7.9).
    pub fn used(&mut self) -> Vec<(u32, u32)> {
        let mut used = Vec::new();
        while self.seen != self.used_index() {
            let at = self.used_addr() + 4 + 8 * u64::from(self.seen % self.size);
            let (id, len) = (self.guest.read_u32(at), self.guest.read_u32(at + 4));
            if self.features & F_IN_ORDER != 0 {
                let mut heads = batch(&mut self.posted, id as u16);
                let left = self.used_index().wrapping_sub(self.seen);
                assert!(heads.len() <= left.into(), "an entry for {} of {left} chains", heads.len());
                heads.pop();
                used.extend(heads.iter().map(|head| (u32::from(*head), 0)));
                self.seen = self.seen.wrapping_add(heads.len() as u16);
            }
            used.push((id, len));
            self.seen = self.seen.wrapping_add(1);
        }
        used
    }

    pub fn set_avail_flags(&self, flags: u16) {
        self.guest.write_u16(self.avail_addr(), flags);
    }

    pub fn set_avail_index(&self, index: u16) {
        self.guest.write_u16(self.avail_addr() + 2, index);
    }

    pub fn set_avail_entry(&self, index: u16, head: u16) {
        self.guest.write_u16(self.avail_addr() + 4 + 2 * u64::from(index % self.size), head);
    }

    pub fn set_used_event(&self, index: u16) {
        self.guest.write_u16(self.avail_addr() + 4 + 2 * u64::from(self.size), index);
    }

    pub fn used_flags(&self) -> u16 {
        self.guest.read_u16(self.used_addr())
    }

    pub fn used_index(&self) -> u16 {
        self.guest.read_u16(self.used_addr() + 2)
    }

    pub fn set_used_index(&self, index: u16) {
        self.guest.write_u16(self.used_addr() + 2, index);
    }

    pub fn avail_event(&self) -> u16 {
        self.guest.read_u16(self.used_addr() + 4 + 8 * u64::from(self.size))
    }

    /// Whether a driver that has published from `old` up to now would kick (virtio 1.2, 2.7.10).
    pub fn would_kick(&self, old: u16) -> bool {
        if self.features & F_EVENT_IDX == 0 {
            return self.used_flags() & 1 == 0;
        }
        let published = self.avail.wrapping_sub(old);
        (0..published).any(|i| old.wrapping_add(i) == self.avail_event())
    }

    /// Calls since the last look; `expected` where there are no eventfds.
    pub fn calls(&self, expected: u64) -> u64 {
        self.wires.calls(expected)
    }

    /// Errors since the last look; `expected` where there are no eventfds.
    pub fn errors(&self, expected: u64) -> u64 {
        self.wires.errors(expected)
    }

    /// Sleeps until called; `false` after ten seconds.
    pub fn sleep(&self) -> bool {
        self.wires.sleep()
    }
}

fn avail_of(size: u16) -> u64 {
    RINGS + 16 * u64::from(size)
}

fn used_of(size: u16) -> u64 {
    (avail_of(size) + 6 + 2 * u64::from(size)).next_multiple_of(4)
}
