//! What the guest has made available: chains, one at a time, or a burst of single descriptors. A mirror image of
//! `split/avail.rs`.
#![allow(unsafe_code)] // indirect tables are guest memory

use super::PackedRing;
use super::layout::{Desc, Descs, KIND, Position, table_entry};
use crate::chain::{INDIRECT, MAX_CHAIN, NEXT, WRITE, add_len};
use crate::singles::{self, Finder};
use crate::{Offer, Token, Violation};

/// Descriptors of a cache line: as many are read together.
const LINE: u16 = 4;

impl PackedRing {
    /// How many descriptors from `next_avail` on are the guest's to make available.
    #[inline(always)]
    pub(super) fn open(&self) -> u16 {
        self.config.size.saturating_sub(self.held).saturating_sub(self.hidden)
    }

    /// Takes the chain at `next_avail`, if there is one, all of whose descriptors must have the direction
    /// `WAY`, and adds its pieces to those kept.
    #[inline(always)]
    pub(super) fn walk<const WAY: u16>(&mut self) -> Result<Option<(Token, u32)>, Violation> {
        let most = self.open().min(MAX_CHAIN);
        if most == 0 {
            return Ok(None);
        }
        let first = self.descs.read(self.next_avail.slot);
        let chain = if first.is_available(self.next_avail) {
            self.read_chain::<WAY>(first, most)
        } else if self.seen == 0 {
            return Ok(None);
        } else {
            Err(Violation::Withdrawn { head: self.next_avail.slot })
        };
        match chain {
            Ok((token, len)) => {
                self.before = (self.next_avail, self.seen, token.descs);
                self.next_avail = self.next_avail.after(token.descs, self.config.size);
                // The others of a chain are not looked at one by one, and may not all have been seen.
                self.seen = self.seen.saturating_sub(token.descs);
                self.held += token.descs;
                Ok(Some((token, len)))
            }
            Err(violation) => Err(self.fail(violation)),
        }
    }

    /// One or two descriptors, the common case, are read without a loop. A chain's id is its last
    /// descriptor's (virtio 1.2, 2.8.6).
    #[inline(always)]
    fn read_chain<const WAY: u16>(&mut self, first: Desc, most: u16) -> Result<(Token, u32), Violation> {
        let slot = self.next_avail.slot;
        if first.flags & KIND == WAY {
            self.pieces.add(slot, first.addr, first.len)?;
            return Ok((Token { id: first.id, descs: 1 }, first.len));
        }
        if first.flags & KIND != WAY | NEXT || most == 1 {
            return self.read_on::<WAY>(first, most, 1, 0);
        }
        let second = self.descs.read(self.next_avail.after(1, self.config.size).slot);
        self.pieces.add(slot, first.addr, first.len)?;
        if second.flags & KIND != WAY {
            return self.read_on::<WAY>(second, most, 2, first.len);
        }
        self.pieces.add(slot, second.addr, second.len)?;
        Ok((Token { id: second.id, descs: 2 }, add_len(slot, first.len, second.len)?))
    }

    /// The rest of a chain of at most `most` descriptors from `desc`, its `descs`th, on, with `len` bytes
    /// before it.
    #[cold]
    fn read_on<const WAY: u16>(
        &mut self,
        mut desc: Desc,
        most: u16,
        mut descs: u16,
        mut len: u32,
    ) -> Result<(Token, u32), Violation> {
        let head = self.next_avail.slot;
        loop {
            if desc.flags & INDIRECT != 0 {
                // An indirect descriptor is a chain of its own (virtio 1.2, 2.8.19).
                if !self.indirect || desc.flags & NEXT != 0 || descs > 1 {
                    return Err(Violation::Indirect { head });
                }
                len = self.read_indirect::<WAY>(head, desc)?;
                return Ok((Token { id: desc.id, descs }, len));
            }
            if desc.flags & WRITE != WAY {
                return Err(Violation::Direction { head });
            }
            self.pieces.add(head, desc.addr, desc.len)?;
            len = add_len(head, len, desc.len)?;
            if desc.flags & NEXT == 0 {
                return Ok((Token { id: desc.id, descs }, len));
            }
            if descs == most {
                return Err(Violation::ChainTooLong { head });
            }
            desc = self.descs.read(self.next_avail.after(descs, self.config.size).slot);
            descs += 1;
        }
    }

