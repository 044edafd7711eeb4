//! The packed ring's reference (virtio 1.2, section 2.8): simple rather than fast.

use crate::input::Input;
use crate::memory::{Guest, Piece, Spot, address, length};
use crate::reference::{Chain, Format, INDIRECT, MAX_CHAIN, NEXT, Peek, Setup, WRITE};

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// A slot, and the wrap counter there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    slot: u16,
    wrap: bool,
}

impl Position {
    fn new(bits: u32) -> Position {
        Position { slot: bits as u16 & 0x7fff, wrap: bits & 0x8000 != 0 }
    }

    fn bits(self) -> u32 {
        u32::from(self.slot) | u32::from(self.wrap) << 15
    }

    fn after(self, slots: u16, size: u16) -> Position {
        (0..slots).fold(self, |Position { slot, wrap }, _| {
            if slot + 1 == size {
                Position { slot: 0, wrap: !wrap }
            } else {
                Position { slot: slot + 1, wrap }
            }
        })
    }

    fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }
}

/// A packed ring.
pub struct Packed {
    setup: Setup,
    /// The guest's: next slot to make available.
    offered: Position,
    /// The device's: next slot to write as used.
    used: Position,
    /// What it has written since it last published, but not shown: slot and flags of the first.
    hidden: Option<(u16, u16)>,
    /// What was completed last.
    last: u16,
}

fn put_desc(guest: &mut Guest, spot: Spot, addr: u64, len: u32, id: u16, flags: u16) {
    guest.write(spot, &addr.to_le_bytes());
    guest.write(spot.plus(8), &len.to_le_bytes());
    guest.write(spot.plus(12), &id.to_le_bytes());
    guest.write(spot.plus(14), &flags.to_le_bytes());
}

impl Packed {
    fn desc(&self, slot: u16) -> Spot {
        self.setup.areas[0].plus(16 * usize::from(slot))
    }

    fn check_desc(&self, guest: &Guest, slot: u16, expected: (u16, u32)) {
        let desc = self.desc(slot);
        let found = (guest.u16(desc.plus(12)), guest.u32(desc.plus(8)));
        assert_eq!(found, expected, "used descriptor in slot {slot}");
    }

    fn flags(&self, guest: &Guest, position: Position) -> u16 {
        guest.u16(self.desc(position.slot).plus(14))
    }

    fn is_available(&self, guest: &Guest, position: Position) -> bool {
        self.flags(guest, position) & (AVAIL | USED) == position.available()
    }

    fn way(&self) -> u16 {
        if self.setup.writable { WRITE } else { 0 }
    }

    /// Puts a descriptor where the guest goes on.
    fn offer(&mut self, guest: &mut Guest, addr: u64, len: u32, id: u16, flags: u16) {
        let at = self.offered;
        put_desc(guest, self.desc(at.slot), addr, len, id, flags | at.available());
        self.offered = at.after(1, self.setup.size);
    }

    /// Chains in order, of one to four buffers each.
    fn good_chains(&mut self, guest: &mut Guest, input: &mut Input<'_>) {
        let (shape, id, len) = (input.u8(), input.u8(), u32::from(input.u8()) + 1);
        let (chains, descs) = (u16::from(shape >> 2) + 1, u16::from(shape & 3) + 1);
        for chain in 0..chains {
            for left in (0..descs.min(self.setup.size)).rev() {
                let more = if left > 0 { NEXT } else { 0 };
                let at = 64 * usize::from(self.offered.slot % 120);
                let addr = guest.guest_addr(Spot { region: 1, at });
                self.offer(guest, addr, len, u16::from(id).wrapping_add(chain), self.way() | more);
            }
        }
    }

