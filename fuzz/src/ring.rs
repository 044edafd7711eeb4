//! One ring between a hostile guest and a device that keeps to the rules: after every step the device's
//! answers and the guest's memory must be what the reference says.

mod receive;
mod singles;

use std::collections::VecDeque;
use std::fs::File;

use nix::sys::eventfd::{EfdFlags, EventFd};
use virtqueue::{Call, Cursor, Notifier, Ring, RingConfig, Segment, Token, Violation, Virtqueue};

use crate::input::Input;
use crate::memory::{Guest, Piece, Spot};
use crate::reference::{Chain, Format, Peek, Setup};

/// Queue sizes that are tried, besides any at all.
const SIZES: [u16; 14] = [1, 2, 4, 8, 16, 256, 3, 5, 7, 12, 255, 1024, 2048, 0];
/// Moves of one input.
const MOVES: usize = 300;
/// Bytes of a chain that are looked at.
const LOOK: usize = 1 << 16;
/// Pieces that a ring keeps at least: one for each of 1024 descriptors, and some more.
const PIECES: usize = 1024;

const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
const INDIRECT_DESC: u64 = 1 << 28;
const IN_ORDER: u64 = 1 << 35;

/// An eventfd of which the ring has one end.
struct Event(EventFd);

impl Event {
    fn new() -> (Event, Notifier) {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_value_and_flags(0, flags).expect("an eventfd");
        let file = std::os::fd::AsFd::as_fd(&event).try_clone_to_owned().expect("a second descriptor");
        (Event(event), Notifier::new(File::from(file)).expect("an eventfd"))
    }

    /// How often it was signalled since the last look.
    fn signals(&self) -> u64 {
        self.0.read().unwrap_or(0)
    }
}

/// A ring, and what is known about it.
struct Play<F: Format> {
    guest: Guest,
    ring: Ring,
    config: RingConfig,
    format: F,
    setup: Setup,
    position: F::Position,
    /// Chains (split) or slots (packed) that `available` has told of.
    known: u16,
    /// It may know of more.
    unsure: bool,
    /// Slots that a former owner has left in flight.
    lost: u16,
    flight: VecDeque<(Token, Chain)>,
    /// Slots that were completed, but not published.
    hidden: u16,
    /// The chain taken last can be put back: where it was, and what was known.
    taken: Option<(F::Position, u16)>,
    violation: Option<Violation>,
    call: Event,
    err: Event,
}

/// Plays `data`.
pub fn run<F: Format>(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(mut play) = Play::<F>::start(&mut input) else { return };
    for _ in 0..MOVES {
        if input.is_empty() {
            break;
        }
        play.step(&mut input);
    }
    play.settle();
    play.check_memory();
    assert_eq!(play.err.signals(), 0, "signals of the error eventfd");
}

fn pieces(chains: &[Chain]) -> Vec<Piece> {
    chains.iter().flat_map(|chain| chain.pieces.clone()).collect()
}

fn overlap(a: Piece, b: Piece) -> bool {
    a.spot.region == b.spot.region && a.spot.at < b.spot.at + b.len && b.spot.at < a.spot.at + a.len
}

