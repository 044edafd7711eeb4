//! Random guests, of all degrees of decency, against the model.

use proptest::prelude::*;

use super::model::{HEADER, Look, Model, Used};
use super::*;
use crate::testing::packed::*;
use crate::testing::*;

/// Guest addresses a hostile guest would think of.
fn addrs() -> impl Strategy<Value = u64> {
    let edges = prop::sample::select(vec![0, RINGS, RINGS + 16, DATA, SEAM, HOLE, DATA + USER, u64::MAX]);
    prop_oneof![
        16 => DATA..HOLE - 0x400,
        2 => (edges, -70..70i64).prop_map(|(edge, off)| edge.wrapping_add_signed(off)),
        1 => any::<u64>(),
    ]
}

/// A descriptor without a word on whose it is.
fn descs() -> impl Strategy<Value = Buf> {
    let lens = prop_oneof![
        12 => 1..100u32,
        8 => (1..8u32).prop_map(|n| n * 16),
        1 => prop::sample::select(vec![0, 0xffff, 0x1_0000, 0x8000_0000, u32::MAX]),
        1 => any::<u32>(),
    ];
    let flags = prop_oneof![6 => Just(0u16), 6 => Just(WRITE), 2 => 0..8u16, 1 => 0..0x7fu16];
    (addrs(), lens, flags).prop_map(|(addr, len, flags)| Buf { addr, len, flags })
}

#[derive(Clone, Debug)]
enum Op {
    /// Chains as they should be, of as many descriptors as there are, if they fit; with an id each.
    Post(Vec<Vec<Buf>>),
    /// A table of entries as they should be, and a chain that names it.
    PostTable(u64, Vec<Buf>),
    /// A descriptor made available at some place from the next one on.
    Expose(u64, Buf, u16),
    Flags(u64, u16),
    /// Eight bytes anywhere in the ring's memory.
    Bytes(u64, u64),
    Wish(u16, u16),
    Available(u16),
    Take,
    /// Returns some of the chains held.
    Complete(usize, u32),
    Untake,
    Reserve(u32, u16),
    /// Looks for room, and takes as much as so many bytes need, or nothing.
    Offer(u32, u16, Option<u32>),
    Publish,
    Kicks(bool),
}

/// What a guest does that keeps the ring itself sound, and what we do.
fn sound() -> impl Strategy<Value = Op> {
    let chains = prop::collection::vec(prop::collection::vec(descs(), 1..4), 1..4);
    let table = prop::collection::vec(descs(), 1..6);
    prop_oneof![
        6 => chains.prop_map(Op::Post),
        2 => (DATA..HOLE - 0x400, table).prop_map(|(at, bufs)| Op::PostTable(at, bufs)),
        2 => (any::<u16>(), 0..4u16).prop_map(|(event, flags)| Op::Wish(event, flags)),
        1 => (0..9u16).prop_map(Op::Available),
        8 => Just(Op::Take),
        4 => (any::<usize>(), 0..3u32).prop_map(|(at, len)| Op::Complete(at, len)),
        1 => Just(Op::Untake),
        6 => (HEADER..300u32, 0..9u16).prop_map(|(len, chains)| Op::Reserve(len, chains)),
        6 => (0..400u32, 0..9u16, prop::option::of(0..400u32)).prop_map(|(len, n, used)| Op::Offer(len, n, used)),
        4 => Just(Op::Publish),
        1 => any::<bool>().prop_map(Op::Kicks),
    ]
}

fn hostile() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => sound(),
        4 => (0..4u64, descs(), any::<u16>()).prop_map(|(at, buf, id)| Op::Expose(at, buf, id)),
        1 => (0..9u64, any::<u16>()).prop_map(|(at, flags)| Op::Flags(at, flags)),
        1 => (0..200u64, any::<u64>()).prop_map(|(at, bytes)| Op::Bytes(at, bytes)),
    ]
}

/// Joins what follows on from the piece before: how a chain is cut is the ring's business.
fn joined(pieces: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (addr, len) in pieces {
        match joined.last_mut() {
            Some(last) if last.0 + last.1 == addr => last.1 += len,
            _ => joined.push((addr, len)),
        }
    }
    joined
}

/// One guest, the ring and the model.
struct Trial {
    driver: Driver,
    ring: PackedRing,
    model: Model,
    held: Vec<Token>,
    /// Descriptors the guest has made available, in good faith.
    posted: u64,
    stopped: Option<Violation>,
    /// The last thing done was to take a chain.
    just_taken: bool,
}

