//! What `ringwire-pktgen` finds out about one backend.

use ringwire_bench::Failure;
use ringwire_bench::backend::Backend;
use ringwire_bench::frontend::{Rings, number, report};
use ringwire_bench::place::Place;
use serde::Serialize;
use serde_json::Value;

/// When the search stops: the span, as part of the first rate.
const RESOLUTION: &str = "2%";

/// What is sent.
pub struct Traffic {
    /// What the guest negotiates.
    pub rings: Rings,
    /// Bytes of a frame.
    pub size: u16,
    /// Packets at a time.
    pub burst: u16,
    /// Seconds of each trial.
    pub seconds: f64,
}

impl Traffic {
    fn pktgen(&self, what: &str, backend: &Backend, place: &Place) -> std::process::Command {
        let mut command = backend.pktgen(what, self.rings, place);
        command.args([
            "--mode",
            "both",
            "--size",
            &self.size.to_string(),
            "--burst",
            &self.burst.to_string(),
        ]);
        command
    }
}

/// The highest rate at which next to nothing is lost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Throughput {
    /// Packets a second.
    pub pps: f64,
}

/// Searches it.
pub fn throughput(
    backend: &Backend,
    traffic: &Traffic,
    pdr: f64,
    place: &Place,
) -> Result<Throughput, Failure> {
    let mut command = traffic.pktgen("rfc2544", backend, place);
    command.args(["--trial", &traffic.seconds.to_string(), "--resolution", RESOLUTION, "--retries", "2"]);
    command.args(["--pdr", &format!("{pdr}%")]);
    let report = report(&mut command)?;
    let report = report.ok_or_else(|| Failure(format!("{} lacks a feature", backend.who)))?;
    match report.pointer("/rate_pps").and_then(Value::as_f64) {
        Some(pps) => Ok(Throughput { pps }),
        None => Err(Failure(format!("{}: no rate passed: packets are lost at every one", backend.who))),
    }
}

/// Latency in microseconds, and what was lost, at one rate.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Delays {
    /// Half of the packets took no longer.
    pub p50: f64,
    /// 99% did not.
    pub p99: f64,
    /// 99.9% did not.
    pub p999: f64,
    /// Part of the packets due that did not come back, not sent in time included.
    pub lost: f64,
}

impl Delays {
    /// For a progress line.
    pub fn short(&self) -> String {
        format!("{:.0}/{:.0}/{:.0}", self.p50, self.p99, self.p999)
    }
}

/// Measures them at `rate` packets a second.
pub fn at_rate(backend: &Backend, traffic: &Traffic, rate: f64, place: &Place) -> Result<Delays, Failure> {
    let mut command = traffic.pktgen("run", backend, place);
    command.args(["--warm-up", "0.1", "--seconds", &traffic.seconds.to_string()]);
    command.args(["--rate", &format!("{}pps", rate.round())]);
    let report = report(&mut command)?;
    let report = report.ok_or_else(|| Failure(format!("{} lacks a feature", backend.who)))?;
    let of = |key: &str| number(&report, &format!("/ports/0/{key}"));
    let (offered, received) = (of("offered")?, of("received")? - of("duplicates")?);
    Ok(Delays {
        p50: of("latency_us/p50")?,
        p99: of("latency_us/p99")?,
        p999: of("latency_us/p999")?,
        lost: ((offered - received) / offered).max(0.0),
    })
}