    /// One descriptor's buffer, or all of its table's.
    fn add(&self, guest: &Guest, chain: &mut Chain, addr: u64, len: u32, flags: u16) -> Option<()> {
        if flags & INDIRECT == 0 {
            chain.descriptors += 1;
            return ((flags & WRITE != 0) == self.setup.writable).then(|| chain.add(guest, addr, len))?;
        }
        if !self.setup.indirect || flags & NEXT != 0 || chain.slots > 1 {
            return None;
        }
        if !len.is_multiple_of(16) || len == 0 || len / 16 > u32::from(self.setup.size).min(MAX_CHAIN) {
            return None;
        }
        let [table] = guest.pieces(addr, len)?[..] else { return None };
        chain.table = Some(table);
        for entry in 0..len as usize / 16 {
            let desc = table.spot.plus(16 * entry);
            let flags = guest.u16(desc.plus(14));
            // A transmit table's entries may be marked writable: DPDK's driver does so.
            if flags & INDIRECT != 0 || (self.setup.writable && flags & WRITE == 0) {
                return None;
            }
            chain.descriptors += 1;
            chain.add(guest, u64::from_le_bytes(guest.read(desc)), guest.u32(desc.plus(8)))?;
        }
        Some(())
    }

    fn chain(&self, guest: &Guest, mut position: Position, open: u16) -> Option<Chain> {
        let mut chain = Chain::default();
        loop {
            if u32::from(chain.slots) == u32::from(open).min(MAX_CHAIN) {
                return None;
            }
            chain.slots += 1;
            let desc = self.desc(position.slot);
            let (addr, len) = (u64::from_le_bytes(guest.read(desc)), guest.u32(desc.plus(8)));
            let flags = self.flags(guest, position);
            chain.id = guest.u16(desc.plus(12));
            self.add(guest, &mut chain, addr, len, flags)?;
            if flags & NEXT == 0 {
                return Some(chain);
            }
            position = position.after(1, self.setup.size);
        }
    }
}

impl Format for Packed {
    const FEATURE: u64 = 1 << 34;
    type Position = Position;

    fn areas(size: u16) -> [(usize, usize); 3] {
        [(16 * usize::from(size), 16), (4, 4), (4, 4)]
    }

    fn size_allowed(size: u16) -> bool {
        (1..=32768).contains(&size)
    }

    fn position(size: u16, base: u32) -> Option<(Position, u16)> {
        let next = Position::new(base);
        let used = if base >> 16 == 0 { next } else { Position::new(base >> 16) };
        if next.slot >= size || used.slot >= size {
            return None;
        }
        let busy = match next.wrap == used.wrap {
            true => next.slot.checked_sub(used.slot)?,
            false if next.slot <= used.slot => size - used.slot + next.slot,
            false => return None,
        };
        Some((next, busy))
    }

    fn fresh_base(size: u16, at: u8) -> u32 {
        let slot = u32::from(at >> 1) % u32::from(size.max(1));
        let bits = slot | (u32::from(at & 1) << 15);
        bits | bits << 16
    }

    fn new(setup: Setup, _guest: &Guest, base: u32) -> Packed {
        let used = if base >> 16 == 0 { base } else { base >> 16 };
        Packed { setup, offered: Position::new(base), used: Position::new(used), hidden: None, last: 0 }
    }

    fn device_areas(&self) -> Vec<Piece> {
        let len = Packed::areas(self.setup.size)[0].0;
        vec![Piece { spot: self.setup.areas[0], len }, Piece { spot: self.setup.areas[2], len: 4 }]
    }