    /// An indirect table: its descriptors lie in order, and only their direction counts (virtio 1.2, 2.8.7).
    fn read_indirect<const WAY: u16>(&mut self, head: u16, desc: Desc) -> Result<u32, Violation> {
        let (at, entries) = self.pieces.table(head, desc.addr, desc.len, self.config.size)?;
        if entries > MAX_CHAIN {
            return Err(Violation::ChainTooLong { head });
        }
        let mut len = 0;
        for index in 0..entries {
            // SAFETY: the whole table was just found mapped.
            let entry = unsafe { table_entry(at, index) };
            if entry.flags & INDIRECT != 0 {
                return Err(Violation::Indirect { head });
            }
            // DPDK's driver marks entries of its transmit tables as device-writable.
            // Reading them harms nobody; writing what the guest has not offered for it would.
            if WAY == WRITE && entry.flags & WRITE == 0 {
                return Err(Violation::Direction { head });
            }
            self.pieces.add(head, entry.addr, entry.len)?;
            len = add_len(head, len, entry.len)?;
        }
        Ok(len)
    }

    /// Finds the next chains of one descriptor and one piece, at most `most`, of direction `WAY`, as far as `add` adds
    /// them, and counts them as held.
    #[inline(always)]
    pub(super) fn find_singles<const WAY: u16>(
        &mut self,
        most: usize,
        mut add: impl FnMut(&mut Finder, Desc) -> bool,
    ) {
        let broken = self.latch.broken();
        let most = if broken { 0 } else { most.min(singles::MOST).min(self.open().into()) };
        let PackedRing { descs, singles, pieces, config, .. } = self;
        let mut at = self.next_avail;
        let mut finder = singles.find(pieces.translator());
        while finder.count() < most {
            let here = at.on_this_lap((most - finder.count()) as u16, config.size);
            let found = match here {
                LINE.. => look::<WAY, { LINE as usize }>(descs, at, &mut finder, &mut add),
                _ => look::<WAY, 1>(descs, at, &mut finder, &mut add),
            };
            at = at.after(found, config.size);
            if found < here.min(LINE) && (here >= LINE || found == 0) {
                break;
            }
        }
        let found = finder.finish() as u16;
        self.before = (self.next_avail, self.seen.max(found), 0);
        self.next_avail = at;
        self.seen = self.seen.saturating_sub(found);
        self.held += found;
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
            let head = self.next_avail.slot;
            let Some((token, room)) = self.walk::<WRITE>()? else {
                // Whether the guest has no descriptor left that it could add.
                offer.all = descs == self.config.size;
                return Ok(offer);
            };
            if offer.chains == 0 && room < header {
                return Err(self.fail(Violation::NoRoom { head, room }));
            }
            descs += token.descs;
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

/// Looks at `K` descriptors from `at` on, all on one lap: how many of them are of direction `WAY` and were added.
#[inline(always)]
fn look<const WAY: u16, const K: usize>(
    descs: &Descs,
    at: Position,
    finder: &mut Finder<'_>,
    add: &mut impl FnMut(&mut Finder, Desc) -> bool,
) -> u16 {
    let read: [Desc; K] = std::array::from_fn(|k| descs.read(at.slot + k as u16));
    for (k, desc) in read.into_iter().enumerate() {
        if !desc.is(at, WAY) || !add(finder, desc) {
            return k as u16;
        }
    }
    // They are the next to be written, too.
    descs.prefetch(at.slot);
    K as u16
}