impl<F: Format> Play<F> {
    /// Starts a ring, if it is one that can be started.
    fn start(input: &mut Input<'_>) -> Option<Play<F>> {
        let (size, features, place) = (input.u8(), input.u8(), input.u8());
        let size = match SIZES.get(usize::from(size & 15)) {
            Some(size) => *size,
            None => input.u16(),
        };
        let lens = F::areas(size);
        let mut guest = Guest::new(lens.iter().map(|(len, _)| len + 64).sum());
        let areas = places(&guest, &lens, place, input);
        let base = match features >> 6 {
            0 => 0,
            1 => F::fresh_base(size, input.u8()),
            2 => u32::from(input.u16()),
            _ => input.u32(),
        };
        if features & 32 != 0 {
            // A guest whose rings are not fresh.
            for (area, (len, _)) in areas.iter().zip(lens) {
                let bytes = input.bytes(len.min(64));
                guest.write(*area, bytes);
            }
        }
        let bit = |n: u8, bit: u64| if features >> n & 1 != 0 { bit } else { 0 };
        let indirect = bit(1, INDIRECT_DESC);
        let (writable, in_order) = (bit(2, 1) != 0, bit(3, IN_ORDER));
        let acknowledged = VERSION_1 | F::FEATURE | bit(0, EVENT_IDX) | indirect | in_order;
        let batched = in_order != 0 && !writable;
        let setup = Setup { size, areas, writable, indirect: indirect != 0, batched };
        let ((call, call_end), (err, err_end)) = (Event::new(), Event::new());
        let config = RingConfig {
            index: u16::from(!writable),
            size,
            desc: guest.user_addr(areas[0]),
            avail: guest.user_addr(areas[1]),
            used: guest.user_addr(areas[2]),
            base,
            features: acknowledged,
            memory: guest.memory.clone(),
            kick: None,
            call: Some(call_end),
            err: Some(err_end),
        };
        let fits = areas.iter().zip(lens).all(|(area, (len, align))| {
            // A region is aligned to 16 bytes.
            guest.fits(*area, len) && area.at % align == 0
        });
        let position = F::position(size, base).filter(|_| F::size_allowed(size) && fits);
        let ring = match Ring::start(config.clone()) {
            Ok(ring) => ring,
            Err(error) => {
                assert!(position.is_none(), "refused: {error}");
                return None;
            }
        };
        let (position, lost) = position.expect("the ring cannot be started, but was");
        let format = F::new(setup, &guest, base);
        let mut play = Play {
            guest,
            ring,
            config,
            format,
            setup,
            position,
            known: 0,
            unsure: false,
            lost,
            flight: VecDeque::new(),
            hidden: 0,
            taken: None,
            violation: None,
            call,
            err,
        };
        play.check_memory();
        Some(play)
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let kind = input.u8();
        match kind & 15 {
            kind @ 0..=6 => self.format.guest_move(kind, &mut self.guest, input),
            7 => {
                let (region, at, len) = (input.u8() % 3, input.u16(), input.u8() % 32);
                let bytes = input.bytes(len.into());
                let at = usize::from(at) % self.guest.len(region.into());
                self.guest.write(Spot { region: region.into(), at }, bytes);
            }
            8 => self.available(input.u16()),
            9 => {
                let many = kind >> 4;
                self.available((u16::from(many) + 1) * 4);
                for _ in 0..=many * 4 {
                    match self.setup.writable {
                        false => self.take(),
                        true => self.reserve(input),
                    }
                }
            }
            10 => match (self.setup.writable, kind & 16 != 0) {
                (false, false) => self.take(),
                (false, true) => self.take_singles(input),
                (true, _) if kind & 32 != 0 => self.offer(input),
                (true, false) => self.reserve(input),
                (true, true) => self.reserve_singles(input),
            },
            11 => {
                let (len, many) = (input.u16(), kind >> 4);
                for _ in 0..=many {
                    self.complete(u32::from(len) << ((many & 3) * 4));
                }
            }
            12 => self.publish(),
            13 => self.untake(),
            14 => self.kicks(kind & 16 != 0),
            _ => self.restart(),
        }
    }

    fn ring(&mut self) -> &mut dyn Virtqueue {
        self.ring.as_dyn()
    }

    /// Slots that are neither the guest's nor to be taken.
    fn busy(&self) -> u16 {
        self.lost + self.hidden + self.flight.iter().map(|(_, chain)| chain.slots).sum::<u16>()
    }

    fn peek(&self) -> Peek {
        self.format.peek(&self.guest, self.position, self.busy())
    }

    /// Notes a violation, or checks that the one before stands.
    fn failed(&mut self, violation: Violation) {
        assert!(self.violation.is_none(), "{violation} after {:?}", self.violation);
        assert_eq!(self.ring().violation(), Some(violation));
        assert_eq!(self.err.signals(), 1, "signals of the error eventfd");
        self.violation = Some(violation);
        // What a log line would say.
        assert!(!violation.to_string().contains('\n'));
    }

    fn check_latch(&mut self) {
        let violation = self.violation;
        assert_eq!(self.ring().violation(), violation);
        if violation.is_some() {
            assert!(!self.ring().has_news());
        }
    }

    fn check_base(&mut self) {
        let base = self.format.base(self.position);
        assert_eq!(self.ring().base(), base, "ring base");
    }

    /// The device has written nothing but what it may.
    fn check_memory(&mut self) {
        for area in self.format.device_areas() {
            self.guest.accept(area);
        }
        self.guest.check();
        self.check_latch();
    }

    fn available(&mut self, wanted: u16) {
        let broken = self.violation.is_some();
        match self.ring().available(wanted) {
            Ok(found) if broken => assert_eq!(found, 0, "chains of a broken ring"),
            Ok(found) => {
                self.format.check_available(&self.guest, self.position, self.busy(), wanted, found);
                (self.known, self.unsure) = (found, false);
            }
            Err(violation) => {
                let offered = self.format.offered(&self.guest, self.position, self.busy());
                assert!(offered.is_none(), "{violation}, though {offered:?} are offered");
                self.failed(violation);
            }
        }
    }

    fn take(&mut self) {
        let (peek, known, broken) = (self.peek(), self.known, self.violation.is_some());
        match (self.ring.as_dyn().take(), peek) {
            (Ok(None), peek) => {
                assert!(broken || known == 0 || matches!(peek, Peek::Nothing), "not taken: {peek:?}");
            }
            (Ok(Some(taken)), Peek::Chain(chain)) if !broken && known > 0 => {
                assert_eq!(u64::from(taken.len), chain.len, "length of the chain");
                check_segments(taken.segments, &chain.pieces);
                check_content(&self.guest, taken.segments, &chain.pieces);
                self.taken = Some((self.position, known));
                self.known = F::left(known, &chain);
                self.position = self.format.behind(self.position, &chain);
                self.flight.push_back((taken.token, chain));
            }
            (Ok(Some(taken)), peek) => {
                panic!("{} bytes taken, {known} known, broken: {broken}; there was {peek:?}", taken.len)
            }
            (Err(violation), Peek::Chain(chain)) => {
                // The only limit that the reference does not have.
                let pieces =
                    matches!(violation, Violation::TooManyPieces { .. }) && chain.pieces.len() > PIECES;
                assert!(pieces, "{violation}: {chain:?}");
                self.failed(violation);
            }
            (Err(violation), peek) => {
                let withdrawn = matches!(violation, Violation::Withdrawn { .. });
                assert_eq!(withdrawn, matches!(peek, Peek::Nothing), "{violation}: {peek:?}");
                self.failed(violation);
            }
        }
        self.check_latch();
        self.check_base();
    }

