//! Hostile guests and frontends, beside an innocent one on the same worker.
//!
//! - [`stage`]: the daemon, the innocent guest, and a table of cases that must not disturb it
//! - [`innocent`]: how long its packets paused
//! - [`client`]: raw messages
//! - [`guest`]: a hostile guest: its memory and what its frontend says
//! - [`ring`]: its rings, split or packed

pub mod client;
pub mod guest;
pub mod innocent;
pub mod ring;
pub mod stage;
