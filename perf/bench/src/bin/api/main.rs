//! `perf/api`: what requests to ringwired's API cost the packet path, in packets a second and in cycles.
//!
//! ```text
//! main -> run (ringwire-pktgen at full rate, the worker's cycles): without requests, with them, without, ...
//!      -> report
//! ```

mod report;
mod run;

use std::process::ExitCode;

use clap::Parser;
use report::Cost;
use ringwire_bench::backend::{Backend, Who};
use ringwire_bench::far::{Far, Nic, ORDINARY};
use ringwire_bench::frontend::Rings;
use ringwire_bench::paired::Paired;
use ringwire_bench::place::{Place, PlaceArgs};
use ringwire_bench::turns::alternate;
use ringwire_bench::{Failure, exit, print, seconds};
use run::Pair;

/// What requests to the API cost the packet path: a guest sends 64 bytes to a NIC that drops them, with and without
/// requests, in turn. More than half of the requests are malformed, or are refused
#[derive(Debug, Parser)]
#[command(
    name = "perf/api",
    after_help = "Nothing else may run on the two cores. Exit status: 0 good; 1 failed; 2 usage."
)]
struct Args {
    /// Requests a second
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// Packed rings
    #[arg(long)]
    packed: bool,
    /// How often both take their turn
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of traffic in a turn
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "1.0")]
    seconds: f64,
    #[command(flatten)]
    place: PlaceArgs,
    /// Result as JSON, all samples included
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    exit("perf/api", measure(&Args::parse()))
}

fn measure(args: &Args) -> Result<(), Failure> {
    let place = Place::timed(&args.place)?;
    let rings = Rings { packed: args.packed, ..Rings::default() };
    let backend = Backend::start(Who::Ringwire, Far::Nic(Nic::Sink { longest: ORDINARY }), &place)?;
    eprintln!("Mpps, cycles a packet: without requests / with {} a second", args.requests);
    // Those who ask wait for the frontend's core.
    let mut asked = [Paired::new(backend, "without/with", true)];
    let turn = |asked: &mut Paired| {
        let run =
            |backend: &Backend, requests| run::run(backend, rings, &place, args.seconds, requests).map(Some);
        let both = asked.both(|backend| run(backend, None), |backend| run(backend, Some(args.requests)))?;
        Ok(both.map(|(without, with)| Pair { without, with }))
    };
    let samples = alternate(&mut asked, args.rounds, &place, turn, Pair::short)?;
    let cost = Cost {
        packed: args.packed,
        requests: args.requests,
        front: place.front,
        back: place.back,
        samples: samples.into_iter().flatten().collect(),
    };
    let text = if args.json { cost.json()? } else { cost.text()? };
    print(&text)
}
