//! Virtqueues in memory that both sides write: the driver's side, which is this program's trade, and a
//! minimal device's side for `reflect`.
//!
//! A ring is memory that another process changes at any moment; that is what `unsafe` is for here, and it
//! stays inside this module. Pointers are checked once, when a ring or a pool is made, and stay valid
//! because both hold an `Rc` of the mapping. Indices are masked by the ring's size, never taken on trust.

pub mod device;
pub mod driver;
mod pool;

pub use pool::{HEAD, HEADER_LEN, Pool, PoolArea};

/// One entry of a descriptor table, and of a packed ring (virtio 1.2, 2.7.5 and 2.8.13; the order of `next`
/// or `id` and `flags` differs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// `WRITE`, `INDIRECT` or 0.
    pub flags: u16,
}

/// Bytes of a descriptor.
pub const DESCRIPTOR: usize = 16;
/// Descriptor flags (2.7.5, 2.8.1).
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
/// Packed: the driver's and the device's wrap counters (2.8.1).
pub const AVAIL: u16 = 1 << 7;
pub const USED: u16 = 1 << 15;
/// Split: the other side wants no notification (2.7.6, 2.7.8).
pub const NO_NOTIFY: u16 = 1;
/// Packed: what an event suppression structure says (2.8.10).
pub const EVENTS_OFF: u16 = 1;
pub const EVENTS_AT: u16 = 2;

/// A descriptor, and the buffer of the same number in the pool. Only rings make one, and only with a number
/// below their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u16);

impl Slot {
    /// Its number.
    pub fn number(self) -> u32 {
        u32::from(self.0)
    }
}

/// Whether an event at `event` was passed by going from `old` to `new` (2.7.10, vring_need_event).
pub fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Where the parts of a ring are, as offsets into the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Areas {
    /// Entries, a power of two up to 32768.
    pub size: u16,
    /// Descriptor table, or packed ring.
    pub descriptors: usize,
    /// Avail ring, or driver event structure.
    pub driver: usize,
    /// Used ring, or device event structure.
    pub device: usize,
}

impl Areas {
    /// Places a ring. The split ring's areas suit the packed ring as well.
    pub fn place(layout: &mut crate::memory::Layout, size: u16) -> Areas {
        let n = usize::from(size);
        Areas {
            size,
            descriptors: layout.take(DESCRIPTOR * n),
            driver: layout.take(6 + 2 * n),
            device: layout.take(6 + 8 * n),
        }
    }
}

/// The order in which the other side gave descriptors back, once it was not the order they were offered in.
/// Position `p` of the ring is offered next time with whatever came back at position `p`: each descriptor
/// comes back once, and each position is used once, so no free list is needed.
#[derive(Debug)]
struct Disorder {
    /// Position -> descriptor.
    owner: Vec<u16>,
    /// Descriptors that the other side has.
    held: Vec<bool>,
}

impl Disorder {
    /// After `tail..head` were offered in order.
    fn after(size: u32, head: u32, tail: u32) -> Disorder {
        let mask = size - 1;
        let mut held = vec![false; size as usize];
        for position in 0..head.wrapping_sub(tail) {
            held[(tail.wrapping_add(position) & mask) as usize] = true;
        }
        Disorder { owner: (0..size).map(|i| i as u16).collect(), held }
    }

    /// Takes `id` at `position`, or says why it cannot be.
    fn settle(&mut self, position: u32, id: u32) -> Result<u16, String> {
        match self.held.get_mut(id as usize) {
            Some(held) if *held => *held = false,
            _ => return Err(format!("the backend returned descriptor {id}, which it does not have")),
        }
        self.owner[position as usize] = id as u16;
        Ok(id as u16)
    }

    /// `position` is offered again.
    fn offer(&mut self, position: u32) {
        self.held[usize::from(self.owner[position as usize])] = true;
    }
}

#[cfg(test)]
mod tests;
