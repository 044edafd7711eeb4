//! Chains of one piece, a burst at a time.

use super::{Play, check_content, check_segments, overlap};
use crate::input::Input;
use crate::reference::{Chain, Format, Peek};

/// Chains that are taken or reserved together at most.
const SINGLES: usize = 64;

impl<F: Format> Play<F> {
    /// The next chains, as far as they are of one piece each and have room for so many bytes.
    fn plan_singles(&self, needs: &[u32]) -> Vec<Chain> {
        let (mut chains, mut position, mut busy) = (Vec::new(), self.position, self.busy());
        for need in needs.iter().take(SINGLES) {
            let Peek::Chain(chain) = self.format.peek(&self.guest, position, busy) else { break };
            let single = chain.slots == 1 && chain.descriptors == 1 && chain.pieces.len() == 1;
            if !single || chain.table.is_some() || chain.len < u64::from(*need).max(1) {
                break;
            }
            position = self.format.behind(position, &chain);
            busy += 1;
            chains.push(chain);
        }
        chains
    }

    /// How many chains of those planned a device must find, and how many it then knows of; `None` if it must
    /// refuse the ring.
    fn expect_singles(&self, plan: &[Chain], most: usize) -> Option<(usize, u16)> {
        if self.violation.is_some() {
            return Some((0, self.known));
        }
        let seen = self.format.seen(&self.guest, self.position, self.busy(), self.known, most as u16)?;
        let found = plan.len().min(seen.into());
        Some((found, F::known_with(seen, self.known, found as u16)))
    }

    pub(super) fn take_singles(&mut self, input: &mut Input<'_>) {
        let (most, choice) = (usize::from(input.u8()), input.u8());
        let done = usize::from(choice) % (SINGLES + 2);
        let lens = [1..=u32::MAX, 0..=0, 12..=100, 64..=u32::MAX][usize::from(choice >> 6)].clone();
        let mut plan = self.plan_singles(&vec![*lens.start(); most]);
        let fit = plan.iter().take_while(|chain| chain.len <= u64::from(*lens.end())).count();
        plan.truncate(fit);
        let expected = self.expect_singles(&plan, most);
        self.taken = None;
        let found = match self.ring.as_dyn().take_singles(most as u16, lens) {
            Ok(segments) => {
                for (segment, chain) in segments.iter().zip(&plan) {
                    let segment = std::slice::from_ref(segment);
                    check_segments(segment, &chain.pieces);
                    check_content(&self.guest, segment, &chain.pieces);
                }
                segments.len()
            }
            Err(violation) => {
                assert!(expected.is_none(), "{violation}");
                return self.failed(violation);
            }
        };
        self.found_singles(found, plan.len(), expected);
        self.ring().return_singles(done as u16);
        for chain in plan.into_iter().take(found.min(done)) {
            self.returned_single(&chain, 0);
        }
        self.check_base();
        self.check_memory();
    }

    pub(super) fn reserve_singles(&mut self, input: &mut Input<'_>) {
        let (count, len) = (usize::from(input.u8()) % 80, u32::from(input.u8()));
        let lens: Vec<u32> = (0..count as u32).map(|n| len.wrapping_mul(n * 7 + 1) % 299 + 1).collect();
        let plan = self.plan_singles(&lens);
        let expected = self.expect_singles(&plan, count);
        self.taken = None;
        let packet: Vec<u8> = (0..300).map(|at| (at * 5 + 3) as u8).collect();
        // A guest that lets its buffers overlap its rings is on its own.
        let areas = self.format.device_areas();
        let odd = |chain: &Chain| areas.iter().any(|area| overlap(*area, chain.pieces[0]));
        let lost = self.overlapping() || plan.iter().any(odd);
        let found = match self.ring.as_dyn().reserve_singles(&lens) {
            Ok(segments) => {
                for ((segment, chain), len) in segments.iter().zip(&plan).zip(&lens).filter(|_| !lost) {
                    check_segments(std::slice::from_ref(segment), &chain.pieces);
                    assert!(segment.write(0, &packet[..*len as usize]));
                    self.guest.expect(chain.pieces[0].spot, &packet[..*len as usize]);
                }
                segments.len()
            }
            Err(violation) => {
                assert!(expected.is_none(), "{violation}");
                return self.failed(violation);
            }
        };
        if found > 0 && lost {
            return self.lose_track();
        }
        self.found_singles(found, plan.len(), expected);
        for (chain, len) in plan.iter().zip(&lens).take(found) {
            self.returned_single(chain, *len);
        }
        self.check_base();
        self.check_memory();
    }

    fn found_singles(&mut self, found: usize, planned: usize, expected: Option<(usize, u16)>) {
        if self.unsure {
            assert!(found <= planned, "{found} chains of one piece, there are {planned}");
            self.known = 0;
            return;
        }
        let (expected, known) = expected.expect("a violation that is none");
        assert_eq!(found, expected, "chains of one piece");
        self.known = known;
    }

    fn returned_single(&mut self, chain: &Chain, len: u32) {
        self.known = F::left(self.known, chain);
        self.position = self.format.behind(self.position, chain);
        self.format.check_used(&self.guest, chain, len);
        self.hidden += 1;
    }
}
