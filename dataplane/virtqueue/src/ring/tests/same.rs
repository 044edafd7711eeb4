//! The same guest on both formats, and what it sees is the same.

use std::collections::VecDeque;

use proptest::prelude::*;
use virtio_bindings::virtio_config::VIRTIO_F_IN_ORDER;

use crate::testing::*;
use crate::{Cursor, Offer, Reservation, Ring, Segment, Token};

const HEADER: u32 = 12;
/// Each posted buffer has room of its own.
const STRIDE: u64 = 128;

#[derive(Clone, Debug)]
enum Op {
    /// Buffers of these lengths, through a table or not.
    Post(Vec<u32>, bool),
    Take(u16),
    /// Chains of one piece: so many at most, and so many of them are returned.
    Singles(u16, u16),
    Untake,
    /// Returns so many of the chains held, from a random place on.
    Complete(u16, usize),
    /// A packet of so many bytes, in so many chains at most.
    Packet(u32, u16),
    /// A packet of so many bytes at most, in so many chains at most; then it has so many bytes, or is none.
    Arrival(u32, u16, Option<u32>),
    /// Packets of so many bytes, each in a buffer of one piece.
    Packets(Vec<u32>),
    Publish,
    Kicks(bool),
    /// Returns everything; the ring is stopped, and another started in its place.
    Restart,
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (prop::collection::vec(HEADER..STRIDE as u32, 1..5), any::<bool>()).prop_map(|(lens, table)| Op::Post(lens, table)),
        4 => (1..20u16).prop_map(Op::Take),
        4 => (0..80u16, 0..80u16).prop_map(|(n, done)| Op::Singles(n, done)),
        1 => Just(Op::Untake),
        3 => (1..9u16, any::<usize>()).prop_map(|(n, at)| Op::Complete(n, at)),
        4 => (HEADER..400u32, 0..5u16).prop_map(|(len, chains)| Op::Packet(len, chains)),
        4 => (0..600u32, 0..8u16, prop::option::of(0..600u32)).prop_map(|(most, chains, len)| Op::Arrival(most, chains, len)),
        4 => prop::collection::vec(1..STRIDE as u32, 0..80).prop_map(Op::Packets),
        3 => Just(Op::Publish),
        2 => any::<bool>().prop_map(Op::Kicks),
        1 => Just(Op::Restart),
    ]
}

/// A guest, and a ring of one format.
struct Side {
    guest: Box<dyn Poster>,
    ring: Ring,
    held: Vec<Token>,
    /// Number of each posted chain, by what the guest calls it.
    names: Vec<(u16, u32)>,
    posted: u32,
    buffers: u64,
    /// What was sent and not taken.
    sent: VecDeque<Vec<u8>>,
    last_taken: Vec<u8>,
}

impl Side {
    fn new(format: Format, size: u16, features: u64, index: u16) -> Side {
        let guest = poster(format, size, features);
        let ring = Ring::start(crate::RingConfig { index, ..guest.config() }).unwrap();
        Side {
            guest,
            ring,
            held: vec![],
            names: vec![],
            posted: 0,
            buffers: 0,
            sent: VecDeque::new(),
            last_taken: vec![],
        }
    }

    /// Posts a chain of the right direction; its number, if there was room.
    fn post(&mut self, lens: &[u32], table: bool, flags: u16) -> Option<u32> {
        let (mut bufs, mut content) = (Vec::new(), Vec::new());
        for len in lens {
            // As many as are ever in flight; one of them lies across the seam.
            self.buffers = (self.buffers + 1) % 160;
            let addr = SEAM - 80 * STRIDE + 50 + STRIDE * self.buffers;
            let bytes = pattern(addr, *len as usize);
            self.guest.guest().write(addr, &bytes);
            content.extend(bytes);
            bufs.push(Buf { addr, len: *len, flags });
        }
        let at = table.then_some(SEAM + 0x8000 + u64::from(self.posted % 64) * 80);
        let id = self.guest.post(&bufs, at)?;
        if flags == 0 {
            self.sent.push_back(content);
        }
        self.posted += 1;
        self.names.push((id, self.posted));
        Some(self.posted)
    }