    fn guest_move(&mut self, kind: u8, guest: &mut Guest, input: &mut Input<'_>) {
        match kind {
            0 => {
                // Anywhere, and not as the wrap counter has it.
                let index = input.u8();
                let spot = self.desc(u16::from(index) % self.setup.size);
                let (addr, len, id) = (address(input, guest), length(input), input.u8());
                put_desc(guest, spot, addr, len, id.into(), input.u16());
            }
            1 => {
                let (addr, len, id, flags) = (address(input, guest), length(input), input.u16(), input.u8());
                self.offer(guest, addr, len, id, u16::from(flags & 7) ^ self.way());
            }
            2 => {
                // The guest goes on elsewhere, or changes the flags where it was.
                let (how, bits) = (input.u8(), input.u16());
                let slot = bits % self.setup.size;
                if how & 1 == 0 {
                    self.offered = Position { slot, wrap: how & 2 != 0 };
                } else {
                    let flags = u16::from(how & 6) | if how & 8 != 0 { AVAIL } else { 0 };
                    let flags = flags | if how & 16 != 0 { USED } else { 0 };
                    guest.write(self.desc(slot).plus(14), &flags.to_le_bytes());
                }
            }
            3 => {
                // An indirect table, and a descriptor for it.
                let (shape, id) = (input.u8(), input.u8());
                let table =
                    Spot { region: 1 + usize::from(shape >> 7), at: usize::from(input.u16()) % 0x700 };
                let entries = u16::from(shape & 7) + 1;
                for entry in 0..entries {
                    let (addr, len, flags) = (address(input, guest), length(input), input.u8());
                    let flags = u16::from(flags & 7) ^ self.way();
                    put_desc(guest, table.plus(16 * usize::from(entry)), addr, len, 0, flags);
                }
                let len = u32::from(entries) * 16 + u32::from(shape >> 3 & 1);
                let addr = guest.guest_addr(table);
                self.offer(guest, addr, len, id.into(), INDIRECT | u16::from(shape >> 4 & 3));
            }
            4 => {
                let (event, flags) = (input.u16(), input.u8());
                guest.write(self.setup.areas[1], &event.to_le_bytes());
                guest.write(self.setup.areas[1].plus(2), &u16::from(flags).to_le_bytes());
            }
            5 => self.good_chains(guest, input),
            _ => {
                // A chain whose first descriptor becomes available last.
                let (descs, len) = (u16::from(input.u8() % 8) + 2, u32::from(input.u8()) + 1);
                let first = self.offered;
                for left in (0..descs.min(self.setup.size)).rev() {
                    let more = if left > 0 { NEXT } else { 0 };
                    let addr = guest.guest_addr(Spot { region: 2, at: usize::from(left) * 100 });
                    self.offer(guest, addr, len, left, self.way() | more);
                }
                if input.u8() & 1 != 0 {
                    guest.write(self.desc(first.slot).plus(14), &[0, 0]);
                }
            }
        }
    }

    fn peek(&self, guest: &Guest, position: Position, busy: u16) -> Peek {
        let open = self.setup.size - busy;
        if open == 0 || !self.is_available(guest, position) {
            return Peek::Nothing;
        }
        self.chain(guest, position, open).map_or(Peek::Bad, Peek::Chain)
    }

    fn behind(&self, position: Position, chain: &Chain) -> Position {
        position.after(chain.slots, self.setup.size)
    }

    fn base(&self, position: Position) -> u32 {
        position.bits() | self.used.bits() << 16
    }

    fn left(known: u16, chain: &Chain) -> u16 {
        known.saturating_sub(chain.slots)
    }

    fn check_available(&self, guest: &Guest, position: Position, busy: u16, wanted: u16, found: u16) {
        let open = self.setup.size - busy;
        assert!(found <= open, "{found} descriptors beside {busy}");
        if found < wanted.min(open) {
            let next = position.after(found, self.setup.size);
            assert!(!self.is_available(guest, next), "it says that there are no more");
        }
    }

    fn offered(&self, _guest: &Guest, _position: Position, _busy: u16) -> Option<u16> {
        Some(u16::MAX)
    }

    fn known_with(_seen: u16, known: u16, found: u16) -> u16 {
        known.max(found)
    }

    fn check_used(&mut self, guest: &Guest, chain: &Chain, len: u32) {
        let (slot, batched) = (self.used.slot, self.setup.batched);
        self.last = chain.id;
        if !batched {
            self.check_desc(guest, slot, (chain.id, len));
        }
        let written = if len > 0 && !batched { WRITE } else { 0 };
        let flags = if self.used.wrap { AVAIL | USED } else { 0 } | written;
        if self.hidden.is_none() {
            self.hidden = Some((slot, flags));
        } else if !batched {
            assert_eq!(self.flags(guest, self.used), flags, "flags of slot {slot}");
        }
        self.used = self.used.after(chain.slots, self.setup.size);
    }

    fn check_published(&mut self, guest: &Guest, any: bool) {
        assert_eq!(any, self.hidden.is_some());
        if let Some((slot, flags)) = self.hidden.take() {
            assert_eq!(guest.u16(self.desc(slot).plus(14)), flags, "flags of slot {slot}");
            if self.setup.batched {
                self.check_desc(guest, slot, (self.last, 0));
            }
        }
    }
}
