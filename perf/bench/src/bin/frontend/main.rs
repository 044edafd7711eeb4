//! `perf/frontend`: how fast ringwire-pktgen is as a frontend, beside DPDK's virtio-user in testpmd.
//!
//! ```text
//! main -> a backend -> ringwire-pktgen, then testpmd (dpdk), each its frontend for a while; and the other way round; ...
//!      -> report
//! ```

mod dpdk;
mod report;

use std::process::ExitCode;

use clap::Parser;
use report::{Pair, Row};
use ringwire_bench::backend::{Backend, Who};
use ringwire_bench::far::{Far, Nic};
use ringwire_bench::frontend::{Rings, number, report as run};
use ringwire_bench::paired::Paired;
use ringwire_bench::place::{Place, PlaceArgs};
use ringwire_bench::turns::alternate;
use ringwire_bench::{Failure, exit, print, seconds};

/// Packets a second that ringwire-pktgen sends and receives, beside testpmd with DPDK's virtio-user, vectorised where
/// its own rules allow: 64 bytes, the same backend, rings and bursts, in turn
#[derive(Debug, Parser)]
#[command(
    name = "perf/frontend",
    after_help = "Nothing else may run on the two cores. Exit status: 0 good; 1 failed; 2 usage."
)]
struct Args {
    /// What they are frontends of. `limit` only returns descriptors, so that it is them who limit
    #[arg(long, value_enum, default_value = "limit")]
    backend: Who,
    /// Only rows that have this in their name, such as `receives` or `packed`
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// How often both take their turn
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of traffic in a turn
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "0.5")]
    seconds: f64,
    #[command(flatten)]
    place: PlaceArgs,
    /// Result as JSON, all samples included
    #[arg(long)]
    json: bool,
}

/// Bytes of a frame.
const BYTES: u16 = 64;
/// Seconds of traffic before the measurement.
const WARM_UP: f64 = 0.1;

/// What the frontend does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Sends,
    Receives,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Sends => "sends",
            Way::Receives => "receives",
        }
    }

    fn nic(self) -> Nic {
        match self {
            Way::Sends => Nic::Sink { longest: BYTES },
            Way::Receives => Nic::Source { bytes: BYTES },
        }
    }
}

fn main() -> ExitCode {
    exit("perf/frontend", measure(&Args::parse()))
}

fn measure(args: &Args) -> Result<(), Failure> {
    if !args.backend.listens() {
        return Err(Failure(format!("--backend {}: it connects to its frontends", args.backend)));
    }
    // testpmd is the other frontend, whatever the backend.
    if Who::installed(&[Who::NetVhost]).is_empty() {
        return Err(Failure("there is nothing to compare with".into()));
    }
    let place = Place::timed(&args.place)?;
    let mut rows = Vec::new();
    for way in [Way::Sends, Way::Receives] {
        for (packed, in_order) in [(false, false), (false, true), (true, false), (true, true)] {
            let rings = Rings { packed, mergeable: false, in_order };
            let name = name(way, rings);
            if name.contains(&args.only) {
                rows.push(row(args, way, rings, name, &place)?);
            }
        }
    }
    if rows.is_empty() {
        return Err(Failure(format!("--only {:?}: no row has that in its name", args.only)));
    }
    let text = if args.json { report::json(&rows)? } else { report::text(args.backend, &rows) };
    print(&text)
}

fn name(way: Way, rings: Rings) -> String {
    let format = if rings.packed { "packed" } else { "split" };
    let order = if rings.in_order { " in-order" } else { "" };
    format!("{} {format}{order}", way.name())
}

fn row(args: &Args, way: Way, rings: Rings, name: String, place: &Place) -> Result<Row, Failure> {
    eprintln!("{name}: Mpps");
    let backend = Backend::start(args.backend, Far::Nic(way.nic()), place)?;
    let mut testpmd_path = String::new();
    let turn = |served: &mut Paired| {
        let theirs = |backend: &Backend| {
            let (pps, path) = dpdk::run(backend, way, rings, place, args.seconds)?;
            testpmd_path = path;
            Ok(Some(pps))
        };
        let both = served.both(|backend| ours(backend, way, rings, place, args.seconds), theirs)?;
        Ok(both.map(|(pktgen_pps, testpmd_pps)| Pair { pktgen_pps, testpmd_pps }))
    };
    let mut served = [Paired::new(backend, "pktgen/testpmd", false)];
    let samples = alternate(&mut served, args.rounds, place, turn, Pair::short)?;
    Ok(Row { name, testpmd_path, samples: samples.into_iter().flatten().collect() })
}

/// ringwire-pktgen's packets a second; none if the backend lacks a feature.
fn ours(
    backend: &Backend,
    way: Way,
    rings: Rings,
    place: &Place,
    seconds: f64,
) -> Result<Option<f64>, Failure> {
    let (mode, rate) = match way {
        Way::Sends => ("tx", "/ports/0/tx_pps"),
        Way::Receives => ("rx", "/ports/0/rx_pps"),
    };
    let mut command = backend.pktgen("run", rings, place);
    command.args(["--count-only", "--mode", mode, "--size", &BYTES.to_string()]);
    command.args(["--warm-up", &WARM_UP.to_string(), "--seconds", &seconds.to_string()]);
    run(&mut command)?.map(|report| number(&report, rate)).transpose()
}