    fn take(&mut self, n: u16) -> Vec<Vec<u8>> {
        let ring = self.ring.as_dyn();
        let mut contents = Vec::new();
        while contents.len() < usize::from(n) && ring.available(1).unwrap() > 0 {
            let taken = ring.take().unwrap().unwrap();
            contents.push(vec![0; taken.segments.iter().map(Segment::len).sum()]);
            let content = contents.last_mut().unwrap();
            assert_eq!(Cursor::new(taken.segments).read(content), taken.len as usize);
            assert_eq!(Some(&*content), self.sent.pop_front().as_ref());
            let token = taken.token;
            self.held.push(token);
            self.last_taken.clone_from(content);
        }
        contents
    }

    /// Takes chains of one piece, and returns `done` of them; how many there were.
    fn singles(&mut self, n: u16, done: u16) -> usize {
        let ring = self.ring.as_dyn();
        let segments = ring.take_singles(n, 1..=u32::MAX).unwrap();
        let taken = segments.len();
        assert!(taken <= usize::from(n).min(64));
        for (segment, sent) in segments.iter().zip(&self.sent) {
            let mut content = vec![0; segment.len()];
            assert!(segment.read(0, &mut content));
            assert_eq!(&content, sent);
        }
        ring.return_singles(done);
        self.sent.drain(..taken.min(done.into()));
        taken
    }

    fn packets(&mut self, lens: &[u32], seed: u64) -> usize {
        let segments = self.ring.as_dyn().reserve_singles(lens).unwrap();
        assert!(segments.len() <= lens.len().min(64));
        for (segment, len) in segments.iter().zip(lens) {
            let packet = pattern(seed, *len as usize);
            assert!(segment.write(0, &packet));
        }
        segments.len()
    }

    /// Returns so many chains: with IN_ORDER those held longest, their lengths unseen.
    fn complete(&mut self, n: u16, at: usize) {
        let in_order = self.ring.config().has(VIRTIO_F_IN_ORDER);
        for len in 0..n.min(self.held.len() as u16) {
            if in_order {
                let token = self.held.remove(0);
                self.ring.as_dyn().complete(token, 0);
            } else {
                let token = self.held.swap_remove(at % self.held.len());
                self.ring.as_dyn().complete(token, len.into());
            }
        }
    }

    fn packet(&mut self, len: u32, chains: u16, seed: u64) -> Reservation {
        let ring = self.ring.as_dyn();
        let reservation = ring.reserve(len, HEADER, chains).unwrap();
        if let Reservation::Ready(_) = reservation {
            let packet = pattern(seed, len as usize);
            assert_eq!(Cursor::new(ring.segments()).write(&packet), len as usize);
        }
        reservation
    }

    /// The offer for a packet of at most `most` bytes, and how many chains it then takes up.
    fn arrival(&mut self, most: u32, chains: u16, len: Option<u32>, seed: u64) -> (Offer, u16) {
        let ring = self.ring.as_dyn();
        let offer = ring.offer(most, HEADER, chains).unwrap();
        let room: usize = ring.segments().iter().map(Segment::len).sum();
        assert_eq!(room, offer.room as usize);
        let Some(len) = len else {
            ring.decline();
            return (offer, 0);
        };
        let len = len.min(offer.room);
        assert_eq!(Cursor::new(ring.segments()).write(&pattern(seed, len as usize)), len as usize);
        (offer, ring.accept(len))
    }

    /// Publishes; what comes back, by number and length.
    fn publish(&mut self) -> Vec<(u32, u32)> {
        self.ring.as_dyn().publish();
        self.guest.calls(0);
        let mut number = |(id, len)| {
            let at = self.names.iter().position(|(name, _)| *name == id).unwrap();
            (self.names.swap_remove(at).1, len)
        };
        let back = self.guest.collect();
        back.into_iter().map(&mut number).collect()
    }

