//! Packets to the guest: room for one, and what is written there.

use virtqueue::{Cursor, Reservation, Violation};

use super::{PIECES, Play, check_segments, overlap, pieces};
use crate::input::Input;
use crate::memory::Piece;
use crate::reference::{Chain, Format, Peek};

impl<F: Format> Play<F> {
    /// What a packet of `len` bytes would be put into, as far as the chains are in order, and whether it fits.
    fn plan(&self, len: u32, most: u16) -> (Vec<Chain>, bool) {
        let (mut chains, mut position, mut busy, mut left) =
            (Vec::new(), self.position, self.busy(), u64::from(len));
        while chains.len() < usize::from(most.min(1024)) {
            let Peek::Chain(chain) = self.format.peek(&self.guest, position, busy) else { break };
            position = self.format.behind(position, &chain);
            busy += chain.slots;
            left = left.saturating_sub(chain.len);
            chains.push(chain);
            if left == 0 {
                return (chains, true);
            }
            if busy >= self.setup.size {
                break;
            }
        }
        (chains, false)
    }

    pub(super) fn reserve(&mut self, input: &mut Input<'_>) {
        let (len, header, most) = (input.u16(), input.u8() % 32, input.u8() % 40);
        let (plan, fits) = self.plan(len.into(), most.into());
        // Used entries are written while later chains are read: a guest that lets them overlap is on its own.
        let areas = self.format.device_areas();
        let odd = |piece: &Piece| areas.iter().any(|area| overlap(*area, *piece));
        let known = !self.overlapping() && !plan.iter().filter_map(|chain| chain.table.as_ref()).any(odd);
        let broken = self.violation.is_some();
        let outcome = self.ring().reserve(len.into(), header.into(), most.into());
        self.taken = None;
        match outcome {
            Ok(Reservation::Ready(chains)) => {
                assert!(!broken && chains > 0 && chains <= most.into(), "{chains} chains");
                if known {
                    assert!(fits && plan.len() == usize::from(chains), "{chains} chains: {plan:?}");
                    assert!(plan[0].len >= header.into(), "no room for the header");
                    check_segments(self.ring.as_dyn().segments(), &pieces(&plan));
                    self.received(len.into(), plan);
                } else {
                    self.lose_track();
                }
                return;
            }
            Ok(_) => {
                let offered = self.format.offered(&self.guest, self.position, self.busy()).unwrap_or(0);
                let ready = fits && usize::from(offered) >= plan.len() && !broken;
                assert!(!ready || !known, "{outcome:?} with {plan:?}");
            }
            Err(violation) => self.refused(violation, (&plan, fits), header.into(), known),
        }
        assert!(self.ring().segments().is_empty());
        // What it has looked at, it may know of; nothing is asked of that here.
        (self.known, self.unsure) = (0, true);
        self.check_base();
        self.check_memory();
    }

    /// No room was found in chains of which those in `plan` are in order; notes the violation.
    fn refused(&mut self, violation: Violation, (plan, fits): (&[Chain], bool), header: u64, known: bool) {
        let fine = fits && plan[0].len >= header;
        let offered = self.format.offered(&self.guest, self.position, self.busy());
        let few = pieces(plan).len() <= PIECES;
        let fine = fine && few && offered.is_some_and(|offered| usize::from(offered) >= plan.len());
        assert!(!fine || !known, "{violation} with {plan:?}");
        self.failed(violation);
    }

    /// Looks for room for a packet of unknown length, and takes as much as so many bytes need, or nothing.
    pub(super) fn offer(&mut self, input: &mut Input<'_>) {
        let (most, header, chains, len) = (input.u16(), input.u8() % 32, input.u8() % 40, input.u16());
        let (mut plan, fits) = self.plan(most.into(), chains.into());
        let (broken, known) = (self.violation.is_some(), !self.overlapping());
        self.taken = None;
        self.check_memory();
        let outcome = self.ring().offer(most.into(), header.into(), chains.into());
        // Nothing is written by looking, not even where it may be.
        self.guest.check();
        let offer = match outcome {
            Ok(offer) => offer,
            Err(violation) => {
                self.refused(violation, (&plan, fits), header.into(), known);
                assert!(self.ring().segments().is_empty());
                (self.known, self.unsure) = (0, true);
                return self.check_base();
            }
        };
        assert!(!broken || offer.chains == 0, "{} chains of a broken ring", offer.chains);
        let offered = self.format.offered(&self.guest, self.position, self.busy()).unwrap_or(0);
        let all = usize::from(offered) >= plan.len() && !broken;
        let found = usize::from(offer.chains);
        assert!(found == plan.len() || found < plan.len() && !all, "{found} of {plan:?}");
        plan.truncate(found);
        check_segments(self.ring.as_dyn().segments(), &pieces(&plan));
        assert_eq!(
            u64::from(offer.room),
            plan.iter().map(|chain| chain.len).sum::<u64>().min(u32::MAX.into())
        );
        self.check_base();
        let len = u32::from(len / 2).min(offer.room);
        if plan.is_empty() || len % 4 == 3 {
            self.ring().decline();
            (self.known, self.unsure) = (0, true);
            return self.check_memory();
        }
        let mut left = u64::from(len);
        let needed = plan.iter().take_while(|chain| {
            let more = left > 0;
            left = left.saturating_sub(chain.len);
            more
        });
        plan.truncate(needed.count().max(1));
        assert_eq!(usize::from(self.ring().accept(len)), plan.len());
        if known { self.received(len, plan) } else { self.lose_track() }
    }

    /// Receives into the chains that were taken.
    fn received(&mut self, len: u32, plan: Vec<Chain>) {
        let pieces = pieces(&plan);
        let mut left = len;
        for chain in &plan {
            let part = u32::try_from(chain.len).unwrap_or(u32::MAX).min(left);
            // All are entered at once; a later one's slot is none of an earlier one's.
            self.format.check_used(&self.guest, chain, part);
            self.hidden += chain.slots;
            left -= part;
            self.position = self.format.behind(self.position, chain);
        }
        (self.known, self.unsure) = (0, true);
        self.check_base();
        self.check_memory();
        let packet: Vec<u8> = (0..len).map(|at| (at * 7 + 1) as u8).collect();
        let mut cursor = Cursor::new(self.ring.as_dyn().segments());
        let half = packet.len() / 3;
        assert_eq!(cursor.write(&packet[..half]), half);
        assert_eq!(cursor.write(&packet[half..]), packet.len() - half);
        let mut rest = &packet[..];
        for piece in pieces {
            let (now, later) = rest.split_at(piece.len.min(rest.len()));
            self.guest.expect(piece.spot, now);
            rest = later;
        }
        self.check_memory();
    }
}
