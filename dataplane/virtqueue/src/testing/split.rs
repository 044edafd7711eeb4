//! The driver's side of a split ring.

use super::*;
use crate::{RingConfig, SetupError, SplitRing};

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

    /// Publishes the chain that starts at `head`.
    pub fn offer(&mut self, head: u16) {
        self.set_avail_entry(self.avail, head);
        self.posted.push_back(head);
        self.avail = self.avail.wrapping_add(1);
        self.set_avail_index(self.avail);
    }

    /// Links and publishes a chain.
    pub fn post_in(&mut self, slots: &[u16], bufs: &[Buf]) {
        self.chain(slots, bufs);
        self.offer(slots[0]);
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
}

impl RingDriver for Driver {
    type Ring = SplitRing;

    const SIZE: u16 = 4;

    const UNDEFINED: u16 = !(NEXT | WRITE | INDIRECT);

    fn new(size: u16, features: u64) -> Driver {
        let guest = guest_with_rings(end_of(size) - RINGS);
        Driver { guest, size, features, avail: 0, seen: 0, posted: VecDeque::new(), wires: Wires::new() }
    }

    fn at(self, count: u64) -> Driver {
        let index = count as u16;
        self.set_avail_index(index);
        self.set_used_index(index);
        Driver { avail: index, seen: index, posted: VecDeque::new(), ..self }
    }

    fn over(self, guest: Guest) -> Driver {
        Driver { guest, ..self }
    }

    fn guest(&self) -> &Guest {
        &self.guest
    }

    fn wires(&self) -> &Wires {
        &self.wires
    }

    fn is_size(size: u16) -> bool {
        size.is_power_of_two()
    }

    fn wraps_at(_size: u16) -> u64 {
        1 << 16
    }

    fn head(_size: u16, _count: u64, id: u16) -> u16 {
        id
    }

    fn base(&self, count: u64) -> u32 {
        u32::from(count as u16)
    }

    fn avail(&self) -> u64 {
        self.avail.into()
    }

    fn posted_since(&self, place: u64) -> u16 {
        self.avail.wrapping_sub(place as u16)
    }

    fn config(&self) -> RingConfig {
        self.wires.connect(RingConfig {
            index: 1,
            size: self.size,
            desc: self.desc_addr() + USER,
            avail: self.avail_addr() + USER,
            used: self.used_addr() + USER,
            base: self.base(self.seen.into()),
            features: self.features,
            memory: self.guest.memory.clone(),
            kick: None,
            call: None,
            err: None,
        })
    }

    fn ring(config: RingConfig) -> Result<SplitRing, SetupError> {
        SplitRing::start(config)
    }

    fn areas(&self) -> usize {
        (end_of(self.size) - RINGS) as usize
    }

    fn post(&mut self, id: u16, bufs: &[Buf]) {
        let slot = |i| ((usize::from(id) + 3 * i) % usize::from(self.size)) as u16;
        let slots: Vec<u16> = (0..bufs.len()).map(slot).collect();
        self.post_in(&slots, bufs);
    }

    fn table(&self, at: u64, bufs: &[Buf]) -> Buf {
        for (i, buf) in bufs.iter().enumerate() {
            let more = if i + 1 < bufs.len() { NEXT } else { 0 };
            let next = if more == NEXT { i as u16 + 1 } else { 0xdead };
            self.set_desc_at(at + 16 * i as u64, Buf { flags: buf.flags | more, ..*buf }, next);
        }
        Buf { addr: at, len: 16 * bufs.len() as u32, flags: INDIRECT }
    }

    fn has_used(&self) -> bool {
        self.seen != self.used_index()
    }

    /// With IN_ORDER an entry stands for all that were published before, and the next one is as many entries further
    /// (virtio 1.2, 2.7.9).
    fn used(&mut self) -> Vec<(u16, u32)> {
        let mut used = Vec::new();
        while self.has_used() {
            let at = self.used_addr() + 4 + 8 * u64::from(self.seen % self.size);
            let (id, len) = (self.guest.read_u32(at), self.guest.read_u32(at + 4));
            let id = u16::try_from(id).expect("an id that is no descriptor");
            if self.features & F_IN_ORDER != 0 {
                let mut heads = batch(&mut self.posted, id);
                let left = self.used_index().wrapping_sub(self.seen);
                assert!(heads.len() <= left.into(), "an entry for {} of {left} chains", heads.len());
                heads.pop();
                self.seen = self.seen.wrapping_add(heads.len() as u16);
                used.extend(heads.into_iter().map(|head| (head, 0)));
            }
            used.push((id, len));
            self.seen = self.seen.wrapping_add(1);
        }
        used
    }

    fn want_calls(&self, wanted: bool) {
        self.set_avail_flags((!wanted).into());
        self.set_used_event(self.seen);
    }

    /// Virtio 1.2, 2.7.10.
    fn would_kick(&self, old: u64) -> bool {
        let old = old as u16;
        if self.features & F_EVENT_IDX == 0 {
            return match self.used_flags() {
                0 => true,
                1 => false,
                flags => panic!("reserved flags {flags:#x}"),
            };
        }
        let published = self.avail.wrapping_sub(old);
        (0..published).any(|i| old.wrapping_add(i) == self.avail_event())
    }
}

fn avail_of(size: u16) -> u64 {
    RINGS + 16 * u64::from(size)
}

fn used_of(size: u16) -> u64 {
    (avail_of(size) + 6 + 2 * u64::from(size)).next_multiple_of(4)
}

/// Where the used ring ends, and with it the areas.
fn end_of(size: u16) -> u64 {
    used_of(size) + 6 + 8 * u64::from(size)
}
