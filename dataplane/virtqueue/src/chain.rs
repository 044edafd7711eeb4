//! What taking a chain needs, whatever the ring's format: the pieces of its buffers, and the latch for a
//! guest that breaks the rules.
#![allow(unsafe_code)] // ranges that were found mapped become segments here

use std::sync::Arc;

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

use crate::memory::Translator;
use crate::{Memory, RingConfig, Segment, Violation};

/// Descriptors that are walked for one chain, and chains that are taken for one packet, however long the
/// ring is: as many as the seed takes (UIO_MAXIOV). It bounds what one chain may cost us.
pub(crate) const MAX_CHAIN: u16 = 1024;

/// Pieces kept: one a descriptor, and some because buffers may cross memory regions.
const MAX_PIECES: usize = MAX_CHAIN as usize + 64;

/// Bytes of a descriptor, in either format (virtio 1.2, 2.7.5 and 2.8.13).
pub(crate) const DESC_LEN: u32 = 16;

/// Flags of a descriptor, in either format.
pub(crate) const NEXT: u16 = VRING_DESC_F_NEXT as u16;
pub(crate) const WRITE: u16 = VRING_DESC_F_WRITE as u16;
pub(crate) const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

/// The pieces of the chains taken last.
pub(crate) struct Pieces {
    translator: Translator,
    segments: Box<[Segment]>,
    count: usize,
}

// SAFETY: the segments lie in memory that the translator keeps mapped, on whatever thread.
unsafe impl Send for Pieces {}

impl Pieces {
    pub(crate) fn new(memory: Arc<Memory>) -> Pieces {
        let segments = (0..MAX_PIECES).map(|_| Segment::EMPTY).collect();
        Pieces { translator: Translator::new(memory), segments, count: 0 }
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    #[inline(always)]
    pub(crate) fn translator(&mut self) -> &mut Translator {
        &mut self.translator
    }

    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[Segment] {
        &self.segments[..self.count]
    }

    /// Adds the buffer of one descriptor of chain `head`: one piece, unless it goes on in another memory
    /// region.
    #[inline(always)]
    pub(crate) fn add(&mut self, head: u16, addr: u64, len: u32) -> Result<(), Violation> {
        match self.translator.translate(addr, len) {
            Some((ptr, found)) if found == len && self.count < self.segments.len() && len > 0 => {
                // SAFETY: the range was found mapped, and the translator keeps the memory table alive.
                self.segments[self.count] = unsafe { Segment::new(ptr, len) };
                self.count += 1;
                Ok(())
            }
            _ => self.add_in_pieces(head, addr, len),
        }
    }

    #[cold]
    fn add_in_pieces(&mut self, head: u16, mut addr: u64, mut left: u32) -> Result<(), Violation> {
        if left == 0 {
            return Err(Violation::EmptyDescriptor { head });
        }
        while left > 0 {
            if self.count == self.segments.len() {
                return Err(Violation::TooManyPieces { head });
            }
            let Some((ptr, len)) = self.translator.translate(addr, left) else {
                return Err(Violation::Unmapped { head, addr, len: left });
            };
            // SAFETY: as in `add`.
            self.segments[self.count] = unsafe { Segment::new(ptr, len) };
            self.count += 1;
            left -= len;
            // A region never ends at 2^64, so only a range that goes on beyond all regions can wrap.
            addr = addr.wrapping_add(u64::from(len));
        }
        Ok(())
    }

    /// Where an indirect table of `len` bytes is mapped, all in one piece, and how many descriptors it has:
    /// from one to `most` (virtio 1.2, 2.7.5.3.1 and 2.8.7).
    pub(crate) fn table(
        &mut self,
        head: u16,
        addr: u64,
        len: u32,
        most: u16,
    ) -> Result<(*mut u8, u16), Violation> {
        let entries = len / DESC_LEN;
        if !len.is_multiple_of(DESC_LEN) || !(1..=u32::from(most)).contains(&entries) {
            return Err(Violation::Indirect { head });
        }
        match self.translator.translate(addr, len) {
            Some((at, room)) if room == len => Ok((at, entries as u16)),
            _ => Err(Violation::Unmapped { head, addr, len }),
        }
    }
}

/// Holds the first violation of a ring; from then on nothing is taken from it.
#[derive(Default)]
pub(crate) struct Latch(Option<Violation>);

impl Latch {
    #[inline(always)]
    pub(crate) fn broken(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.0
    }

    /// Stops the ring for good and tells the frontend.
    #[cold]
    pub(crate) fn fail(&mut self, config: &RingConfig, violation: Violation) -> Violation {
        if self.0.is_none() {
            self.0 = Some(violation);
            if let Some(err) = &config.err {
                err.signal();
            }
        }
        violation
    }
}

/// `len` and the bytes of one more descriptor of chain `head`.
#[inline(always)]
pub(crate) fn add_len(head: u16, len: u32, more: u32) -> Result<u32, Violation> {
    len.checked_add(more).ok_or(Violation::Length { head })
}
