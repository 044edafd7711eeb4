//! The driver's side of a packed ring. It counts descriptors from the ring's first lap on, and takes slot and
//! wrap counter from that number (virtio 1.2, 2.8.1): nothing is shared with the device's arithmetic.

use std::collections::HashMap;

use super::*;
use crate::{PackedRing, RingConfig, SetupError};

/// Flag of a descriptor, see virtio 1.2, 2.8.1.
pub const AVAIL: u16 = 1 << 7;
/// Likewise.
pub const USED: u16 = 1 << 15;

/// Event suppression: always, never, at a descriptor (virtio 1.2, 2.8.10).
pub const ENABLE: u16 = 0;
/// Likewise.
pub const DISABLE: u16 = 1;
/// Likewise.
pub const AT_DESC: u16 = 2;

/// The driver.
pub struct Driver {
    pub guest: Guest,
    pub size: u16,
    pub features: u64,
    /// Descriptors made available since the first lap.
    pub avail: u64,
    /// Descriptors found used since the first lap.
    pub seen: u64,
    /// Descriptors of each id that is not used.
    pub posted: HashMap<u16, u64>,
    /// These ids, in the order in which they were posted.
    order: VecDeque<u16>,
    wires: Wires,
}

impl Driver {
    pub fn desc_addr(&self) -> u64 {
        RINGS
    }

    pub fn driver_event_addr(&self) -> u64 {
        RINGS + 16 * u64::from(self.size)
    }

    pub fn device_event_addr(&self) -> u64 {
        self.driver_event_addr() + 4
    }

    pub fn slot(&self, count: u64) -> u16 {
        (count % u64::from(self.size)) as u16
    }

    pub fn wrap(&self, count: u64) -> bool {
        (count / u64::from(self.size)).is_multiple_of(2)
    }

    /// Slot and wrap counter as they are in events.
    pub fn bits(&self, count: u64) -> u16 {
        self.slot(count) + if self.wrap(count) { 0x8000 } else { 0 }
    }

    /// The flags that make descriptor `count` available.
    pub fn available(&self, count: u64) -> u16 {
        if self.wrap(count) { AVAIL } else { USED }
    }

    /// Writes a descriptor as it is at any address.
    pub fn set_desc_at(&self, at: u64, buf: Buf, id: u16) {
        self.guest.write(at, &desc_bytes(buf, [id, buf.flags]));
    }

    pub fn slot_addr(&self, count: u64) -> u64 {
        self.desc_addr() + 16 * u64::from(self.slot(count))
    }

    pub fn flags(&self, count: u64) -> u16 {
        self.guest.read_u16(self.slot_addr(count) + 14)
    }

    pub fn set_flags(&self, count: u64, flags: u16) {
        self.guest.write_u16(self.slot_addr(count) + 14, flags);
    }

    /// Writes descriptor `count`, but for its flags.
    pub fn place(&self, count: u64, buf: Buf, id: u16) {
        let bytes = desc_bytes(buf, [id, 0]);
        self.guest.write(self.slot_addr(count), &bytes[..14]);
    }

    /// Writes descriptor `count` and makes it available.
    pub fn expose(&self, count: u64, buf: Buf, id: u16) {
        self.place(count, buf, id);
        self.set_flags(count, buf.flags | self.available(count));
    }

    /// Whether descriptor `count` is flagged as used.
    pub fn is_used(&self, count: u64) -> bool {
        let both = AVAIL | USED;
        self.flags(count) & both == if self.wrap(count) { both } else { 0 }
    }

    /// Wishes for calls: `ENABLE`, `DISABLE`, or `AT_DESC` with the descriptor.
    pub fn set_wish(&self, count: u64, flags: u16) {
        self.set_raw_wish(self.bits(count), flags);
    }

    pub fn set_raw_wish(&self, event: u16, flags: u16) {
        self.guest.write_u16(self.driver_event_addr(), event);
        self.guest.write_u16(self.driver_event_addr() + 2, flags);
    }

    /// The device's wish for kicks: event and flags.
    pub fn device_wish(&self) -> (u16, u16) {
        (self.guest.read_u16(self.device_event_addr()), self.guest.read_u16(self.device_event_addr() + 2))
    }
}

impl RingDriver for Driver {
    type Ring = PackedRing;

    const SIZE: u16 = 5;

    const UNDEFINED: u16 = !(NEXT | WRITE | INDIRECT | AVAIL | USED);

    fn new(size: u16, features: u64) -> Driver {
        let guest = guest_with_rings(areas_of(size) as u64);
        let features = features | F_PACKED;
        let (posted, order) = (HashMap::new(), VecDeque::new());
        Driver { guest, size, features, avail: 0, seen: 0, posted, order, wires: Wires::new() }
    }

