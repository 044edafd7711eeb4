//! A ring of records in memory: one thread writes, one reads, and neither waits for the other.
//!
//! It is made of words that are stored and loaded one by one, so that it needs neither a lock nor `unsafe`. A record
//! is three words, and the bytes that were kept, filled up to whole words.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use super::Direction;

/// Bytes of a word.
const WORD: usize = size_of::<u64>();
/// Words in front of a record's bytes.
const HEAD: usize = 3;

/// A frame that was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When: nanoseconds since 1970.
    pub at: u64,
    /// The port's pair it was seen at.
    pub pair: u16,
    /// Which way it went.
    pub direction: Direction,
    /// Bytes of the whole frame.
    pub len: u32,
    /// As many of them as were kept.
    pub data: &'a [u8],
}

/// The ring. `head` and `tail` are words read and written since it was made, modulo 2^64.
pub(super) struct Ring {
    words: Box<[AtomicU64]>,
    head: CachePadded<AtomicUsize>,
    tail: CachePadded<AtomicUsize>,
}

/// The one end at which it is written. (There is one of each ring: it cannot be cloned.)
pub(super) struct Writer(Arc<Ring>);

impl Ring {
    /// A ring with room for `bytes` or more, and its writer.
    pub fn new(bytes: usize) -> (Arc<Ring>, Writer) {
        let words = (bytes / WORD).next_power_of_two();
        let ring = Arc::new(Ring {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            head: CachePadded::default(),
            tail: CachePadded::default(),
        });
        (ring.clone(), Writer(ring))
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.words[at & (self.words.len() - 1)]
    }

    /// Hands out what was written, until that are `most` records. For the one thread that reads; `space` is for
    /// the bytes of one.
    pub fn read(&self, most: usize, space: &mut Vec<u8>, each: &mut impl FnMut(Record<'_>)) -> usize {
        let mut head = self.head.load(Ordering::Relaxed);
        // Acquire: what the tail says is there is read after it.
        let tail = self.tail.load(Ordering::Acquire);
        let mut count = 0;
        while head != tail && count < most {
            let word = |n: usize| self.word(head.wrapping_add(n)).load(Ordering::Relaxed);
            let [lens, at, place] = [word(0), word(1), word(2)];
            let kept = lens as u32 as usize;
            let words = kept.div_ceil(WORD);
            space.clear();
            space.extend((HEAD..HEAD + words).flat_map(|n| word(n).to_ne_bytes()));
            let direction = if place >> 16 == 0 { Direction::Rx } else { Direction::Tx };
            let (pair, len) = (place as u16, (lens >> 32) as u32);
            each(Record { at, pair, direction, len, data: &space[..kept] });
            head = head.wrapping_add(HEAD + words);
            // Release: it is read before its place is given away.
            self.head.store(head, Ordering::Release);
            count += 1;
        }
        count
    }
}

impl Writer {
    /// Adds a record. Whether there was room for it.
    pub fn push(&mut self, record: &Record<'_>) -> bool {
        let ring = &*self.0;
        let words = HEAD + record.data.len().div_ceil(WORD);
        let tail = ring.tail.load(Ordering::Relaxed);
        // Acquire: what the reader has given away is written after that.
        let used = tail.wrapping_sub(ring.head.load(Ordering::Acquire));
        if words > ring.words.len() - used {
            return false;
        }
        let store = |n: usize, word| ring.word(tail.wrapping_add(n)).store(word, Ordering::Relaxed);
        store(0, u64::from(record.len) << 32 | record.data.len() as u64);
        store(1, record.at);
        store(2, u64::from(record.pair) | u64::from(record.direction == Direction::Tx) << 16);
        let (whole, rest) = record.data.as_chunks::<WORD>();
        for (n, chunk) in (HEAD..).zip(whole) {
            store(n, u64::from_ne_bytes(*chunk));
        }
        if !rest.is_empty() {
            let mut last = [0; WORD];
            last[..rest.len()].copy_from_slice(rest);
            store(words - 1, u64::from_ne_bytes(last));
        }
        // Release: the record is there before the tail says so.
        ring.tail.store(tail.wrapping_add(words), Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, data: &[u8]) -> Record<'_> {
        let direction = if number.is_multiple_of(2) { Direction::Rx } else { Direction::Tx };
        Record { at: number, pair: number as u16, direction, len: data.len() as u32 + 7, data }
    }

    /// What each number stands for: lengths of which some do not fill their last word.
    fn bytes(number: u64) -> Vec<u8> {
        (0..number * 37 % 301).map(|n| (number + n) as u8).collect()
    }

    #[test]
    fn what_has_no_room_is_refused_and_what_was_taken_is_whole() {
        let (ring, mut writer) = Ring::new(64 * WORD);
        let frame = bytes(8);
        let fit = (0..).take_while(|number| writer.push(&record(*number, &frame))).count();
        assert_eq!(fit, 64 / (HEAD + frame.len().div_ceil(WORD)));
        let mut seen = 0;
        let mut look = |found: Record<'_>| {
            assert_eq!(found, record(seen, &frame));
            seen += 1;
        };
        assert_eq!(ring.read(1, &mut Vec::new(), &mut look), 1);
        assert_eq!(ring.read(usize::MAX, &mut Vec::new(), &mut look), fit - 1);
        assert_eq!(ring.read(1, &mut Vec::new(), &mut look), 0);
        assert!(writer.push(&record(0, &frame)));
        assert!(!writer.push(&record(0, &[0; 64 * WORD])));
    }

    #[test]
    fn two_threads_see_the_same_in_the_same_order() {
        const COUNT: u64 = if cfg!(miri) { 200 } else { 100_000 };
        let (ring, mut writer) = Ring::new(512 * WORD);
        let written = std::thread::spawn(move || {
            for number in 0..COUNT {
                let data = bytes(number);
                while !writer.push(&record(number, &data)) {
                    std::thread::yield_now();
                }
            }
        });
        let (mut next, mut space) = (0, Vec::new());
        while next < COUNT {
            let count = ring.read(7, &mut space, &mut |found| {
                assert_eq!(found, record(next, &bytes(next)));
                next += 1;
            });
            if count == 0 {
                std::thread::yield_now();
            }
        }
        written.join().unwrap();
    }
}
