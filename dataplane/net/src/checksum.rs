//! The Internet checksum (RFC 1071), and completing one.

#[cfg(target_arch = "x86_64")]
mod avx2;

/// Shorter ones are not worth asking what the CPU can do.
#[cfg(target_arch = "x86_64")]
const VECTOR_MIN: usize = 128;

/// A one's complement sum of 16-bit words, over bytes that come in any number of pieces of any length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Of words as they are in memory: byte order makes no difference to the sum, but to the order of its bytes.
    total: u64,
    /// An odd number of bytes was added.
    odd: bool,
}

impl Sum {
    /// The sum of `bytes`.
    #[inline]
    pub fn of(bytes: &[u8]) -> Sum {
        let mut sum = Sum::default();
        sum.add(bytes);
        sum
    }

    /// Adds the bytes that follow.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let words = sum_words(bytes);
        // Behind an odd number of bytes, all words are across.
        self.total += if self.odd { u64::from(fold(words).swap_bytes()) } else { words };
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// Adds a word, at an even place.
    #[inline]
    pub(crate) fn add_word(&mut self, word: u16) {
        self.total += u64::from(word.to_be());
    }

    /// Adds a number as two words, at an even place.
    #[inline]
    pub(crate) fn add_number(&mut self, number: u32) {
        self.add_word((number >> 16) as u16);
        self.add_word(number as u16);
    }

    /// Adds what begins at an even place.
    #[inline]
    pub(crate) fn add_sum(&mut self, other: Sum) {
        self.total += u64::from(fold(other.total));
    }

    /// The sum as a word: 0 only if all words are. A checksum is its complement.
    #[inline]
    pub fn fold(self) -> u16 {
        u16::from_be(fold(self.total))
    }
}

/// Adds carries until there are none.
#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + sum) as u16
}

/// The words' sum, or a smaller number that folds to the same. Far below 2^64, so that many can be added.
#[inline]
fn sum_words(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= VECTOR_MIN
        && let Some(sum) = avx2::sum_words(bytes)
    {
        return sum;
    }
    sum_words_portable(bytes)
}

#[inline]
fn sum_words_portable(bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    // Four words at once: a carry out of 64 bits is one more, as one out of 16 is (2^16 = 1 modulo 2^16 - 1).
    let (mut sum, mut carries) = (0u64, 0u64);
    for chunk in chunks {
        let (next, carry) = sum.overflowing_add(u64::from_ne_bytes(*chunk));
        sum = next;
        carries += u64::from(carry);
    }
    let mut rest = rest;
    if let Some((words, behind)) = rest.split_first_chunk::<4>() {
        carries += u64::from(u32::from_ne_bytes(*words));
        rest = behind;
    }
    if let Some((word, behind)) = rest.split_first_chunk::<2>() {
        carries += u64::from(u16::from_ne_bytes(*word));
        rest = behind;
    }
    if let [byte] = rest {
        carries += u64::from(u16::from_ne_bytes([*byte, 0]));
    }
    (sum >> 32) + (sum & 0xffff_ffff) + carries
}

/// A checksum that is left to complete: its field holds the part that is no sum of bytes in the frame (the pseudo
/// header, for TCP and UDP), and the field counts like every other word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    start: u16,
    offset: u16,
}

impl Checksum {
    /// What is summed begins at `start` and lasts to the end of the frame; the field is `offset` bytes behind.
    pub(crate) fn new(start: u16, offset: u16) -> Checksum {
        Checksum { start, offset }
    }

    /// Where the field is in the frame.
    pub fn at(&self) -> usize {
        usize::from(self.start) + usize::from(self.offset)
    }

    /// What belongs into the field, the frame being all of `pieces`.
    ///
    /// A sum of 0 becomes 0xffff: the same number, but with UDP 0 says that there is no checksum.
    pub fn value<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> [u8; 2] {
        let mut skip = usize::from(self.start);
        let mut sum = Sum::default();
        for piece in pieces {
            sum.add(piece.get(skip..).unwrap_or_default());
            skip = skip.saturating_sub(piece.len());
        }
        unless_zero(!sum.fold()).to_be_bytes()
    }

    /// Completes it in `frame`, which must be as long as the one that was checked, or at least reach behind the field.
    ///
    /// # Panics
    /// If it does not.
    #[inline(never)]
    pub fn complete(&self, frame: &mut [u8]) {
        let value = self.value([&*frame]);
        frame[self.at()..][..2].copy_from_slice(&value);
    }
}

/// A checksum that is never "none".
#[inline]
pub(crate) fn unless_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        let mut sum: u64 = bytes.chunks(2).map(word).sum();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }

    #[test]
    fn of_the_example_in_rfc_1071() {
        assert_eq!(Sum::of(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]).fold(), 0xddf2);
    }

    #[test]
    fn of_extremes() {
        for len in [0, 1, 2, 7, 127, 128, 129, 255, 1500, 65_535, 65_536, 3_000_001] {
            assert_eq!(Sum::of(&vec![0; len]).fold(), 0, "{len}");
            let ones = vec![0xff; len];
            assert_eq!(Sum::of(&ones).fold(), reference(&ones), "{len}");
            let high = [0x80, 0].repeat(len);
            assert_eq!(Sum::of(&high).fold(), reference(&high), "{len}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() })]

        #[test]
        fn is_the_reference(bytes in proptest::collection::vec(any::<u8>(), 0..5000), from in 0usize..64) {
            let bytes = bytes.get(from..).unwrap_or_default();
            prop_assert_eq!(Sum::of(bytes).fold(), reference(bytes));
            prop_assert_eq!(u16::from_be(fold(sum_words_portable(bytes))), reference(bytes));
        }

        #[test]
        fn does_not_depend_on_the_pieces(
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            cuts in proptest::collection::vec(0usize..3000, 0..8),
            start in 0u16..200,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = || cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
            let mut sum = Sum::default();
            pieces().for_each(|piece| sum.add(piece));
            prop_assert_eq!(sum.fold(), reference(&bytes));
            let checksum = Checksum::new(start, 0);
            let summed = bytes.get(usize::from(start)..).unwrap_or_default();
            prop_assert_eq!(checksum.value(pieces()), unless_zero(!reference(summed)).to_be_bytes());
        }
    }
}