    fn at(self, count: u64) -> Driver {
        Driver { avail: count, seen: count, posted: HashMap::new(), order: VecDeque::new(), ..self }
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

    fn is_size(_size: u16) -> bool {
        true
    }

    fn wraps_at(size: u16) -> u64 {
        size.into()
    }

    fn head(size: u16, count: u64, _id: u16) -> u16 {
        (count % u64::from(size)) as u16
    }

    fn base(&self, count: u64) -> u32 {
        u32::from(self.bits(count)) * 0x1_0001
    }

    fn avail(&self) -> u64 {
        self.avail
    }

    fn posted_since(&self, place: u64) -> u16 {
        (self.avail - place) as u16
    }

    fn config(&self) -> RingConfig {
        self.wires.connect(RingConfig {
            index: 1,
            size: self.size,
            desc: self.desc_addr() + USER,
            avail: self.driver_event_addr() + USER,
            used: self.device_event_addr() + USER,
            base: self.base(self.seen),
            features: self.features,
            memory: self.guest.memory.clone(),
            kick: None,
            call: None,
            err: None,
        })
    }

    fn ring(config: RingConfig) -> Result<PackedRing, SetupError> {
        PackedRing::start(config)
    }

    fn areas(&self) -> usize {
        areas_of(self.size)
    }

    /// The first descriptor is made available last. Only the last one has the id.
    fn post(&mut self, id: u16, bufs: &[Buf]) {
        assert!(self.avail - self.seen + bufs.len() as u64 <= u64::from(self.size), "no room");
        assert_eq!(self.posted.insert(id, bufs.len() as u64), None, "an id that is in use");
        self.order.push_back(id);
        let last = bufs.len() - 1;
        for (i, buf) in bufs.iter().enumerate().rev() {
            let count = self.avail + i as u64;
            match i == last {
                true => self.expose(count, *buf, id),
                false => self.expose(count, Buf { flags: buf.flags | NEXT, ..*buf }, !id),
            }
        }
        self.avail += bufs.len() as u64;
    }

    /// All flags but WRITE mean nothing there, and neither do ids (virtio 1.2, 2.8.7).
    fn table(&self, at: u64, bufs: &[Buf]) -> Buf {
        for (i, buf) in bufs.iter().enumerate() {
            let noise = [0, NEXT, AVAIL, USED | NEXT][i % 4];
            self.set_desc_at(at + 16 * i as u64, Buf { flags: buf.flags | noise, ..*buf }, 0xdead);
        }
        Buf { addr: at, len: 16 * bufs.len() as u32, flags: INDIRECT }
    }

    fn has_used(&self) -> bool {
        self.seen < self.avail && self.is_used(self.seen)
    }

    /// With IN_ORDER a used descriptor stands for all chains posted before, and the next one is behind them (virtio
    /// 1.2, 2.8.8).
    fn used(&mut self) -> Vec<(u16, u32)> {
        let mut used = Vec::new();
        while self.has_used() {
            let at = self.slot_addr(self.seen);
            let (len, id) = (self.guest.read_u32(at + 8), self.guest.read_u16(at + 12));
            // Only of a written-to buffer does the length count (virtio 1.2, 2.8.4); it may be 0.
            assert!(len == 0 || self.flags(self.seen) & WRITE != 0);
            if self.features & F_IN_ORDER != 0 {
                let mut ids = batch(&mut self.order, id);
                ids.pop();
                self.seen += ids.iter().filter_map(|id| self.posted.remove(id)).sum::<u64>();
                used.extend(ids.into_iter().map(|id| (id, 0)));
            }
            used.push((id, len));
            self.seen += self.posted.remove(&id).expect("a chain that is not posted was used");
        }
        assert!(self.seen <= self.avail);
        used
    }

    fn want_calls(&self, wanted: bool) {
        let by_event = self.features & F_EVENT_IDX != 0;
        self.set_wish(
            self.seen,
            if !wanted {
                DISABLE
            } else if by_event {
                AT_DESC
            } else {
                ENABLE
            },
        );
    }

    /// Virtio 1.2, 2.8.10.
    fn would_kick(&self, old: u64) -> bool {
        match self.device_wish() {
            (_, ENABLE) => true,
            (_, DISABLE) => false,
            (event, AT_DESC) => (old..self.avail).any(|count| self.bits(count) == event),
            (_, flags) => panic!("reserved flags {flags:#x}"),
        }
    }
}

/// Descriptors and both event areas.
fn areas_of(size: u16) -> usize {
    16 * usize::from(size) + 8
}
