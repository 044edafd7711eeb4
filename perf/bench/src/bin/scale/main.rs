//! `perf/scale`: what more guests on one worker cost.
//!
//! ```text
//! main -> guests (a configuration of N guests)
//!      -> rates: a ringwired for each N, taking turns <- busy (one guest sends, or all)
//!      -> counts: this program again under callgrind, as `--steps`: a worker's rounds, by instructions
//!         (valgrind)
//!      -> report (text, JSON, SVG)
//! ```

mod counts;
mod guests;
mod rates;
mod report;
mod steps;
mod valgrind;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use report::Scale;
use ringwire_bench::place::{Place, PlaceArgs};
use ringwire_bench::{Failure, exit, print, seconds};

/// Packets a second, and instructions a packet and a round, with more and more guests on one worker: one of them busy
/// and the others idle, and all busy. The guests send 64-byte packets; those to NICs are freed there (net_null)
#[derive(Clone, Debug, Parser)]
#[command(
    name = "perf/scale",
    after_help = "Nothing else may run on the two cores, as far as rates matter. Exit status: 0 good; 1 failed; 2 usage."
)]
struct Args {
    /// Numbers of guests
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,2,4,16,64",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    guests: Vec<u16>,
    /// Packed rings
    #[arg(long)]
    packed: bool,
    /// How often all numbers of guests take their turn
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of a turn, for one guest busy, and again for all
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "0.5")]
    seconds: f64,
    #[command(flatten)]
    place: PlaceArgs,
    /// Leave out packets a second
    #[arg(long)]
    no_rates: bool,
    /// Leave out instructions, which need valgrind
    #[arg(long, conflicts_with = "no_rates")]
    no_instructions: bool,
    /// Show that many functions of an idle round with the most guests
    #[arg(long, value_name = "N", default_value_t = 0)]
    functions: usize,
    /// Result as JSON
    #[arg(long)]
    json: bool,
    /// Write the plots to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Be the process whose instructions are counted, with sockets in that directory
    #[arg(long, hide = true)]
    steps: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    exit(
        "perf/scale",
        match &args.steps {
            Some(directory) => steps::run(directory, &args),
            None => measure(&args),
        },
    )
}

fn measure(args: &Args) -> Result<(), Failure> {
    // Instructions do not depend on cores.
    let place = if args.no_rates { Place::new(&args.place)? } else { Place::timed(&args.place)? };
    let mut scale = Scale::new(args.packed, &args.guests);
    if !args.no_instructions {
        for row in &mut scale.rows {
            eprintln!("instructions: {} guests", row.guests);
            match counts::count(row.guests, args.packed, args.functions, &place) {
                Ok(counts) => row.counts = Some(counts),
                Err(Failure(why)) => eprintln!("skipped: {} guests: {why}", row.guests),
            }
            place.go_on()?;
        }
    }
    if !args.no_rates {
        rates::measure(args, &place, &mut scale.rows)?;
    }
    let text = if args.json { scale.json()? } else { scale.text() };
    print(&text)?;
    if let Some(file) = &args.svg {
        std::fs::write(file, scale.svg())?;
        eprintln!("written: {}", file.display());
    }
    Ok(())
}
