//! What the benchmarks share.
//!
//! ```text
//! place (cores, directories)   far (what is at the other end: a NIC's stand-in, another guest)
//!   process -> backend (ringwired, DPDK's, Open vSwitch) -> turns (one after the other, again and again)
//!   frontend (ringwire-pktgen)                                   -> paired (two things of one backend)
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
pub mod paired;
pub mod place;
pub mod plot;
pub mod process;
pub mod stats;
pub mod turns;

use std::io::Write;
use std::process::ExitCode;

/// Why there is no result.
#[derive(Debug)]
pub struct Failure(pub String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

/// Seconds that are measured, on the command line: above 0, and at most a day.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 86_400.0 => Ok(value),
        _ => Err("seconds, above 0 and at most 86400".into()),
    }
}

/// Writes a result to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has gone wants no more.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure(format!("standard output: {e}"))),
        _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_takes_time_and_ends() {
        assert_eq!((seconds("0.1"), seconds("86400")), (Ok(0.1), Ok(86_400.0)));
        assert!(["0", "-1", "NaN", "inf", "1e300", "", "x"].into_iter().all(|bad| seconds(bad).is_err()));
    }
}