impl Trial {
    fn new(driver: Driver) -> Trial {
        let (ring, model, posted) = (driver.start(), Model::new(&driver), driver.avail);
        Trial { driver, ring, model, held: vec![], posted, stopped: None, just_taken: false }
    }

    fn bytes(&self) -> Vec<u8> {
        self.driver.guest.read(RINGS, 16 * usize::from(self.driver.size))
    }

    /// What the guest does.
    fn misbehave(&mut self, op: &Op) {
        let driver = &self.driver;
        match op {
            Op::Post(chains) => chains.iter().for_each(|chain| self.post(chain)),
            Op::PostTable(at, bufs) => {
                let table = driver.table(*at, bufs);
                self.post(&[table]);
            }
            Op::Expose(at, buf, id) => driver.expose(self.model.taken + at, *buf, *id),
            Op::Flags(at, flags) => driver.set_flags(*at, *flags),
            Op::Bytes(at, bytes) => {
                let at = at % (16 * self.model.size - 7);
                driver.guest.write(RINGS + at, &bytes.to_le_bytes());
            }
            Op::Wish(event, flags) => driver.set_raw_wish(*event, *flags),
            _ => {}
        }
    }

    /// Links `bufs` unless there is no room; all but direction is theirs.
    fn post(&mut self, bufs: &[Buf]) {
        let n = bufs.len() as u64;
        if self.posted + n > self.model.published + self.model.size {
            return;
        }
        for (i, buf) in bufs.iter().enumerate().rev() {
            let next = if i + 1 < bufs.len() { NEXT } else { 0 };
            let flags = buf.flags & !NEXT | next;
            self.driver.expose(self.posted + i as u64, Buf { flags, ..*buf }, i as u16 ^ 0x4321);
        }
        self.posted += n;
    }

    /// What we do, and what the model does.
    fn turn(&mut self, op: &Op) -> Result<(), Violation> {
        let mut expected = self.bytes();
        let outcome = match op {
            Op::Available(n) => self.ring.available(*n).map(drop),
            Op::Take => self.take(),
            Op::Complete(at, len) if !self.held.is_empty() => {
                let token = self.held.swap_remove(at % self.held.len());
                self.model.complete(&self.driver, &mut expected, token.id, token.descs.into(), *len);
                self.ring.complete(token, *len);
                Ok(())
            }
            Op::Untake if self.just_taken => {
                self.ring.untake();
                self.model.taken -= u64::from(self.held.pop().unwrap().descs);
                Ok(())
            }
            Op::Reserve(len, chains) => self.reserve(*len, *chains, &mut expected),
            Op::Offer(len, chains, used) => self.offer(*len, *chains, *used, &mut expected),
            Op::Publish => {
                let call = self.model.publish(&self.driver, &mut expected);
                let told = self.ring.publish();
                // `Nothing` although there was something: the model does not know.
                assert!(told == call || call == Call::Nothing);
                let called = u64::from(told == Call::Sent);
                assert_eq!(self.driver.calls(called), called);
                Ok(())
            }
            Op::Kicks(wanted) => {
                self.ring.set_kicks(*wanted);
                assert_eq!(self.driver.device_wish().1 == DISABLE, !wanted);
                Ok(())
            }
            _ => Ok(()),
        };
        assert_eq!(self.bytes(), expected, "what was written");
        self.just_taken = matches!(op, Op::Take) && outcome.is_ok() && self.just_taken;
        outcome
    }

    fn take(&mut self) -> Result<(), Violation> {
        let look = self.model.next(&self.driver);
        self.just_taken = false;
        if self.ring.available(1)? == 0 {
            assert!(self.stopped.is_some() || look == Look::Nothing);
            return Ok(());
        }
        let taken = match self.ring.take() {
            Err(violation) => {
                let withdrawn = matches!(violation, Violation::Withdrawn { .. });
                assert_eq!(look, if withdrawn { Look::Nothing } else { Look::Wrong });
                return Err(violation);
            }
            Ok(taken) => taken.expect("something was available"),
        };
        let Look::Chain(id, descs, bufs) = look else { panic!("{look:?} was taken") };
        let Taken { token, len, .. } = taken;
        assert_eq!((token.id, u64::from(token.descs)), (id, descs));
        assert_eq!(len, bufs.iter().map(|buf| buf.1).sum::<u32>());
        let lent = self.driver.lent(&self.ring).into_iter().map(|(addr, len)| (addr, len as u64));
        assert_eq!(joined(lent), joined(bufs.iter().map(|buf| (buf.0, buf.1.into()))));
        self.held.push(token);
        self.model.taken += descs;
        self.just_taken = true;
        Ok(())
    }

