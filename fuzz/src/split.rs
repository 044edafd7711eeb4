//! The split ring's reference (virtio 1.2, section 2.7): simple rather than fast.

use crate::input::Input;
use crate::memory::{Guest, Piece, Spot, address, length};
use crate::reference::{Chain, Format, INDIRECT, MAX_CHAIN, NEXT, Peek, Setup, WRITE};

/// A split ring.
pub struct Split {
    setup: Setup,
    /// The guest's: next avail index.
    offered: u16,
    /// The device's: next used entry, and what it has published.
    used: u16,
    published: u16,
    /// What was completed last.
    last: u16,
}

fn put_desc(guest: &mut Guest, spot: Spot, addr: u64, len: u32, flags: u16, next: u16) {
    guest.write(spot, &addr.to_le_bytes());
    guest.write(spot.plus(8), &len.to_le_bytes());
    guest.write(spot.plus(12), &flags.to_le_bytes());
    guest.write(spot.plus(14), &next.to_le_bytes());
}

impl Split {
    fn desc(&self, index: u16) -> Spot {
        self.setup.areas[0].plus(16 * usize::from(index))
    }

    fn avail(&self, word: usize) -> Spot {
        self.setup.areas[1].plus(2 * word)
    }

    fn slot(&self, index: u16) -> usize {
        usize::from(index % self.setup.size)
    }

    /// The index of a descriptor: mostly there is one, sometimes just not.
    fn index(&self, input: &mut Input<'_>) -> u16 {
        match input.u8() {
            index @ 0..=239 => u16::from(index) % self.setup.size,
            255 => input.u16(),
            beyond => self.setup.size.wrapping_add(u16::from(beyond)).wrapping_sub(242),
        }
    }

    fn check_entry(&self, guest: &Guest, index: u16, expected: (u16, u32)) {
        let entry = self.setup.areas[2].plus(4 + 8 * self.slot(index));
        let found = (guest.u32(entry), guest.u32(entry.plus(4)));
        assert_eq!(found, (expected.0.into(), expected.1), "used entry {index}");
    }

    fn way(&self) -> u16 {
        if self.setup.writable { WRITE } else { 0 }
    }

    fn offer(&mut self, guest: &mut Guest, head: u16) {
        guest.write(self.avail(2 + self.slot(self.offered)), &head.to_le_bytes());
        self.offered = self.offered.wrapping_add(1);
    }

    fn publish(&self, guest: &mut Guest) {
        guest.write(self.avail(1), &self.offered.to_le_bytes());
    }

    /// Chains in order, of one to four buffers each.
    fn good_chains(&mut self, guest: &mut Guest, input: &mut Input<'_>) {
        let (shape, first, len) = (input.u8(), input.u8(), u32::from(input.u8()) + 1);
        let (chains, descs) = (u16::from(shape >> 2) + 1, u16::from(shape & 3) + 1);
        let mut next = u16::from(first);
        for _ in 0..chains {
            let head = next % self.setup.size;
            for left in (0..descs.min(self.setup.size)).rev() {
                let at = next % self.setup.size;
                next = next.wrapping_add(1);
                let more = if left > 0 { NEXT } else { 0 };
                let addr = guest.guest_addr(Spot { region: 1, at: 64 * usize::from(at % 120) });
                put_desc(guest, self.desc(at), addr, len, self.way() | more, next % self.setup.size);
            }
            self.offer(guest, head);
        }
        self.publish(guest);
    }

    fn chain(&self, guest: &Guest, position: u16) -> Option<Chain> {
        let (size, mut table, mut indirect) = (self.setup.size, self.setup.areas[0], false);
        let (mut entries, mut chain) = (u32::from(size), Chain { slots: 1, ..Chain::default() });
        chain.id = guest.u16(self.avail(2 + self.slot(position)));
        let mut at = u32::from(chain.id);
        let mut left = entries.min(MAX_CHAIN);
        loop {
            if at >= entries || left == 0 {
                return None;
            }
            left -= 1;
            chain.descriptors += 1;
            let desc = table.plus(16 * at as usize);
            let (addr, len) = (u64::from_le_bytes(guest.read(desc)), guest.u32(desc.plus(8)));
            let (flags, next) = (guest.u16(desc.plus(12)), guest.u16(desc.plus(14)));
            if flags & INDIRECT != 0 {
                if indirect || !self.setup.indirect || flags & NEXT != 0 {
                    return None;
                }
                if !len.is_multiple_of(16) || len == 0 || len / 16 > u32::from(size) {
                    return None;
                }
                let [piece] = guest.pieces(addr, len)?[..] else { return None };
                chain.table = Some(piece);
                (table, entries, indirect, at) = (piece.spot, len / 16, true, 0);
                left = entries.min(MAX_CHAIN);
                continue;
            }
            if (flags & WRITE != 0) != self.setup.writable {
                return None;
            }
            chain.add(guest, addr, len)?;
            if flags & NEXT == 0 {
                return Some(chain);
            }
            at = next.into();
        }
    }
}

impl Format for Split {
    const FEATURE: u64 = 0;
    type Position = u16;