    fn untake(&mut self) {
        // Only a chain that was not completed meanwhile.
        let Some((position, known)) = self.taken.take() else { return };
        if self.flight.pop_back().is_some() {
            self.ring().untake();
            (self.position, self.known) = (position, known);
            self.check_base();
        }
    }

    fn complete(&mut self, len: u32) {
        let Some((token, chain)) = self.flight.pop_front() else { return };
        self.taken = self.taken.filter(|_| !self.flight.is_empty());
        self.ring().complete(token, len);
        self.format.check_used(&self.guest, &chain, len);
        self.hidden += chain.slots;
    }

    fn publish(&mut self) {
        let any = self.hidden > 0;
        let call = self.ring().publish();
        assert_eq!(call != Call::Nothing, any, "{call:?}");
        assert_eq!(self.call.signals(), u64::from(call == Call::Sent), "{call:?}");
        self.format.check_published(&self.guest, any);
        self.hidden = 0;
        self.check_base();
    }

    fn kicks(&mut self, wanted: bool) {
        self.ring().set_kicks(wanted);
        let news = self.ring().has_news();
        assert!(!news || self.violation.is_none());
        self.check_memory();
    }

    /// Whether the device's areas overlap the guest's.
    fn overlapping(&self) -> bool {
        let lens = F::areas(self.setup.size);
        let areas: Vec<_> = (0..3).map(|n| Piece { spot: self.setup.areas[n], len: lens[n].0 }).collect();
        (0..3).any(|a| (0..a).any(|b| overlap(areas[a], areas[b])))
    }

    /// Goes on with a new ring after something that the reference cannot follow.
    fn lose_track(&mut self) {
        self.ring().publish();
        self.call.signals();
        self.hidden = 0;
        self.start_again();
    }

    /// All that is in flight is returned.
    fn settle(&mut self) {
        while !self.flight.is_empty() {
            self.complete(0);
        }
        self.publish();
    }

    /// The ring is taken back, and another one given out in its place.
    fn restart(&mut self) {
        self.settle();
        self.check_base();
        self.start_again();
    }

    fn start_again(&mut self) {
        self.config.base = self.ring().base();
        let started = Ring::start(self.config.clone());
        self.ring = started.unwrap_or_else(|error| panic!("not started again: {error}"));
        let base = F::position(self.setup.size, self.config.base).expect("a base that it gave");
        (self.position, self.lost) = base;
        self.format = F::new(self.setup, &self.guest, self.config.base);
        (self.known, self.unsure, self.taken, self.violation) = (0, false, None, None);
        self.check_memory();
    }
}

/// Where the areas are: one behind the other, or wherever the input says.
fn places(guest: &Guest, lens: &[(usize, usize); 3], place: u8, input: &mut Input<'_>) -> [Spot; 3] {
    let mut at = 0;
    let mut areas = [Spot { region: 0, at: 0 }; 3];
    for (area, (len, align)) in areas.iter_mut().zip(lens) {
        *area = Spot { region: 0, at };
        at = (at + len).next_multiple_of(16);
        let _ = align;
    }
    for (n, area) in areas.iter_mut().enumerate() {
        match place >> (2 * n) & 3 {
            0 | 1 => {}
            2 => {
                // In some region, as far behind as it fits.
                let region = usize::from(input.u8() % 3);
                let at = guest.len(region).saturating_sub(lens[n].0) / 16 * 16;
                *area = Spot { region, at };
            }
            _ => *area = Spot { region: usize::from(input.u8() % 3), at: input.u16().into() },
        }
    }
    areas
}

fn check_segments(segments: &[Segment], pieces: &[Piece]) {
    assert!(
        segments.iter().map(Segment::len).eq(pieces.iter().map(|piece| piece.len)),
        "not these: {pieces:?}"
    );
}

/// Reads the segments in steps of several sizes: they hold what the pieces hold.
fn check_content(guest: &Guest, segments: &[Segment], pieces: &[Piece]) {
    let expected = guest.content(pieces, LOOK);
    let mut cursor = Cursor::new(segments);
    let mut found = vec![0; expected.len()];
    let (mut at, mut step) = (0, 12);
    while at < found.len() {
        let end = found.len().min(at + step);
        assert_eq!(cursor.read(&mut found[at..end]), end - at);
        (at, step) = (end, step * 5);
    }
    assert!(found == expected, "the chain holds something else");
    let rest: usize = segments.iter().map(Segment::len).sum::<usize>() - found.len();
    assert_eq!(cursor.skip(usize::MAX), rest);
    assert_eq!(cursor.read(&mut [0]), 0);
}