    fn reserve(&mut self, len: u32, chains: u16, expected: &mut [u8]) -> Result<(), Violation> {
        // Chains come back in the order in which they were taken; here nothing is held.
        let outcome = self.model.reserve(&self.driver, len, chains);
        match self.ring.reserve(len, HEADER, chains) {
            Ok(_) if self.stopped.is_some() => {}
            Ok(reservation) => {
                let (answer, used) = outcome.expect("should have been refused");
                assert_eq!(reservation, answer);
                let room: usize = self.driver.lent(&self.ring).iter().map(|(_, len)| len).sum();
                assert!(used.is_empty() && room == 0 || room >= len as usize);
                self.take_all(used, expected);
            }
            Err(violation) => {
                let withdrawn = matches!(violation, Violation::Withdrawn { .. });
                assert!(outcome.is_err() || withdrawn);
                return Err(violation);
            }
        }
        Ok(())
    }

    fn take_all(&mut self, used: Vec<Used>, expected: &mut [u8]) {
        for (id, descs, len) in used {
            self.model.complete(&self.driver, expected, id, descs, len);
            self.model.taken += descs;
        }
    }

    fn offer(
        &mut self,
        len: u32,
        chains: u16,
        used: Option<u32>,
        expected: &mut [u8],
    ) -> Result<(), Violation> {
        let outcome = self.model.offer(&self.driver, len, chains);
        match self.ring.offer(len, HEADER, chains) {
            Ok(offer) if self.stopped.is_some() => assert_eq!((offer.chains, self.ring.accept(len)), (0, 0)),
            Ok(offer) => {
                let (offered, all) = outcome.expect("should have been refused");
                assert_eq!((usize::from(offer.chains), offer.all), (offered.len(), all));
                let room: u64 = offered.iter().map(|chain| u64::from(chain.2)).sum();
                assert_eq!(u64::from(offer.room), room.min(u32::MAX.into()));
                let lent: usize = self.driver.lent(&self.ring).iter().map(|(_, len)| len).sum();
                assert_eq!((lent as u64, self.bytes() == expected), (room, true));
                match used {
                    Some(len) => {
                        let used = Model::used(&offered, len);
                        assert_eq!(usize::from(self.ring.accept(len)), used.len());
                        self.take_all(used, expected);
                    }
                    None => self.ring.decline(),
                }
            }
            Err(violation) => {
                let withdrawn = matches!(violation, Violation::Withdrawn { .. });
                assert!(outcome.is_err() || withdrawn);
                return Err(violation);
            }
        }
        Ok(())
    }
}

fn trial(size: u16, features: u64, start: u64, ops: &[Op]) {
    let mut trial = Trial::new(Driver::new(size, features).at(start));
    for op in ops {
        trial.misbehave(op);
        if let Err(violation) = trial.turn(op) {
            assert_eq!(trial.stopped, None, "a stopped ring spoke");
            trial.stopped = Some(violation);
            assert_eq!(trial.driver.errors(1), 1);
        }
        let (ring, model) = (&trial.ring, &trial.model);
        assert_eq!(ring.violation(), trial.stopped);
        assert_eq!(ring.base() as u16, trial.driver.bits(model.taken));
        assert_eq!((ring.base() >> 16) as u16, trial.driver.bits(model.returned));
        assert!(trial.stopped.is_none() || !ring.has_news());
    }
}

proptest! {
    #![proptest_config(runs(512))]

    /// Whatever is in the ring's memory: what the model takes is taken, what it refuses is refused, every
    /// byte that is written is one that should be, and a violation is the last word.
    #[test]
    fn garbage_is_taken_or_refused_and_never_believed(
        size in prop::sample::select(vec![1u16, 2, 3, 5, 8]), features in 0..4u64, start in 0..20u64,
        ops in prop::collection::vec(hostile(), 1..100),
    ) {
        trial(size, features << 28, start, &ops);
    }

    /// The same where the ring itself is sound, and only buffers and tables may not be.
    #[test]
    fn a_sound_ring_goes_on_as_the_model_does(
        size in 1..20u16, features in 0..4u64, start in 0..60u64,
        ops in prop::collection::vec(sound(), 1..100),
    ) {
        trial(size, features << 28, start, &ops);
    }
}
