//! The configuration file changes while the daemon runs, and is read again: all of it takes effect, or nothing, and who
//! is not concerned notices nothing.

mod assigned;
mod backend;
mod dump;
mod stage;
mod untouched;
