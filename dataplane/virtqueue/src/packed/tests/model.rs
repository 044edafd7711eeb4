//! What a device must make of a packed ring, said as plainly as it can be: descriptors are counted from the
//! first lap on, every byte is looked up by itself, and nothing is remembered but the counts.

use super::*;
use crate::testing::packed::*;
use crate::testing::*;

pub const HEADER: u32 = 12;

/// What is at a place in the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing that is available.
    Nothing,
    /// A chain: its id, how many descriptors it has, and its buffers.
    Chain(u16, u64, Vec<(u64, u32)>),
    /// Something that is to be refused.
    Wrong,
}

/// A chain to return: its id, how many descriptors it has, and the bytes written to it (or its room).
pub type Used = (u16, u64, u32);

/// The device as it should be.
pub struct Model {
    pub size: u64,
    pub features: u64,
    /// Descriptors taken.
    pub taken: u64,
    /// Descriptors returned.
    pub returned: u64,
    /// Descriptors returned and published.
    pub published: u64,
    /// Flags to write when publishing, if there is anything to publish.
    first: Option<u16>,
    called: bool,
}

impl Model {
    pub fn new(driver: &Driver) -> Model {
        let (size, features, at) = (driver.size.into(), driver.features, driver.seen);
        Model { size, features, taken: at, returned: at, published: at, first: None, called: false }
    }

    fn word(driver: &Driver, addr: u64) -> u64 {
        u64::from_le_bytes(driver.guest.read(addr, 8).try_into().unwrap())
    }

    fn desc(driver: &Driver, addr: u64) -> (Buf, u16) {
        let (first, second) = (Model::word(driver, addr), Model::word(driver, addr + 8));
        (Buf { addr: first, len: second as u32, flags: (second >> 48) as u16 }, (second >> 32) as u16)
    }

    fn mapped(driver: &Driver, addr: u64) -> bool {
        let regions = driver.guest.memory.regions();
        regions.iter().any(|region| region.guest_addr() <= addr && addr - region.guest_addr() < region.len())
    }

    /// Whether the bytes are mapped; long ranges are looked at where a region may start or end.
    fn range_mapped(driver: &Driver, addr: u64, len: u32) -> bool {
        let last = addr.checked_add(u64::from(len) - 1);
        let edges = [RINGS, DATA, SEAM, HOLE].map(|edge| edge.clamp(addr, last.unwrap_or(addr)));
        last.is_some_and(|last| [addr, last].iter().chain(&edges).all(|addr| Model::mapped(driver, *addr)))
    }

    /// What is at descriptor `count`, if no more than `open` descriptors from there on are the guest's.
    pub fn look(&self, driver: &Driver, count: u64, open: u64, way: u16) -> Look {
        let mut bufs = Vec::new();
        let mut descs = 0;
        if open == 0 || driver.flags(count) & (AVAIL | USED) != driver.available(count) {
            return Look::Nothing;
        }
        let id = loop {
            if descs == open {
                return Look::Wrong;
            }
            let (buf, id) = Model::desc(driver, driver.slot_addr(count + descs));
            descs += 1;
            if buf.flags & INDIRECT != 0 {
                let entries = u64::from(buf.len) / 16;
                let good = self.features & F_INDIRECT != 0
                    && buf.flags & NEXT == 0
                    && descs == 1
                    && buf.len % 16 == 0
                    && (1..=self.size).contains(&entries)
                    && driver.guest.memory.guest_to_host(buf.addr, buf.len.into()).is_some();
                if !good {
                    return Look::Wrong;
                }
                bufs.extend((0..entries).map(|entry| Model::desc(driver, buf.addr + 16 * entry).0));
                // A transmit table's entries may be marked writable.
                if way == 0 {
                    bufs.iter_mut().for_each(|buf| buf.flags &= !WRITE);
                }
                if bufs.iter().any(|buf| buf.flags & INDIRECT != 0) {
                    return Look::Wrong;
                }
                break id;
            }
            bufs.push(buf);
            if buf.flags & NEXT == 0 {
                break id;
            }
        };
        let good = |buf: &Buf| {
            buf.len > 0 && buf.flags & WRITE == way && Model::range_mapped(driver, buf.addr, buf.len)
        };
        let len: u64 = bufs.iter().map(|buf| u64::from(buf.len)).sum();
        match bufs.iter().all(good) && len <= u64::from(u32::MAX) {
            true => Look::Chain(id, descs, bufs.iter().map(|buf| (buf.addr, buf.len)).collect()),
            false => Look::Wrong,
        }
    }

