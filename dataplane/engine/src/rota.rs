//! Which lanes a worker looks at in a round: idle guests must not cost the busy ones much.
//!
//! A lane on which nothing moves for long rests: while anybody is busy it is looked at in one round of many. It
//! costs nothing in the others, because lanes that rest are behind all others.

/// Looks in vain after which a lane rests; and rounds in vain after which nobody is busy, so that there is no need to.
const RESTS_AFTER: u32 = 1024;
/// While others are busy, a lane that rests is looked at once in so many rounds.
const RESTS_FOR: usize = 32;

/// A lane, and how often nothing moved on it.
struct Entry<L> {
    lane: L,
    /// Looks in vain, one after the other.
    idle: u32,
}

/// All lanes of a worker.
pub struct Rota<L> {
    /// First those that are awake, then those that rest. Boxed, because they change places.
    lanes: Vec<Box<Entry<L>>>,
    awake: usize,
    /// Rounds in which nothing moved, one after the other.
    quiet: u32,
    round: usize,
}

impl<L> Rota<L> {
    /// No lanes.
    pub fn new() -> Rota<L> {
        Rota { lanes: Vec::new(), awake: 0, quiet: 0, round: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// All of them, in any order.
    pub fn iter(&self) -> impl Iterator<Item = &L> {
        self.lanes.iter().map(|entry| &entry.lane)
    }

    /// All of them, in any order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut L> {
        self.lanes.iter_mut().map(|entry| &mut entry.lane)
    }

    /// Another lane, which is awake.
    pub fn add(&mut self, lane: L) {
        self.lanes.push(Box::new(Entry { lane, idle: 0 }));
        self.wake(self.lanes.len() - 1);
    }

    /// Gives up the first lane of which `is_it` is true.
    pub fn take(&mut self, is_it: impl Fn(&L) -> bool) -> Option<L> {
        let at = self.iter().position(is_it)?;
        self.awake -= usize::from(at < self.awake);
        Some(self.lanes.remove(at).lane)
    }

    /// Looks at all lanes that are awake, and at some that rest: `look` says how many packets moved on one. How many moved
    /// on all.
    #[inline(always)]
    pub fn round(&mut self, mut look: impl FnMut(&mut L) -> u64) -> u64 {
        let (mut at, mut moved) = (0, 0);
        while at < self.awake {
            let entry = &mut self.lanes[at];
            let now = look(&mut entry.lane);
            moved += now;
            entry.idle = if now > 0 { 0 } else { entry.idle + 1 };
            if entry.idle < RESTS_AFTER {
                at += 1;
            } else {
                self.awake -= 1;
                self.lanes.swap(at, self.awake);
            }
        }
        let step = if self.quiet >= RESTS_AFTER { 1 } else { RESTS_FOR };
        // The places `at` that are `round` modulo `step`, a power of two.
        at += self.round.wrapping_sub(at) & (step - 1);
        while at < self.lanes.len() {
            let now = look(&mut self.lanes[at].lane);
            if now > 0 {
                moved += now;
                self.wake(at);
            }
            at += step;
        }
        self.round = self.round.wrapping_add(1);
        self.quiet = if moved > 0 { 0 } else { self.quiet.saturating_add(1) };
        moved
    }

    /// The lane at place `at` rests no more.
    fn wake(&mut self, at: usize) {
        self.lanes[at].idle = 0;
        self.lanes.swap(at, self.awake);
        self.awake += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lanes by number; each has the packets that wait on it, and the rounds in which it was looked at.
    struct Lanes {
        rota: Rota<usize>,
        waiting: Vec<u64>,
        looks: Vec<Vec<usize>>,
        rounds: usize,
    }

    impl Lanes {
        fn new(number: usize) -> Lanes {
            let mut rota = Rota::new();
            (0..number).for_each(|lane| rota.add(lane));
            Lanes { rota, waiting: vec![0; number], looks: vec![Vec::new(); number], rounds: 0 }
        }

        /// `count` rounds, in each of which one packet comes to each lane of `busy`. How many moved.
        fn run(&mut self, count: usize, busy: &[usize]) -> u64 {
            let Lanes { rota, waiting, looks, rounds } = self;
            looks.iter_mut().for_each(Vec::clear);
            let mut moved = 0;
            for _ in 0..count {
                busy.iter().for_each(|lane| waiting[*lane] += 1);
                moved += rota.round(|lane| {
                    looks[*lane].push(*rounds);
                    std::mem::take(&mut waiting[*lane])
                });
                *rounds += 1;
            }
            moved
        }

        fn counts(&self) -> Vec<usize> {
            self.looks.iter().map(Vec::len).collect()
        }
    }

    #[test]
    fn idle_lanes_rest_while_another_is_busy() {
        let mut lanes = Lanes::new(5);
        assert_eq!(lanes.run(1024, &[2]), 1024);
        assert_eq!(lanes.counts(), [1024; 5], "nobody rests at first");
        assert_eq!(lanes.run(3200, &[2]), 3200);
        assert_eq!(lanes.counts(), [100, 100, 3200, 100, 100]);
        // At its next look, one wakes up, and the others go on resting.
        assert_eq!(lanes.run(3232, &[2, 4]), 2 * 3232);
        let counts = lanes.counts();
        assert_eq!((counts[2], counts[0], counts[1], counts[3]), (3232, 101, 101, 101));
        assert!((3200..=3232).contains(&counts[4]), "{counts:?}");
    }

    #[test]
    fn nobody_rests_if_nobody_is_busy() {
        let mut lanes = Lanes::new(3);
        lanes.run(5000, &[]);
        assert_eq!(lanes.counts(), [5000; 3]);
        // As soon as one is, the others do.
        lanes.run(320, &[0]);
        assert_eq!(lanes.counts()[0], 320);
        assert!(lanes.counts()[1..].iter().all(|looks| (10..=11).contains(looks)), "{:?}", lanes.counts());
        lanes.run(1024, &[]);
        lanes.run(100, &[]);
        assert_eq!(lanes.counts(), [100; 3]);
    }

    #[test]
    fn no_lane_waits_for_long_whoever_comes_and_goes() {
        let mut lanes = Lanes::new(40);
        let mut random = 1u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % below
        };
        for _ in 0..200 {
            let busy: Vec<usize> = (0..40).filter(|_| next(4) == 0).chain([7]).collect();
            let rounds = 64 + next(1500) as usize;
            let (first, moved) = (lanes.rounds, lanes.run(rounds, &busy));
            for (lane, looks) in lanes.looks.iter().enumerate() {
                let between = looks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
                let ends = (looks[0] - first).max(first + rounds - looks[looks.len() - 1]);
                // One that changes places may miss its turn.
                assert!(between.max(ends) <= 2 * RESTS_FOR, "lane {lane}: {looks:?}");
            }
            let left: u64 = lanes.waiting.iter().sum();
            assert!(moved <= (rounds * (busy.len() + 1)) as u64 && left <= 40 * 2 * RESTS_FOR as u64);
        }
    }

    #[test]
    fn lanes_are_added_and_taken_wherever_they_are() {
        let mut lanes = Lanes::new(4);
        lanes.run(2000, &[1, 3]);
        assert_eq!(lanes.rota.take(|lane| *lane == 1), Some(1), "awake");
        assert_eq!(lanes.rota.take(|lane| *lane == 2), Some(2), "resting");
        assert_eq!(lanes.rota.take(|lane| *lane == 2), None);
        lanes.rota.add(1);
        lanes.run(320, &[3]);
        assert_eq!(lanes.counts(), [10, 320, 0, 320], "a new one is awake, and who rested rests");
        assert!(!lanes.rota.is_empty());
        assert_eq!(lanes.rota.iter().count(), 3);
    }
}