    fn areas(size: u16) -> [(usize, usize); 3] {
        let size = usize::from(size);
        [(16 * size, 16), (6 + 2 * size, 2), (6 + 8 * size, 4)]
    }

    fn size_allowed(size: u16) -> bool {
        size.is_power_of_two()
    }

    fn position(_size: u16, base: u32) -> Option<(u16, u16)> {
        Some((u16::try_from(base).ok()?, 0))
    }

    fn fresh_base(_size: u16, at: u8) -> u32 {
        u16::from(at).wrapping_sub(64).into()
    }

    fn new(setup: Setup, guest: &Guest, base: u32) -> Split {
        let used = guest.u16(setup.areas[2].plus(2));
        Split { setup, offered: base as u16, used, published: used, last: 0 }
    }

    fn device_areas(&self) -> Vec<Piece> {
        vec![Piece { spot: self.setup.areas[2], len: Split::areas(self.setup.size)[2].0 }]
    }

    fn guest_move(&mut self, kind: u8, guest: &mut Guest, input: &mut Input<'_>) {
        match kind {
            0 => {
                let index = input.u8();
                let spot = self.desc(u16::from(index) % self.setup.size);
                let (addr, len) = (address(input, guest), length(input));
                let (flags, next) = (input.u8(), self.index(input));
                put_desc(guest, spot, addr, len, u16::from(flags & 7) ^ self.way(), next);
            }
            1 => {
                let head = self.index(input);
                self.offer(guest, head);
                self.publish(guest);
            }
            2 => {
                let index = input.u16();
                guest.write(self.avail(1), &index.to_le_bytes());
                if index & 1 == 0 {
                    self.offered = index;
                }
            }
            3 => {
                // An indirect table, and a descriptor for it.
                let (shape, index) = (input.u8(), input.u8());
                let table =
                    Spot { region: 1 + usize::from(shape >> 7), at: usize::from(input.u16()) % 0x700 };
                let entries = u16::from(shape & 7) + 1;
                for entry in 0..entries {
                    let (addr, len, flags) = (address(input, guest), length(input), input.u8());
                    let next = if flags & 0x80 != 0 { u16::from(input.u8()) } else { entry + 1 };
                    let more = if entry + 1 < entries { NEXT } else { 0 };
                    let flags = u16::from(flags & 7) ^ self.way() ^ more;
                    put_desc(guest, table.plus(16 * usize::from(entry)), addr, len, flags, next);
                }
                let len = u32::from(entries) * 16 + u32::from(shape >> 3 & 1);
                let addr = guest.guest_addr(table);
                let flags = INDIRECT | u16::from(shape >> 4 & 3);
                put_desc(
                    guest,
                    self.desc(u16::from(index) % self.setup.size),
                    addr,
                    len,
                    flags,
                    input.u8().into(),
                );
            }
            4 => {
                let (flags, event) = (input.u8(), input.u16());
                guest.write(self.avail(0), &u16::from(flags).to_le_bytes());
                guest.write(self.avail(2 + usize::from(self.setup.size)), &event.to_le_bytes());
            }
            5 => self.good_chains(guest, input),
            _ => {
                let heads = input.u8() % 64;
                for head in 0..heads {
                    self.offer(guest, head.into());
                }
                self.publish(guest);
            }
        }
    }

    fn peek(&self, guest: &Guest, position: u16, _busy: u16) -> Peek {
        self.chain(guest, position).map_or(Peek::Bad, Peek::Chain)
    }

    fn behind(&self, position: u16, _chain: &Chain) -> u16 {
        position.wrapping_add(1)
    }

    fn base(&self, position: u16) -> u32 {
        position.into()
    }

    fn left(known: u16, _chain: &Chain) -> u16 {
        known.saturating_sub(1)
    }

    fn check_available(&self, guest: &Guest, position: u16, busy: u16, wanted: u16, found: u16) {
        assert!(found <= self.setup.size - busy, "{found} chains beside {busy}");
        if found < wanted {
            let ahead = guest.u16(self.avail(1)).wrapping_sub(position);
            assert_eq!(found, ahead, "it says that there are no more");
        }
    }

    fn offered(&self, guest: &Guest, position: u16, busy: u16) -> Option<u16> {
        let ahead = guest.u16(self.avail(1)).wrapping_sub(position);
        (ahead <= self.setup.size - busy).then_some(ahead)
    }

    fn known_with(seen: u16, _known: u16, _found: u16) -> u16 {
        seen
    }

    fn check_used(&mut self, guest: &Guest, chain: &Chain, len: u32) {
        self.last = chain.id;
        if !self.setup.batched {
            self.check_entry(guest, self.used, (chain.id, len));
        }
        self.used = self.used.wrapping_add(1);
    }

    fn check_published(&mut self, guest: &Guest, any: bool) {
        assert_eq!(any, self.used != self.published);
        let index = guest.u16(self.setup.areas[2].plus(2));
        if any {
            assert_eq!(index, self.used, "used index");
            if self.setup.batched {
                self.check_entry(guest, self.published, (self.last, 0));
            }
        }
        self.published = self.used;
    }
}
