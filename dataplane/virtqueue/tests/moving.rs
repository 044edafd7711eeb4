//! A pair of rings that two threads hand to each other, by value, while a guest uses it: each chain is returned
//! once and in order, and each number arrives once and in order.
#![cfg(feature = "testing")] // as in any build of the workspace; else: cargo test -p virtqueue --features testing

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use virtqueue::testing::*;
use virtqueue::{Cursor, Reservation, Ring, RingConfig, Violation};

/// Numbers that a guest sends: more than a split ring's indices can tell apart.
const NUMBERS: u64 = if cfg!(miri) { 300 } else { 70_000 };
/// Chains taken at once.
const BURST: u16 = 32;
/// Bursts before the rings are handed on, at most.
const BURSTS: u16 = 60;

#[derive(Clone, Copy, Debug)]
struct Setup {
    format: Format,
    size: u16,
    features: u64,
}

/// What one thread has at a time.
struct Rings {
    from: Ring,
    to: Ring,
    /// Numbers taken from one, and not given to the other yet.
    held: VecDeque<u64>,
}

impl Rings {
    /// A burst out of one ring, and what fits into the other. Whether anything moved.
    fn turn(&mut self) -> Result<bool, Violation> {
        let (from, to) = (self.from.as_dyn(), self.to.as_dyn());
        let wanted = if self.held.is_empty() { from.available(BURST)?.min(BURST) } else { 0 };
        for _ in 0..wanted {
            let Some(taken) = from.take()? else { break };
            let mut number = [0; 8];
            assert_eq!(Cursor::new(taken.segments).read(&mut number), 8);
            self.held.push_back(u64::from_le_bytes(number));
            let token = taken.token;
            from.complete(token, 0);
        }
        from.publish();
        let waiting = self.held.len();
        while let Some(number) = self.held.front() {
            match to.reserve(8, 0, 1)? {
                Reservation::Ready(_) => {
                    assert_eq!(Cursor::new(to.segments()).write(&number.to_le_bytes()), 8)
                }
                Reservation::Short => break,
                Reservation::TooSmall => panic!("8 bytes do not fit"),
            }
            self.held.pop_front();
        }
        to.publish();
        Ok(wanted > 0 || self.held.len() < waiting)
    }

    /// Gives the rings up, and starts others where they were, give or take what is `wrong`.
    fn start_anew(&mut self, wrong: u32) {
        for ring in [&mut self.from, &mut self.to] {
            let config = RingConfig { base: ring.base() + wrong, ..ring.config().clone() };
            *ring = Ring::start(config).unwrap();
        }
    }
}

/// Ends all threads when one of them ends, however it does.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends numbers, and receives the same ones.
fn guest(setup: Setup, configs: &Sender<[RingConfig; 2]>, over: &AtomicBool) {
    let _ending = Ending(over);
    let mut sides = [0, 1].map(|_| Side::new(poster(setup.format, setup.size, setup.features)));
    let [to, from] = &mut sides;
    configs
        .send(
            [(0, &to.poster), (1, &from.poster)]
                .map(|(index, poster)| RingConfig { index, ..poster.config() }),
        )
        .unwrap();
    let (mut sent, mut received, mut moved) = (0, 0, Instant::now());
    while received < NUMBERS || !from.posted.is_empty() {
        let before = (sent, received);
        from.collect();
        for bytes in to.collect() {
            assert_eq!(u64::from_le_bytes(bytes.try_into().unwrap()), received, "the next number");
            received += 1;
        }
        while to.post(WRITE, 0) {}
        while sent < NUMBERS && from.post(0, sent) {
            sent += 1;
        }
        if before == (sent, received) {
            assert!(!over.load(Ordering::Relaxed), "{received} of {sent} numbers were received at the end");
            assert!(moved.elapsed() < Duration::from_secs(60), "nothing moves any more");
            thread::yield_now();
        } else {
            moved = Instant::now();
        }
    }
}

/// The guest's side of a ring.
struct Side {
    poster: Box<dyn Poster>,
    /// Chains that are out: their names, and where they are.
    posted: VecDeque<(u16, u64)>,
    count: u64,
}

impl Side {
    fn new(poster: Box<dyn Poster>) -> Side {
        Side { poster, posted: VecDeque::new(), count: 0 }
    }

