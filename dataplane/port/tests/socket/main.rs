//! Socket ports on interfaces of the kernel, each test in a network namespace of its own. Without the privileges for
//! that they say `skipped`.
#![allow(unsafe_code)] // pieces for the kernel to read and write

mod errors;
mod frames;
mod offloads;
mod open;
mod stage;
mod state;
