//! "Why is traffic zero?": situations that are broken on purpose, with real daemons and frontends, and healthy ones.
//! `ringwire explain` must name the cause in each; a table says what it answered.

mod daemons;
mod frontends;
mod healthy;
mod interfaces;
mod packets;
mod rings;
mod table;
mod workers;
