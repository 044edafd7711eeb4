//! Virtqueues, seen from the device: split and packed rings (virtio 1.2, sections 2.7 and 2.8).
//!
//! A [`Ring`] is a value with one owner. It is made from a [`RingConfig`] that is checked once, keeps the
//! guest memory it points into alive, and is given up by value. Everything a guest can write is read once
//! and checked before use; the first violation stops the ring for good (see [`Violation`]).
//!
//! This crate knows neither DPDK nor virtio-net: it hands out chains as host [`Segment`]s.

mod chain;
mod copy;
mod memory;
mod notify;
mod offer;
mod packed;
mod prefetch;
mod ring;
mod segment;
mod singles;
mod split;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
mod transfer;
mod view;

pub use memory::{Memory, MemoryError, Region};
pub use notify::{Notifier, NotifyError, prepare_to_signal};
pub use offer::Offer;
pub use packed::PackedRing;
pub use ring::{Call, Reservation, Ring, RingConfig, SetupError, Taken, Token, Violation, Virtqueue};
pub use segment::{Cursor, Head, Segment};
pub use split::SplitRing;
pub use transfer::iovecs;
pub use view::{Glance, RingView};
