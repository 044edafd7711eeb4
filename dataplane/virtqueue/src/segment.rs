//! Pieces of guest memory that a chain is made of, and a cursor that copies through them.
#![allow(unsafe_code)] // guest memory is shared with a running guest: it is only ever copied by raw pointer

use std::marker::PhantomData;

use crate::copy::copy;

/// A contiguous piece of guest memory that belongs to a chain taken from a ring.
///
/// The guest may write to it at any time: its bytes can be copied, never borrowed. It is itself no value to
/// copy: it must not outlive the ring's loan.
#[derive(Debug)]
pub struct Segment {
    ptr: *mut u8,
    len: u32,
}

impl Segment {
    /// # Safety
    ///
    /// `ptr .. ptr + len` must be mapped for as long as the segment is used; the ring lends segments no
    /// longer than it keeps the memory table alive.
    #[inline(always)]
    pub(crate) unsafe fn new(ptr: *mut u8, len: u32) -> Segment {
        Segment { ptr, len }
    }

    pub(crate) const EMPTY: Segment = Segment { ptr: std::ptr::null_mut(), len: 0 };

    pub(crate) fn ptr(&self) -> *mut u8 {
        self.ptr
    }

    /// Bytes in the segment.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)] // a ring never lends an empty segment
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Copies `to.len()` bytes that are behind the first `offset`; `false`, and nothing, if there are not so many.
    #[inline(always)]
    pub fn read(&self, offset: usize, to: &mut [u8]) -> bool {
        let fits = self.has(offset, to.len());
        if fits {
            // SAFETY: just checked.
            unsafe { copy(self.ptr.add(offset), to.as_mut_ptr(), to.len()) };
        }
        fits
    }

    /// Copies the last `to.len()` bytes; `false`, and nothing, if there are not so many.
    #[inline(always)]
    pub fn read_end(&self, to: &mut [u8]) -> bool {
        let before = self.len().checked_sub(to.len());
        if let Some(before) = before {
            // SAFETY: just checked.
            unsafe { copy(self.ptr.add(before), to.as_mut_ptr(), to.len()) };
        }
        before.is_some()
    }

    /// Copies `from` behind the first `offset` bytes; `false`, and nothing, if there is no room for all of it.
    #[inline(always)]
    pub fn write(&self, offset: usize, from: &[u8]) -> bool {
        let fits = self.has(offset, from.len());
        if fits {
            // SAFETY: just checked.
            unsafe { copy(from.as_ptr(), self.ptr.add(offset), from.len()) };
        }
        fits
    }

    /// Copies `len` bytes that are behind the first `from` to behind the first `at` of another segment, which may be
    /// another guest's; `false`, and nothing, if there are not so many here, or no room there.
    #[inline(always)]
    pub fn copy_to(&self, from: usize, to: &Segment, at: usize, len: usize) -> bool {
        let fits = self.has(from, len) && to.has(at, len);
        if fits {
            // SAFETY: just checked.
            unsafe { copy(self.ptr.add(from), to.ptr.add(at), len) };
        }
        fits
    }

    /// Has the bytes at the segment's start be those of `head`; `false` if there is no room for them. What is as it should
    /// be is left alone: nearly all headers are like the last one in that buffer, and its cache line stays where the
    /// guest has read it.
    #[inline(always)]
    pub fn write_head(&self, head: Head) -> bool {
        let fits = head.len <= self.len();
        if fits {
            for (at, wanted) in [(0, head.first), (head.len - 8, head.last)] {
                // SAFETY: eight bytes from there on are within the segment: just checked.
                unsafe {
                    let place = self.ptr.add(at).cast::<u64>();
                    if place.read_unaligned() != wanted {
                        place.write_unaligned(wanted);
                    }
                }
            }
        }
        fits
    }

    #[inline(always)]
    fn has(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len())
    }
}

/// A header of 8 to 16 bytes for many segments: its first and last eight, which may overlap.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    first: u64,
    last: u64,
    /// At least 8.
    len: usize,
}

