//! What the fuzz targets share: an input read as a sequence of moves, a guest's memory, and for each ring
//! format a reference that is told the same moves and says what the device must do.
//!
//! `split_ring` and `packed_ring` are one call into [`ring`], `session` is one into [`session`]. `net` is short, and
//! stands in its own file, as do `config` and `api`: they need the daemon, which needs DPDK.

pub mod input;
pub mod memory;
pub mod packed;
pub mod reference;
pub mod ring;
pub mod session;
pub mod split;
