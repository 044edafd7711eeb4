//! What the benchmarks share.
//!
//! ```text
//! place (cores, directories)   far (what is at the other end: a NIC's stand-in, another guest)
//!   process -> backend (ringwired, DPDK's, Open vSwitch) -> turns (one after the other, again and again)
//!   frontend (ringwire-pktgen)
//! stats -> plot
//! callgrind -> functions (whose instructions they are)
//! ```

pub mod backend;
pub mod callgrind;
pub mod daemon;
pub mod distance;
pub mod far;
pub mod frontend;
pub mod functions;
pub mod imix;
pub mod ovs;
pub mod place;
pub mod plot;
pub mod process;
pub mod stats;
pub mod turns;

use std::process::ExitCode;

/// Why there is no result.
#[derive(Debug)]
pub struct Failure(pub String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

/// A program's exit status; says what went wrong.
pub fn exit(name: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(why)) => {
            eprintln!("{name}: {why}");
            ExitCode::FAILURE
        }
    }
}