    fn restart(&mut self) -> Vec<(u32, u32)> {
        self.complete(u16::MAX, 0);
        let back = self.publish();
        let (index, base) = (self.ring.index(), self.ring.base());
        let config = crate::RingConfig { index, base, ..self.guest.config() };
        self.ring = Ring::start(config).unwrap();
        back
    }

    /// Asks for kicks or not, and posts: whether it was worth looking before, and whether a kick came.
    fn kicks(&mut self, wanted: bool, flags: u16) -> Option<(bool, bool)> {
        self.ring.as_dyn().set_kicks(wanted);
        let news = self.ring.as_dyn().has_news();
        self.post(&[20], false, flags)?;
        Some((news, self.guest.would_kick()))
    }
}

proptest! {
    #![proptest_config(runs(1024))]

    /// The same operations: the same data, lengths, order, answers, and memory in the end.
    #[test]
    fn both_formats_carry_the_same(
        order in 0..6u32, event_idx: bool, in_order: bool, receives: bool, ops in prop::collection::vec(ops(), 1..150),
    ) {
        let optional = [(event_idx, F_EVENT_IDX), (in_order, F_IN_ORDER)];
        let features = optional.iter().filter(|(on, _)| *on).fold(F_INDIRECT, |all, (_, bit)| all | bit);
        let (index, flags) = if receives { (0, WRITE) } else { (1, 0) };
        let mut split = Side::new(Format::Split, 1 << order, features, index);
        let mut packed = Side::new(Format::Packed, 1 << order, features, index);
        let (mut seed, mut just_taken) = (0, false);
        for op in ops {
            macro_rules! both {
                (|$side:ident| $done:expr) => {{
                    let mut both = [&mut split, &mut packed].map(|$side| $done);
                    prop_assert_eq!(&both[0], &both[1]);
                    std::mem::take(&mut both[0])
                }};
            }
            let mut taken = 0;
            match &op {
                // A table is as long as the queue at most.
                Op::Post(lens, table) if lens.len() <= 1 << order => {
                    both!(|side| side.post(lens, *table, flags));
                }
                Op::Take(n) if !receives => taken = both!(|side| side.take(*n)).len(),
                // With IN_ORDER, what was taken first is returned first.
                Op::Singles(n, done) if !receives && (!in_order || split.held.is_empty()) => {
                    both!(|side| side.singles(*n, *done));
                }
                Op::Untake if just_taken => {
                    both!(|side| {
                        side.ring.as_dyn().untake();
                        side.held.pop();
                        side.sent.push_front(side.last_taken.clone());
                    })
                }
                Op::Packets(lens) if receives => {
                    seed += 1;
                    both!(|side| side.packets(lens, seed));
                }
                Op::Complete(n, at) => both!(|side| side.complete(*n, *at)),
                Op::Packet(len, chains) if receives => {
                    seed += 1;
                    both!(|side| Some(side.packet(*len, *chains, seed)));
                }
                Op::Arrival(most, chains, len) if receives => {
                    seed += 1;
                    both!(|side| Some(side.arrival(*most, *chains, *len, seed)));
                }
                Op::Publish => drop(both!(|side| side.publish())),
                Op::Kicks(wanted) => {
                    for side in [&mut split, &mut packed] {
                        let kicked = side.kicks(*wanted, flags);
                        // Whoever waits after asking is woken; whoever does not want to be, is not.
                        prop_assert!(kicked.is_none_or(|(news, kick)| news || kick == *wanted));
                    }
                }
                Op::Restart => drop(both!(|side| side.restart())),
                _ => {}
            }
            just_taken = taken > 0;
            for side in [&mut split, &mut packed] {
                prop_assert_eq!(side.ring.as_dyn().violation(), None);
            }
        }
        let memory = |side: &Side| side.guest.guest().read(DATA, (SEAM + 0x8000 - DATA) as usize);
        prop_assert!(memory(&split) == memory(&packed));
    }
}
