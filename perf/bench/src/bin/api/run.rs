//! One run of traffic, and what it cost the worker.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ringwire_bench::Failure;
use ringwire_bench::backend::Backend;
use ringwire_bench::frontend::{Rings, number, report};
use ringwire_bench::place::{Place, pin};
use serde::Serialize;
use snapshot::Status;
use tests::requests::{self, Tally};

/// Bytes of a frame.
pub const BYTES: u16 = 64;
/// Seconds of traffic before the measurement.
const WARM_UP: f64 = 0.1;
/// Seconds that requests last longer than the measurement: the frontend has to connect first.
const AROUND: f64 = 0.5;
/// An answer has this long.
const LIMIT: Duration = Duration::from_secs(10);

/// What came of one.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Packets a second.
    pub pps: f64,
    /// Cycles of the time-stamp counter that the worker spent on each packet.
    pub cycles: f64,
    /// Requests a second that were answered as they should be; 0 if there were none.
    pub requests: f64,
    /// The slowest answer, in milliseconds.
    pub slowest_ms: f64,
}

/// One after the other.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// No requests.
    pub without: Run,
    /// So many a second.
    pub with: Run,
}

impl Pair {
    /// For progress lines.
    pub fn short(&self) -> String {
        let Pair { without, with } = self;
        format!(
            "{:.3}/{:.3} Mpps, {:.1}/{:.1} cycles, {:.0} requests/s",
            without.pps / 1e6,
            with.pps / 1e6,
            without.cycles,
            with.cycles,
            with.requests
        )
    }
}

/// A guest sends for some `seconds`, as fast as it can, with so many requests a second beside it.
pub fn run(
    backend: &Backend,
    rings: Rings,
    place: &Place,
    seconds: f64,
    requests: Option<u32>,
) -> Result<Run, Failure> {
    let api = place.directory.join("api.sock");
    let mut command = backend.pktgen("run", rings, place);
    command.args(["--count-only", "--mode", "tx", "--size", &BYTES.to_string()]);
    command.args(["--warm-up", &WARM_UP.to_string(), "--seconds", &seconds.to_string()]);
    let before = worker(&api)?;
    let (report, tally) = std::thread::scope(|scope| {
        let asking = requests.map(|rate| {
            let (api, total) = (&api, (f64::from(rate) * (seconds + WARM_UP + AROUND)) as u32);
            scope.spawn(move || ask(api, total, rate, place.front))
        });
        let report = report(&mut command);
        (report, asking.map(|thread| thread.join().map_err(|_| Failure("a client failed".into()))))
    });
    let tally = tally.transpose()?.transpose()?.unwrap_or_default();
    if let Some(wrong) = tally.wrong.first() {
        return Err(Failure(format!(
            "{} requests were not answered as they should be: {wrong}",
            tally.wrong.len()
        )));
    }
    let report = report?.ok_or_else(|| Failure("ringwired lacks a feature".into()))?;
    let after = worker(&api)?;
    let [cycles, packets] = [0, 1].map(|at| after[at] - before[at]);
    Ok(Run {
        pps: number(&report, "/ports/0/tx_pps")?,
        cycles: cycles / packets,
        requests: if requests.is_some() { tally.rate() } else { 0.0 },
        slowest_ms: tally.slowest.as_secs_f64() * 1e3,
    })
}

/// Requests from `core`, all kinds there are.
fn ask(api: &Path, total: u32, rate: u32, core: usize) -> Result<Tally, Failure> {
    // Its threads stay there, too.
    pin(core)?;
    Ok(requests::make(api, total, rate, ("vm0", "nic0")))
}

/// The worker's busy cycles, and packets, so far.
fn worker(api: &Path) -> Result<[f64; 2], Failure> {
    let mut stream = UnixStream::connect(api)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| Failure(format!("no answer but {answer:?}")))?;
    let status: Status = serde_json::from_str(body)?;
    let time = status.workers.first().ok_or_else(|| Failure("ringwired has no worker".into()))?.time;
    Ok([time.busy_cycles, time.packets].map(|count| count as f64))
}
