//! Chains that are one descriptor and one piece of memory each: nearly all of a fast guest's. They are taken, or
//! reserved, a burst at a time; whatever else a chain may be, or do wrong, is left to the walk of single chains.

#![allow(unsafe_code)] // ranges that were found mapped become segments here

use crate::memory::{Translator, Window};
use crate::{Segment, prefetch};

/// As many as are taken or reserved together.
pub(crate) const MOST: usize = 64;

/// The chains taken or reserved last.
pub(crate) struct Singles {
    segments: [Segment; MOST],
    /// Their heads (split) or buffer ids (packed).
    ids: [u16; MOST],
    count: usize,
}

// SAFETY: the segments lie in memory that the ring's translator keeps mapped, on whatever thread.
unsafe impl Send for Singles {}

impl Singles {
    pub(crate) fn new() -> Box<Singles> {
        Box::new(Singles { segments: [Segment::EMPTY; MOST], ids: [0; MOST], count: 0 })
    }

    /// Starts anew; what is found next goes through the [`Finder`].
    #[inline(always)]
    pub(crate) fn find<'a>(&'a mut self, translator: &'a mut Translator) -> Finder<'a> {
        self.count = 0;
        Finder { window: translator.window(), translator, singles: self, count: 0 }
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    #[inline(always)]
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments[..self.count.min(MOST)]
    }

    /// The ids of the first `count`.
    #[inline(always)]
    pub(crate) fn ids(&self, count: usize) -> &[u16] {
        &self.ids[..count.min(self.count).min(MOST)]
    }
}

/// Finds chains one after the other. What it needs for each is held in registers.
pub(crate) struct Finder<'a> {
    translator: &'a mut Translator,
    window: Window,
    singles: &'a mut Singles,
    count: usize,
}

impl Finder<'_> {
    /// How many were found.
    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Adds a chain, of `len` > 0 bytes, to be read or written; `false` if they are not in one piece of memory.
    #[inline(always)]
    pub(crate) fn add<const WRITE: bool>(&mut self, id: u16, addr: u64, len: u32) -> bool {
        let ptr = match self.window.at(addr, len) {
            Some(ptr) => ptr,
            None => match elsewhere(self.translator, addr, len) {
                Some((ptr, window)) => {
                    self.window = window;
                    ptr
                }
                None => return false,
            },
        };
        if WRITE {
            prefetch::write(ptr)
        } else {
            prefetch::read(ptr)
        }
        // Never more than MOST, and the remainder tells the compiler so.
        let n = self.count % MOST;
        // SAFETY: the range was found mapped, and the translator keeps the memory table alive.
        self.singles.segments[n] = unsafe { Segment::new(ptr, len) };
        self.singles.ids[n] = id;
        self.count += 1;
        true
    }

    /// The end of the search.
    #[inline(always)]
    pub(crate) fn finish(self) -> usize {
        self.singles.count = self.count;
        self.count
    }
}

/// Where the whole range is mapped, and the region it is in. (Not a method: with its address taken, the finder
/// would have to live in memory.)
#[cold]
fn elsewhere(translator: &mut Translator, addr: u64, len: u32) -> Option<(*mut u8, Window)> {
    let (ptr, found) = translator.translate(addr, len)?;
    (found == len).then_some((ptr, translator.window()))
}
