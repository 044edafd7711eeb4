//! What the guest has made available: chains, one at a time, or a burst of single descriptors.
#![allow(unsafe_code)] // descriptors are read out of tables in guest memory

use super::SplitRing;
use super::layout::{Desc, Table};
use crate::chain::{INDIRECT, MAX_CHAIN, NEXT, WRITE, add_len};
use crate::singles::{self, Finder};
use crate::{Offer, Token, Violation, Virtqueue};

impl SplitRing {
    /// Takes the chain at `next_avail`, all of whose descriptors must have the direction `WAY`, and adds
    /// its pieces to those kept.
    #[inline(always)]
    pub(super) fn walk<const WAY: u16>(&mut self) -> Result<(Token, u32), Violation> {
        match self.read_chain::<WAY>() {
            Ok(chain) => {
                self.next_avail = self.next_avail.wrapping_add(1);
                Ok(chain)
            }
            Err(violation) => Err(self.fail(violation)),
        }
    }

    /// One or two descriptors, the common case, are read without a loop.
    #[inline(always)]
    fn read_chain<const WAY: u16>(&mut self) -> Result<(Token, u32), Violation> {
        let id = self.avail.entry(self.next_avail.into());
        let size = self.config.size;
        if id >= size {
            return Err(Violation::Head { at: self.next_avail, head: id, size });
        }
        // SAFETY: the head was compared to the table's size.
        let first = unsafe { self.desc.read(id) };
        if first.flags == WAY {
            self.pieces.add(id, first.addr, first.len)?;
            return Ok((Token { id, descs: 1 }, first.len));
        }
        if first.flags != WAY | NEXT || first.next >= size {
            let (descs, len) = self.read_on::<WAY>(id, self.desc, first, 1, 0)?;
            return Ok((Token { id, descs }, len));
        }
        // SAFETY: next was compared to the table's size.
        let second = unsafe { self.desc.read(first.next) };
        self.pieces.add(id, first.addr, first.len)?;
        if second.flags != WAY {
            let (descs, len) = self.read_on::<WAY>(id, self.desc, second, 2, first.len)?;
            return Ok((Token { id, descs }, len));
        }
        self.pieces.add(id, second.addr, second.len)?;
        Ok((Token { id, descs: 2 }, add_len(id, first.len, second.len)?))
    }

    /// The rest of a chain from `desc`, its `descs`th in `table`, on, with `len` bytes before it. Returns
    /// how many descriptors of the table the chain has, and its length.
    #[cold]
    fn read_on<const WAY: u16>(
        &mut self,
        head: u16,
        table: Table,
        mut desc: Desc,
        mut descs: u16,
        mut len: u32,
    ) -> Result<(u16, u32), Violation> {
        loop {
            if descs > table.size.min(MAX_CHAIN) {
                return Err(Violation::ChainTooLong { head });
            }
            if desc.flags & INDIRECT != 0 {
                return Ok((descs, self.read_indirect::<WAY>(head, table, desc, len)?));
            }
            if desc.flags & WRITE != WAY {
                return Err(Violation::Direction { head });
            }
            self.pieces.add(head, desc.addr, desc.len)?;
            len = add_len(head, len, desc.len)?;
            if desc.flags & NEXT == 0 {
                return Ok((descs, len));
            }
            let (next, size) = (desc.next, table.size);
            if next >= size {
                return Err(Violation::Next { head, next, size });
            }
            // SAFETY: next was compared to the table's size.
            desc = unsafe { table.read(next) };
            descs += 1;
        }
    }

    /// An indirect table in place of the rest of the chain (virtio 1.2, 2.7.5.3).
    fn read_indirect<const WAY: u16>(
        &mut self,
        head: u16,
        table: Table,
        desc: Desc,
        len: u32,
    ) -> Result<u32, Violation> {
        if !self.indirect || desc.flags & NEXT != 0 || table.indirect {
            return Err(Violation::Indirect { head });
        }
        let (at, size) = self.pieces.table(head, desc.addr, desc.len, self.config.size)?;
        // SAFETY: all of it was just found mapped, and the ring holds the memory table that keeps it so.
        let table = unsafe { Table::new(at, size, true) };
        // SAFETY: it has at least one entry.
        let first = unsafe { table.read(0) };
        let (_, len) = self.read_on::<WAY>(head, table, first, 1, len)?;
        Ok(len)
    }

    /// Finds the next chains of one piece, at most `most`, of direction `WAY`, as far as `add` adds them.
    #[inline(always)]
    pub(super) fn find_singles<const WAY: u16>(
        &mut self,
        most: u16,
        mut add: impl FnMut(&mut Finder, u16, Desc) -> bool,
    ) {
        let SplitRing { desc: table, avail, singles, pieces, next_avail, .. } = self;
        let (next, table, avail) = (usize::from(*next_avail), *table, *avail);
        let mut finder = singles.find(pieces.translator());
        while finder.count() < usize::from(most).min(singles::MOST) {
            let id = avail.entry(next + finder.count());
            if id >= table.size {
                break;
            }
            // SAFETY: just compared.
            let desc = unsafe { table.read(id) };
            if desc.flags != WAY || !add(&mut finder, id, desc) {
                break;
            }
        }
        finder.finish();
    }

    /// Walks chains for a packet, from `next_avail` on, and moves that on.
    #[inline(always)]
    pub(super) fn look_for_room(
        &mut self,
        len: u32,
        header: u32,
        max_chains: u16,
    ) -> Result<Offer, Violation> {
        let most = max_chains.min(MAX_CHAIN);
        let (mut offer, mut descs) = (Offer::default(), 0);
        while offer.chains < most {
            if self.available(1)? == 0 {
                // Whether the guest has no descriptor left that it could add.
                offer.all = descs >= u32::from(self.config.size);
                return Ok(offer);
            }
            let (token, room) = self.walk::<WRITE>()?;
            if offer.chains == 0 && room < header {
                return Err(self.fail(Violation::NoRoom { head: token.id, room }));
            }
            descs += u32::from(token.descs);
            self.offered.add(&token, room);
            offer.chains += 1;
            offer.room = offer.room.saturating_add(room);
            if offer.room >= len {
                return Ok(offer);
            }
        }
        Ok(Offer { all: true, ..offer })
    }
}
