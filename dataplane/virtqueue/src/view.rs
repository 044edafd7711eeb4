//! A look at a ring from outside, while its owner goes on: for those who want to know why nothing moves.
#![allow(unsafe_code)] // reads of guest memory, through pointers checked when the view is made

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use virtio_bindings::virtio_config::VIRTIO_F_RING_PACKED;
use virtio_bindings::virtio_ring::{VRING_PACKED_DESC_F_AVAIL, VRING_PACKED_DESC_F_USED};

use crate::ring::area;
use crate::{Memory, RingConfig};

/// Bytes of an avail or used ring up to the end of its index.
const INDEX_END: u64 = 4;
/// Bytes of a packed ring's descriptor, and where its flags are.
const DESC: usize = 16;
const FLAGS: usize = 14;

/// Where to look. It keeps the guest's memory mapped, so whoever promised to unmap that lets go of this first.
pub struct RingView {
    words: Words,
    _memory: Arc<Memory>,
}

enum Words {
    /// The two indices.
    Split { avail: *const u16, used: *const u16 },
    /// The descriptors, and how many.
    Packed { descs: *const u8, size: u16 },
}

// SAFETY: pointers into memory that is kept mapped, on whatever thread; they are only read through, atomically.
unsafe impl Send for RingView {}

/// What was seen. The guest may have written anything there, and writes on: nothing may rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Whether there are buffers that the guest has posted and nobody has used yet. In a packed ring, descriptors
    /// inside of chains that were used look as if they were posted.
    pub posted: bool,
    /// Avail and used index of a split ring.
    pub indices: Option<(u16, u16)>,
}

impl RingView {
    /// A view of the ring that was started with `config`; `None` if it is not mapped as a ring's areas must be.
    pub fn new(config: &RingConfig) -> Option<RingView> {
        let find = |name, addr, len, align| area(&config.memory, name, addr, len, align).ok();
        let index = |name, addr| {
            let ring = find(name, addr, INDEX_END, 2)?;
            // SAFETY: the second of the two words that were just found mapped and aligned.
            Some(unsafe { ring.cast::<u16>().add(1) }.cast_const())
        };
        let words = if config.has(VIRTIO_F_RING_PACKED) {
            let len = DESC as u64 * u64::from(config.size);
            Words::Packed { descs: find("descriptor ring", config.desc, len, DESC)?, size: config.size }
        } else {
            let (avail, used) = (index("avail ring", config.avail)?, index("used ring", config.used)?);
            Words::Split { avail, used }
        };
        Some(RingView { words, _memory: config.memory.clone() })
    }

    /// What the ring looks like now.
    pub fn glance(&self) -> Glance {
        match self.words {
            Words::Split { avail, used } => {
                // The used index first: so what is available is never seen to be behind it.
                // SAFETY: a mapped, aligned word, which `_memory` keeps so.
                let used = unsafe { AtomicU16::from_ptr(used.cast_mut()) }.load(Ordering::Acquire);
                // SAFETY: likewise.
                let avail = unsafe { AtomicU16::from_ptr(avail.cast_mut()) }.load(Ordering::Acquire);
                Glance { posted: avail != used, indices: Some((avail, used)) }
            }
            Words::Packed { descs, size } => {
                Glance { posted: (0..size).any(|slot| is_posted(descs, slot)), indices: None }
            }
        }
    }
}

/// Whether the two flags differ, which they do from when the guest posts a descriptor until it is used
/// (virtio 1.2, 2.8.1).
fn is_posted(descs: *const u8, slot: u16) -> bool {
    // SAFETY: the flags of a descriptor within the ring, which was found mapped and aligned.
    let flags = unsafe { AtomicU16::from_ptr(descs.add(DESC * usize::from(slot) + FLAGS).cast_mut().cast()) };
    let flags = flags.load(Ordering::Relaxed);
    (flags >> VRING_PACKED_DESC_F_AVAIL ^ flags >> VRING_PACKED_DESC_F_USED) & 1 == 1
}

#[cfg(test)]
mod tests;
