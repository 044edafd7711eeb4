//! Virtqueues, seen from the device: the split ring (virtio 1.2, section 2.7).
//!
//! A [`Ring`] is a value with one owner. It is made from a [`RingConfig`] that is checked once, keeps the
//! guest memory it points into alive, and is given up by value. Everything a guest can write is read once
//! and checked before use; the first violation stops the ring for good (see [`Violation`]).
//!
//! This crate knows neither DPDK nor virtio-net: it hands out chains as host [`Segment`]s.

mod memory;
mod notify;
mod ring;
mod segment;
mod split;
#[cfg(test)]
mod testing;

pub use memory::{Memory, MemoryError, Region};
pub use notify::{Notifier, NotifyError};
pub use ring::{Call, Reservation, Ring, RingConfig, SetupError, Violation};
pub use segment::{Cursor, Segment};
pub use split::SplitRing;