impl Head {
    /// `bytes`; of another length than 8 to 16 they fit nowhere.
    #[inline(always)]
    pub fn new(bytes: &[u8]) -> Head {
        let word = |eight: Option<&[u8; 8]>| eight.map_or(0, |eight| u64::from_ne_bytes(*eight));
        let len = if (8..=16).contains(&bytes.len()) { bytes.len() } else { usize::MAX };
        Head { first: word(bytes.first_chunk()), last: word(bytes.last_chunk()), len }
    }
}

/// Copies bytes out of or into the segments of one chain, from front to back.
pub struct Cursor<'a> {
    at: *mut u8,
    left: usize,
    rest: &'a [Segment],
    lent: PhantomData<&'a Segment>,
}

impl<'a> Cursor<'a> {
    /// A cursor at the first byte of `segments`.
    #[inline(always)]
    pub fn new(segments: &'a [Segment]) -> Cursor<'a> {
        match segments {
            [first, rest @ ..] => Cursor { at: first.ptr, left: first.len(), rest, lent: PhantomData },
            [] => Cursor { at: std::ptr::null_mut(), left: 0, rest: &[], lent: PhantomData },
        }
    }

    /// Copies the next `to.len()` bytes out of guest memory; returns how many there were.
    #[inline(always)]
    pub fn read(&mut self, to: &mut [u8]) -> usize {
        self.pass(to.len(), |at, done, n| {
            // SAFETY: `at` has n mapped bytes (the segment's rest), and done + n is within `to`.
            unsafe { copy(at, to.as_mut_ptr().add(done), n) }
        })
    }

    /// Copies `from` into guest memory; returns how many bytes there was room for.
    #[inline(always)]
    pub fn write(&mut self, from: &[u8]) -> usize {
        self.pass(from.len(), |at, done, n| {
            // SAFETY: as in `read`, in the other direction.
            unsafe { copy(from.as_ptr().add(done), at, n) }
        })
    }

    /// Copies the next `len` bytes to where `to` is, which may be in another guest; returns how many there were, or
    /// there was room for.
    #[inline(always)]
    pub fn copy_to(&mut self, to: &mut Cursor, len: usize) -> usize {
        let mut copied = 0;
        self.pass(len, |from, _, n| {
            copied += to.pass(n, |at, done, n| {
                // SAFETY: `from` has the outer n mapped bytes, and done + n is within them; `at` has n.
                unsafe { copy(from.add(done), at, n) }
            })
        });
        copied
    }

    /// Moves on by `len` bytes; returns how many there were.
    #[inline(always)]
    pub fn skip(&mut self, len: usize) -> usize {
        self.pass(len, |_, _, _| {})
    }

    /// Moves on by `len` bytes, showing each contiguous piece as (guest memory, bytes before it, length).
    #[inline(always)]
    fn pass(&mut self, len: usize, mut piece: impl FnMut(*mut u8, usize, usize)) -> usize {
        if len <= self.left {
            piece(self.at, 0, len);
            self.advance(len);
            return len;
        }
        let mut done = 0;
        loop {
            let n = self.left.min(len - done);
            piece(self.at, done, n);
            self.advance(n);
            done += n;
            if done == len {
                return done;
            }
            let [first, rest @ ..] = self.rest else {
                return done;
            };
            (self.at, self.left, self.rest) = (first.ptr, first.len(), rest);
        }
    }

    #[inline(always)]
    fn advance(&mut self, n: usize) {
        // SAFETY: n is at most what is left of the segment, so `at` stays inside it or one past its end.
        self.at = unsafe { self.at.add(n) };
        self.left -= n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(parts: &mut [Vec<u8>]) -> Vec<Segment> {
        // SAFETY: the vectors outlive the segments in each test and are not touched meanwhile.
        parts.iter_mut().map(|part| unsafe { Segment::new(part.as_mut_ptr(), part.len() as u32) }).collect()
    }

    #[test]
    fn reads_across_any_layout() {
        let mut parts = vec![vec![1, 2, 3], vec![4], vec![5, 6, 7, 8]];
        let segments = segments(&mut parts);
        let mut cursor = Cursor::new(&segments);
        let mut head = [0; 2];
        assert_eq!((cursor.read(&mut head), head), (2, [1, 2]));
        assert_eq!(cursor.skip(1), 1);
        let mut rest = [0; 9];
        assert_eq!(cursor.read(&mut rest), 5);
        assert_eq!(rest[..5], [4, 5, 6, 7, 8]);
        assert_eq!(cursor.read(&mut rest), 0);
        assert_eq!(Cursor::new(&[]).read(&mut rest), 0);
    }

    #[test]
    fn a_head_is_written_where_it_fits_and_nothing_beyond() {
        for len in 7..=17 {
            let bytes: Vec<u8> = (1..=len as u8).collect();
            let mut as_it_is = vec![0xaa; 20];
            as_it_is[..len].copy_from_slice(&bytes);
            for before in [vec![0xaa; 20], as_it_is] {
                let mut parts = vec![before.clone()];
                let written = segments(&mut parts)[0].write_head(Head::new(&bytes));
                assert_eq!(written, (8..=16).contains(&len), "{len} bytes");
                let expected = if written { &bytes } else { &before[..len] };
                assert_eq!(parts[0][..len], *expected);
                assert_eq!(parts[0][len..], before[len..]);
            }
            let mut short = vec![vec![0; len - 1]];
            assert!(!segments(&mut short)[0].write_head(Head::new(&bytes)));
            assert_eq!(short[0], vec![0; len - 1]);
        }
    }

    #[test]
    fn copies_between_any_layouts() {
        let bytes: Vec<u8> = (1..=9).collect();
        let split = |at: [usize; 2]| {
            vec![bytes[..at[0]].to_vec(), bytes[at[0]..at[1]].to_vec(), bytes[at[1]..].to_vec()]
        };
        for (from, to) in [([1, 2], [4, 8]), ([3, 6], [3, 6]), ([7, 8], [1, 5])] {
            let (mut from, mut to) = (split(from), split(to));
            to.iter_mut().for_each(|part| part.fill(0));
            let (from, into) = (segments(&mut from), segments(&mut to));
            let (mut reader, mut writer) = (Cursor::new(&from), Cursor::new(&into));
            assert_eq!((reader.skip(2), writer.skip(1)), (2, 1));
            assert_eq!(reader.copy_to(&mut writer, 5), 5);
            assert_eq!(reader.copy_to(&mut writer, 9), 2);
            assert_eq!(to.concat(), [0, 3, 4, 5, 6, 7, 8, 9, 0]);
        }
        let (mut from, mut to) = (vec![bytes.clone()], vec![vec![0; 2], vec![0; 3]]);
        let (from, into) = (segments(&mut from), segments(&mut to));
        assert_eq!(Cursor::new(&from).copy_to(&mut Cursor::new(&into), 9), 5);
        assert_eq!(to.concat(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_copy_to_a_segment_goes_no_further_than_either() {
        let (mut from, mut to) = (vec![(1..=9).collect()], vec![vec![0; 6]]);
        let (from, into) = (segments(&mut from), segments(&mut to));
        for (at, start, len) in [(5, 0, 5), (0, 2, 5), (usize::MAX, 0, 2), (0, usize::MAX, 2)] {
            assert!(!from[0].copy_to(at, &into[0], start, len), "{at} {start} {len}");
        }
        assert!(from[0].copy_to(5, &into[0], 2, 4));
        assert_eq!(to[0], [0, 0, 6, 7, 8, 9]);
    }

    #[test]
    fn writes_across_segments_and_stops_at_the_end() {
        let mut parts = vec![vec![0; 2], vec![0; 3]];
        let segments = segments(&mut parts);
        let mut cursor = Cursor::new(&segments);
        assert_eq!(cursor.write(&[1]), 1);
        assert_eq!(cursor.write(&[2, 3, 4, 5, 6, 7]), 4);
        assert_eq!(parts, [vec![1, 2], vec![3, 4, 5]]);
    }
}