    /// Posts a number in one buffer or two; `false` if the ring is full.
    fn post(&mut self, flags: u16, number: u64) -> bool {
        let at = DATA + 8 * (self.count % 1024);
        let buf = |addr, len| Buf { addr, len, flags };
        let whole = [buf(at, 8)];
        let halves = [buf(at, 3), buf(at + 3, 5)];
        let bufs = if self.count.is_multiple_of(3) { &halves[..] } else { &whole[..] };
        self.poster.guest().write(at, &number.to_le_bytes());
        let posted = self.poster.post(bufs, None);
        self.posted.extend(posted.map(|id| (id, at)));
        self.count += u64::from(posted.is_some());
        posted.is_some()
    }

    /// The content of what came back.
    fn collect(&mut self) -> Vec<Vec<u8>> {
        let back = self.poster.collect();
        let content = |(id, len): (u16, u32)| {
            let (due, at) = self.posted.pop_front().expect("no chain is out");
            assert_eq!(id, due, "the chain that is due");
            self.poster.guest().read(at, len as usize)
        };
        back.into_iter().map(content).collect()
    }
}

/// What is done with the rings: so many bursts, then they are handed on; maybe started anew, and maybe wrongly.
type Turn = (u16, Option<u32>);

/// Works on the rings when it has them; counts how often it hands them on.
fn device(
    turns: &[Turn],
    inbox: &Receiver<Rings>,
    other: &Sender<Rings>,
    over: &AtomicBool,
    handed: &AtomicUsize,
) {
    let _ending = Ending(over);
    while !over.load(Ordering::Relaxed) {
        let Ok(mut rings) = inbox.recv_timeout(Duration::from_millis(1)) else { continue };
        let turn = handed.fetch_add(1, Ordering::Relaxed) % turns.len();
        let (bursts, anew) = turns[turn];
        for _ in 0..bursts {
            if !rings.turn().unwrap() {
                thread::yield_now();
            }
        }
        if let Some(wrong) = anew {
            rings.start_anew(wrong);
        }
        // The other one may have ended.
        let _ = other.send(rings);
    }
}

/// Lets a guest send all its numbers through rings that move. How often they did; `None` if anybody found
/// something wrong.
fn run(setup: Setup, turns: &[Turn]) -> Option<usize> {
    let (over, handed) = (&AtomicBool::new(false), &AtomicUsize::new(0));
    let (configs, started) = channel();
    let ((to_a, at_a), (to_b, at_b)) = (channel(), channel());
    let all_well = thread::scope(|scope| {
        let guest = scope.spawn(move || guest(setup, &configs, over));
        let [to, from] = started.recv().unwrap().map(|config| Ring::start(config).unwrap());
        to_a.send(Rings { from, to, held: VecDeque::new() }).unwrap();
        let devices = [(at_a, to_b), (at_b, to_a)]
            .map(|(inbox, other)| scope.spawn(move || device(turns, &inbox, &other, over, handed)));
        let devices = devices.map(|device| device.join().is_ok());
        guest.join().is_ok() && devices == [true; 2]
    });
    all_well.then(|| handed.load(Ordering::Relaxed))
}

fn formats() -> impl Strategy<Value = Setup> {
    let features = prop::sample::subsequence(vec![F_EVENT_IDX, F_IN_ORDER], 0..=2);
    (prop::sample::select(vec![Format::Split, Format::Packed]), 2..=8u32, features).prop_map(
        |(format, order, features)| Setup {
            format,
            size: 1 << order,
            features: features.iter().fold(0, |all, bit| all | bit),
        },
    )
}

/// No shrinking: a case does not fail each time, nor a smaller one at all.
fn config() -> ProptestConfig {
    let cases = if cfg!(miri) { 2 } else { 8 };
    ProptestConfig { cases, max_shrink_iters: 0, failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rings_handed_from_thread_to_thread_lose_and_double_nothing(
        setup in formats(), turns in prop::collection::vec((1..=BURSTS, prop::option::of(Just(0))), 1..20),
    ) {
        let handed = run(setup, &turns).ok_or(TestCaseError::fail("see above"))?;
        prop_assert!(handed as u64 >= NUMBERS / u64::from(BURST * BURSTS));
    }
}

/// The control of the test above.
#[test]
fn rings_that_go_on_at_the_wrong_chain_are_noticed() {
    for format in [Format::Split, Format::Packed] {
        let setup = Setup { format, size: 64, features: 0 };
        let turns = [(BURSTS, None), (BURSTS, Some(0)), (BURSTS, None), (3, Some(1))];
        assert_eq!(run(setup, &turns), None, "{format:?}");
    }
}
