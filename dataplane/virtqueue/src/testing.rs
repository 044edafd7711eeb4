//! The driver's side of a ring, for tests: plain bytes in plain memory, nothing shared with the device.
//!
//! [`split::Driver`] and [`packed::Driver`] do whatever they are told, also what no guest should; [`RingDriver`] is what
//! both can do. [`Poster`] is a well-behaved guest on either.
#![allow(unsafe_code)] // it plays the guest, whose memory is reached by raw pointer

use std::collections::VecDeque;

#[cfg(test)]
use crate::{Cursor, Segment, Taken, Token, Violation, Virtqueue};

mod driver;
mod memory;
#[cfg(test)]
pub(crate) mod misdeed;
pub mod packed;
mod poster;
pub mod split;
mod wires;

pub use driver::RingDriver;
pub use memory::Guest;
pub use poster::{Format, Poster, poster};
pub use wires::Wires;

/// Where the three areas are (guest address).
pub const RINGS: u64 = 0x10_0000;
/// Two pieces of memory for buffers that follow each other in the guest, but not in the host.
pub const DATA: u64 = 0x4000_0000;
/// Where the first ends and the second starts.
pub const SEAM: u64 = DATA + 0x1_0000;
/// Where the second ends, and nothing follows.
pub const HOLE: u64 = SEAM + 0x1_0000;
/// Frontend address minus guest address.
pub const USER: u64 = 0x7000_0000_0000;

/// Flag of a descriptor: the chain goes on.
pub const NEXT: u16 = 1;
/// Flag of a descriptor: the device writes.
pub const WRITE: u16 = 2;
/// Flag of a descriptor: it names a table.
pub const INDIRECT: u16 = 4;
/// Feature bit RING_INDIRECT_DESC.
pub const F_INDIRECT: u64 = 1 << 28;
/// Feature bit RING_EVENT_IDX.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// Feature bit RING_PACKED.
pub const F_PACKED: u64 = 1 << 34;
/// Feature bit IN_ORDER.
pub const F_IN_ORDER: u64 = 1 << 35;

/// One buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buf {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
}

/// A buffer the device reads.
pub fn out(addr: u64, len: u32) -> Buf {
    Buf { addr, len, flags: 0 }
}

/// A buffer the device writes.
pub fn into(addr: u64, len: u32) -> Buf {
    Buf { addr, len, flags: WRITE }
}

/// Bytes that tell where they are from.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| ((seed.wrapping_mul(31) + i).wrapping_mul(0x9e37_79b9) >> 8) as u8).collect()
}

/// The chains, of those in `posted` order, that a used entry for chain `id` stands for (IN_ORDER): all up to it.
fn batch(posted: &mut VecDeque<u16>, id: u16) -> Vec<u16> {
    let last = posted.iter().position(|posted| *posted == id).expect("a chain that is not posted was used");
    posted.drain(..=last).collect()
}

/// Memory for rings of so many bytes, and for buffers.
fn guest_with_rings(len: u64) -> Guest {
    Guest::new(&[(RINGS, len as usize), (DATA, (SEAM - DATA) as usize), (SEAM, (HOLE - SEAM) as usize)])
}

/// A descriptor as bytes: its last two words are flags and next (split), or id and flags (packed).
fn desc_bytes(buf: Buf, words: [u16; 2]) -> Vec<u8> {
    let mut bytes = buf.addr.to_le_bytes().to_vec();
    bytes.extend(buf.len.to_le_bytes());
    words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    bytes
}

/// So many cases of a property; few under Miri, which is a hundred times slower.
#[cfg(test)]
pub(crate) fn runs(cases: u32) -> proptest::prelude::ProptestConfig {
    let cases = if cfg!(miri) { 10 } else { cases };
    proptest::prelude::ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

/// A chain taken from a ring, and its content.
#[cfg(test)]
pub(crate) fn take(ring: &mut impl Virtqueue) -> Result<(Token, Vec<u8>), Violation> {
    assert_ne!(ring.available(1)?, 0, "nothing to take");
    let Taken { token, len, segments } = ring.take()?.expect("nothing was taken");
    let mut content = vec![0; segments.iter().map(Segment::len).sum()];
    assert_eq!(Cursor::new(segments).read(&mut content), content.len());
    assert_eq!(content.len(), len as usize);
    Ok((token, content))
}

/// Takes and completes what is known to be there.
#[cfg(test)]
pub(crate) fn serve(ring: &mut impl Virtqueue, chains: u16) {
    for _ in 0..chains {
        let (token, _) = take(ring).unwrap();
        ring.complete(token, 0);
    }
}
