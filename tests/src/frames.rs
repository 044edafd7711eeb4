//! Frames that can be told apart: each has a number, and random bytes that depend on it and on a seed.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Ethernet header and number.
const HEAD: usize = 14 + 8;
/// The last byte of the source address tells sequences apart whose seeds differ in their lowest byte.
const STREAM: usize = 11;
/// Ethertype for local experiments (IEEE 802).
const ETHERTYPE: u16 = 0x88b5;

/// A sequence of frames; the same every time it is made.
#[derive(Clone, Debug)]
pub struct Frames {
    /// How many.
    pub count: u64,
    /// Lengths: the extremes come first, the others are random.
    pub lengths: RangeInclusive<usize>,
    /// Two sequences with different seeds have no frame in common.
    pub seed: u64,
}

impl Frames {
    /// Frame number `number`.
    pub fn frame(&self, number: u64) -> Vec<u8> {
        let (length, mut random) = self.begin(number);
        let mut frame = vec![0; length];
        random.fill(&mut frame);
        // To 02:..., from 02:...: unicast, locally administered.
        (frame[0], frame[6]) = (2, 2);
        frame[STREAM] = self.seed as u8;
        frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        frame[14..HEAD].copy_from_slice(&number.to_be_bytes());
        frame
    }

    /// Its length, and where its bytes come from.
    fn begin(&self, number: u64) -> (usize, fastrand::Rng) {
        let mut random = fastrand::Rng::with_seed(self.seed << 32 ^ number);
        let (low, high) = (*self.lengths.start(), *self.lengths.end());
        let length = match number {
            0 => low,
            1 => high,
            _ => random.usize(low..=high),
        };
        (length.max(HEAD), random)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        (0..self.count).map(|number| self.frame(number))
    }

    /// Bytes of all of them, none of which is made for that.
    pub fn bytes(&self) -> u64 {
        (0..self.count).map(|number| self.begin(number).0 as u64).sum()
    }

    /// `got` is exactly this sequence, byte for byte and in order.
    ///
    /// # Panics
    /// If not, saying how it differs.
    pub fn assert_is(&self, what: &str, got: &[Vec<u8>]) {
        let differs = self.iter().enumerate().find(|(n, frame)| got.get(*n) != Some(frame));
        if let Some((at, frame)) = differs {
            let found = got.get(at).map_or("nothing".to_owned(), |found| {
                let byte = frame.iter().zip(found).position(|(a, b)| a != b);
                format!("frame {} of {} bytes (first different byte: {byte:?})", number(found), found.len())
            });
            let (length, summary) = (frame.len(), self.summary(got));
            panic!("{what}: at {at}: expected {length} bytes, found {found}; {summary}");
        }
        assert_eq!(got.len() as u64, self.count, "{what}: more than was sent: {}", self.summary(got));
    }

    /// Those of `got` that are of this sequence.
    pub fn pick(&self, got: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let is_ours = |frame: &&Vec<u8>| frame.get(STREAM) == Some(&(self.seed as u8));
        got.iter().filter(is_ours).cloned().collect()
    }

    /// `got` is part of this sequence, in order and unchanged.
    ///
    /// # Panics
    /// If not.
    pub fn assert_has_in_order(&self, what: &str, got: &[Vec<u8>]) {
        let mut last = None;
        for (at, frame) in got.iter().enumerate() {
            let number = number(frame);
            let summary = || self.summary(got);
            assert!(
                number < self.count && *frame == self.frame(number),
                "{what}: frame at {at} changed; {}",
                summary()
            );
            assert!(last < Some(number), "{what}: {number} at {at} is out of order; {}", summary());
            last = Some(number);
        }
    }

    fn summary(&self, got: &[Vec<u8>]) -> String {
        let mut seen = BTreeMap::new();
        got.iter().for_each(|frame| *seen.entry(number(frame)).or_insert(0) += 1);
        let missing: Vec<u64> = (0..self.count).filter(|number| !seen.contains_key(number)).collect();
        let twice: Vec<u64> = seen.iter().filter(|(_, n)| **n > 1).map(|(number, _)| *number).collect();
        let first = |numbers: &[u64]| format!("{} {:?}...", numbers.len(), &numbers[..numbers.len().min(8)]);
        format!(
            "{} of {} frames, missing {}, more than once {}",
            got.len(),
            self.count,
            first(&missing),
            first(&twice)
        )
    }
}

/// The number a frame says it has.
pub fn number(frame: &[u8]) -> u64 {
    frame.get(14..HEAD).map_or(u64::MAX, |bytes| u64::from_be_bytes(bytes.try_into().expect("eight bytes")))
}

#[cfg(test)]
mod tests {
    use super::Frames;

    const FRAMES: Frames = Frames { count: 20, lengths: 60..=9000, seed: 7 };

    #[test]
    fn are_as_said() {
        let frames: Vec<Vec<u8>> = FRAMES.iter().collect();
        assert_eq!((frames[0].len(), frames[1].len()), (60, 9000));
        assert!(frames.iter().all(|frame| (60..=9000).contains(&frame.len())));
        assert_eq!(FRAMES.bytes(), frames.iter().map(|frame| frame.len() as u64).sum::<u64>());
        FRAMES.assert_is("itself", &frames);
        FRAMES.assert_has_in_order("a part of it", &frames[3..7]);
    }

    #[test]
    #[should_panic(expected = "missing 1 [4]")]
    fn a_loss_is_seen() {
        let mut frames: Vec<Vec<u8>> = FRAMES.iter().collect();
        frames.remove(4);
        FRAMES.assert_is("a lossy path", &frames);
    }

    #[test]
    #[should_panic(expected = "first different byte: Some(33)")]
    fn a_changed_byte_is_seen() {
        let mut frames: Vec<Vec<u8>> = FRAMES.iter().collect();
        frames[4][33] ^= 1;
        FRAMES.assert_is("a careless path", &frames);
    }

    #[test]
    #[should_panic(expected = "out of order")]
    fn a_swap_is_seen() {
        let mut frames: Vec<Vec<u8>> = FRAMES.iter().collect();
        frames.swap(4, 5);
        FRAMES.assert_has_in_order("a hasty path", &frames);
    }
}
