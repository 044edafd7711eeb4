//! Which of one pair's frames have arrived, and in what order.

/// Each frame arrives once. On one of the receiving rings, those that took the same path arrive in order.
/// Which path a frame took is not known; but what came along n paths is n rising sequences.
pub struct Arrivals {
    arrived: Vec<bool>,
    count: u64,
    /// By receiving ring: the last number of each rising sequence.
    last: Vec<Vec<u64>>,
    paths: usize,
}

impl Arrivals {
    /// Nothing yet, on any of `rings`, to each of which `paths` lead.
    pub fn new(rings: usize, paths: usize) -> Arrivals {
        Arrivals { arrived: Vec::new(), count: 0, last: vec![Vec::new(); rings], paths }
    }

    /// Frames that have arrived.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Frame `number` arrives on `ring`.
    pub fn add(&mut self, ring: usize, number: u64) {
        let at = number as usize;
        self.arrived.resize(self.arrived.len().max(at + 1), false);
        assert!(!self.arrived[at], "frame {number} arrived twice");
        self.arrived[at] = true;
        self.count += 1;
        // Behind the highest that it can follow: so there are never more sequences than needed.
        let last = &mut self.last[ring];
        match last.iter_mut().filter(|last| **last < number).max() {
            Some(last) => *last = number,
            None => last.push(number),
        }
        assert!(last.len() <= self.paths, "frame {number} arrived behind a later one: {last:?}");
    }
}

/// Whether these arrive as they should.
#[cfg(test)]
fn good(paths: usize, numbers: &[u64]) -> bool {
    let add = || {
        numbers.iter().fold(Arrivals::new(1, paths), |mut all, n| {
            all.add(0, *n);
            all
        })
    };
    std::panic::catch_unwind(add).is_ok()
}

#[test]
fn disorder_and_duplicates_are_noticed() {
    assert!(good(1, &[0, 1, 5, 7]));
    assert!(!good(1, &[0, 1, 5, 4]));
    assert!(!good(1, &[0, 1, 1]));
    assert!(good(2, &[0, 5, 1, 6, 2, 3, 7]));
    assert!(!good(2, &[0, 5, 1, 6, 1]));
    assert!(!good(2, &[5, 3, 1]));
}