    /// Descriptors from `taken` on that are the guest's.
    pub fn open(&self) -> u64 {
        self.size - (self.taken - self.published)
    }

    /// What is to be taken next.
    pub fn next(&self, driver: &Driver) -> Look {
        self.look(driver, self.taken, self.open(), 0)
    }

    /// What is offered for a packet: each chain's id, descriptors and room; and whether there can never be more.
    pub fn offer(&self, driver: &Driver, len: u32, max_chains: u16) -> Result<(Vec<Used>, bool), ()> {
        let (mut count, mut chains) = (self.taken, Vec::new());
        while chains.len() < usize::from(max_chains) {
            let descs = count - self.taken;
            match self.look(driver, count, self.open() - descs, WRITE) {
                Look::Wrong => return Err(()),
                Look::Nothing => return Ok((chains, descs == self.size)),
                Look::Chain(id, descs, bufs) => {
                    let room = bufs.iter().map(|buf| buf.1).sum::<u32>();
                    if chains.is_empty() && room < HEADER {
                        return Err(());
                    }
                    chains.push((id, descs, room));
                    count += descs;
                }
            }
            if chains.iter().map(|chain| u64::from(chain.2)).sum::<u64>() >= len.into() {
                return Ok((chains, false));
            }
        }
        Ok((chains, true))
    }

    /// What of an offer is used for `len` bytes: as much as there is, and at least one chain.
    pub fn used(offered: &[Used], len: u32) -> Vec<Used> {
        let (mut left, mut used) = (len, Vec::new());
        for (id, descs, room) in offered {
            if used.is_empty() || left > 0 {
                used.push((*id, *descs, left.min(*room)));
                left -= left.min(*room);
            }
        }
        used
    }

    /// What is to be reserved for a packet: the answer, and each chain's id, descriptors and length used.
    pub fn reserve(
        &self,
        driver: &Driver,
        len: u32,
        max_chains: u16,
    ) -> Result<(Reservation, Vec<Used>), ()> {
        let (offered, all) = self.offer(driver, len, max_chains)?;
        let room: u64 = offered.iter().map(|chain| u64::from(chain.2)).sum();
        Ok(match (offered.is_empty() || room < len.into(), all) {
            (true, true) => (Reservation::TooSmall, vec![]),
            (true, false) => (Reservation::Short, vec![]),
            (false, _) => (Reservation::Ready(offered.len() as u16), Model::used(&offered, len)),
        })
    }

    /// The ring's bytes after a chain was returned, from what they were before.
    pub fn complete(&mut self, driver: &Driver, ring: &mut [u8], id: u16, descs: u64, len: u32) {
        let at = 16 * usize::from(driver.slot(self.returned));
        ring[at + 8..at + 12].copy_from_slice(&len.to_le_bytes());
        ring[at + 12..at + 14].copy_from_slice(&id.to_le_bytes());
        let used = if driver.wrap(self.returned) { AVAIL | USED } else { 0 };
        let flags = used | if len > 0 { WRITE } else { 0 };
        match self.first {
            None => self.first = Some(flags),
            Some(_) => ring[at + 14..at + 16].copy_from_slice(&flags.to_le_bytes()),
        }
        self.returned += descs;
    }

    /// The ring's bytes after publishing, and what it answers.
    pub fn publish(&mut self, driver: &Driver, ring: &mut [u8]) -> Call {
        let Some(flags) = self.first.take() else { return Call::Nothing };
        let at = 16 * usize::from(driver.slot(self.published));
        ring[at + 14..at + 16].copy_from_slice(&flags.to_le_bytes());
        let event = driver.guest.read_u16(driver.driver_event_addr());
        let by_event = self.features & F_EVENT_IDX != 0;
        let wanted = match driver.guest.read_u16(driver.driver_event_addr() + 2) & 3 {
            DISABLE => false,
            AT_DESC if by_event => {
                let passed = (self.published..self.returned).any(|count| driver.bits(count) == event);
                // Where an event beyond the ring is, is anybody's guess.
                if event & 0x7fff >= driver.size && self.called {
                    self.published = self.returned;
                    return Call::Nothing;
                }
                passed || !self.called
            }
            _ => true,
        };
        self.called = true;
        self.published = self.returned;
        if wanted && !cfg!(miri) { Call::Sent } else { Call::Suppressed }
    }
}
