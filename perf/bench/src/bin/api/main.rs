//! `perf/api`: what requests to ringwired's API cost the packet path, in packets a second and in cycles.
//!
//! ```text
//! main -> run (ringwire-pktgen at full rate, the worker's cycles): without requests, with them, without, ...
//!      -> report
//! ```

mod report;
mod run;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use report::Cost;
use ringwire_bench::backend::{Backend, Who};
use ringwire_bench::far::{Far, Nic, ORDINARY};
use ringwire_bench::frontend::Rings;
use ringwire_bench::place::{Place, PlaceArgs};
use ringwire_bench::process::Process;
use ringwire_bench::turns::{Player, alternate};
use ringwire_bench::{Failure, exit};
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
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    seconds: f64,
    #[command(flatten)]
    place: PlaceArgs,
    /// Result as JSON, all samples included
    #[arg(long)]
    json: bool,
}

/// ringwired. Both are measured in its turn: two processes would differ by where their memory is.
struct Asked {
    backend: Backend,
    /// Whether it is asked in the first half of its next turn: whichever is first comes after a pause.
    first: bool,
}

impl Player for Asked {
    fn name(&self) -> String {
        "without/with".into()
    }

    fn process(&mut self) -> &mut Process {
        self.backend.process()
    }

    fn crowds(&self) -> bool {
        true
    }
}

fn main() -> ExitCode {
    exit("perf/api", measure(&Args::parse()))
}

fn measure(args: &Args) -> Result<(), Failure> {
    let place = Place::new(&args.place)?;
    let rings = Rings { packed: args.packed, ..Rings::default() };
    let backend = Backend::start(Who::Ringwire, Far::Nic(Nic::Sink { longest: ORDINARY }), &place)?;
    eprintln!("Mpps, cycles a packet: without requests / with {} a second", args.requests);
    let turn = |asked: &mut Asked| {
        let run = |requests| run::run(&asked.backend, rings, &place, args.seconds, requests);
        let early = if asked.first { Some(run(Some(args.requests))?) } else { None };
        let without = run(None)?;
        let with = early.map_or_else(|| run(Some(args.requests)), Ok)?;
        asked.first = !asked.first;
        Ok(Some(Pair { without, with }))
    };
    let samples = alternate(&mut [Asked { backend, first: false }], args.rounds, &place, turn, Pair::short)?;
    let cost = Cost {
        packed: args.packed,
        requests: args.requests,
        front: place.front,
        back: place.back,
        samples: samples.into_iter().flatten().collect(),
    };
    let text = if args.json { cost.json()? } else { cost.text()? };
    // A reader that has gone wants no more.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
