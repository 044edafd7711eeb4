//! `perf/compare`: packets a second of ringwired beside DPDK's vhost, on the same cores, frontend, stand-in for the
//! NIC, and run.
//!
//! ```text
//! main -> cell (what to compare, with which stand-in)
//!      -> backend (programs, of which one runs at a time) <- frontend (ringwire-pktgen)
//!      -> stats -> report
//! ```

mod backend;
mod cell;
mod frontend;
mod imix;
mod report;
mod stats;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backend::{Backend, Place, Who};
use cell::{Cell, Nic};
use clap::Parser;
use report::Outcome;
use signal_hook::consts::{SIGINT, SIGTERM};

/// How long a backend may take to notice that its frontend has gone.
const SETTLE: Duration = Duration::from_millis(50);

/// Packets a second of ringwired, of testpmd with net_vhost, and of rte_vhost called directly: on the same cores, from
/// the same frontend, with the same stand-in for the NIC, taking turns
#[derive(Debug, Parser)]
#[command(
    name = "perf/compare",
    after_help = "Nothing else may run on the two cores. Exit status: 0 good; 1 failed; 2 usage."
)]
struct Args {
    /// All sizes and features, instead of those that tell most
    #[arg(long)]
    full: bool,
    /// Only cells whose name has this in it, e.g. `packed` or `guest->NIC 64` (of all cells)
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How often all take their turn
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of a turn
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    seconds: f64,
    /// The frontend's core
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    front: usize,
    /// The core that all backends take turns on
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    back: usize,
    /// Memory from huge pages, everywhere
    #[arg(long)]
    hugepages: bool,
    /// Name the cells, and do nothing
    #[arg(long)]
    list: bool,
    /// Result as JSON, all samples included
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Result as CSV
    #[arg(long)]
    csv: bool,
}

/// Why there is no result.
#[derive(Debug)]
pub struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match compare(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(why)) => {
            eprintln!("perf/compare: {why}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> Result<(), Failure> {
    let mut cells = Cell::all(args.full || args.only.is_some());
    if let Some(text) = &args.only {
        cells.retain(|cell| cell.name().contains(text.as_str()));
    }
    if args.list {
        cells.iter().for_each(|cell| println!("{}", cell.name()));
        return Ok(());
    }
    let plain = !args.json && !args.csv;
    if plain {
        print!("{}", report::head());
    }
    let outcomes = measure(args, &cells, |outcome| {
        if plain {
            print!("{}", outcome.line());
        }
    })?;
    let text = match (args.json, args.csv) {
        (true, _) => report::json(&outcomes)?,
        (_, true) => report::csv(&outcomes),
        _ => report::NOTES.into(),
    };
    // A reader that has gone wants no more.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// Measures all cells, and shows each when it is done.
fn measure(args: &Args, cells: &[Cell], mut show: impl FnMut(&Outcome)) -> Result<Vec<Outcome>, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let directory = tempfile::tempdir()?;
    let program = std::env::current_exe()?;
    let place = Place {
        directory: directory.path().to_path_buf(),
        programs: program.parent().map(std::path::Path::to_path_buf).unwrap_or_default(),
        front: args.front,
        back: args.back,
        hugepages: args.hugepages,
    };
    imix::write(&place.directory)?;
    let mut running: Option<(Nic, Vec<Backend>)> = None;
    let mut outcomes = Vec::new();
    for (number, cell) in cells.iter().enumerate() {
        let mut backends = match running.take() {
            Some((nic, backends)) if nic == cell.nic() => backends,
            others => {
                drop(others);
                start(cell.nic(), &place)?
            }
        };
        eprintln!("[{}/{}] {}", number + 1, cells.len(), cell.name());
        let outcome = alternate(args, cell, &mut backends, &place, &interrupted)?;
        show(&outcome);
        outcomes.push(outcome);
        running = Some((cell.nic(), backends));
    }
    Ok(outcomes)
}

/// All backends there are.
fn start(nic: Nic, place: &Place) -> Result<Vec<Backend>, Failure> {
    let testpmd = Command::new("dpdk-testpmd").arg("--version").output().is_ok();
    if !testpmd {
        eprintln!("skipped: net_vhost: dpdk-testpmd is not installed (apt-get install dpdk)");
    }
    let there = Who::ALL.into_iter().filter(|who| testpmd || *who != Who::NetVhost);
    there.map(|who| Backend::start(who, nic, place)).collect()
}

/// One cell: the backends take turns, again and again.
fn alternate(
    args: &Args,
    cell: &Cell,
    backends: &mut [Backend],
    place: &Place,
    interrupted: &AtomicBool,
) -> Result<Outcome, Failure> {
    let mut rates: BTreeMap<Who, Vec<f64>> = BTreeMap::new();
    for round in 1..=args.rounds {
        let mut line = format!("  round {round}:");
        for backend in &mut *backends {
            backend.resume()?;
            let mut rate = frontend::run(cell, backend, place, args.seconds);
            if let Err(Failure(why)) = &rate {
                // On a machine that is busy with something else, a turn may pass without an answer.
                eprintln!("  again, as this turn failed: {why}");
                rate = frontend::run(cell, backend, place, args.seconds);
            }
            if interrupted.load(Ordering::Relaxed) {
                return Err(Failure("interrupted".into()));
            }
            std::thread::sleep(SETTLE);
            backend.pause()?;
            if let Some(rate) = rate? {
                line += &format!("  {} {:.3}", backend.who.name(), rate / 1e6);
                rates.entry(backend.who).or_default().push(rate);
            }
        }
        eprintln!("{line}");
    }
    Ok(Outcome { name: cell.name(), cell: *cell, rates })
}
