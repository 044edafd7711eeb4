//! `perf/compare`: packets a second of ringwired beside DPDK's vhost, on the same cores, frontend, stand-in for the
//! NIC, and run.
//!
//! ```text
//! main -> cell (what to compare, and what is at the other end)
//!      -> rate (one cell through one backend: ringwire_bench's backend, frontend, turns)
//!      -> report
//! ```

mod cell;
mod rate;
mod report;

use std::process::ExitCode;

use cell::Cell;
use clap::Parser;
use report::Outcome;
use ringwire_bench::backend::{Backend, Who};
use ringwire_bench::far::Far;
use ringwire_bench::place::{Place, PlaceArgs};
use ringwire_bench::{Failure, exit, imix, print, seconds, turns};

/// Packets a second of ringwired, of testpmd with net_vhost, of rte_vhost called directly, and of Open vSwitch: on the
/// same cores, from the same frontend, with the same stand-in for the NIC, taking turns
#[derive(Debug, Parser)]
#[command(
    name = "perf/compare",
    after_help = "Nothing else may run on the two cores. Exit status: 0 good; 1 failed; 2 usage."
)]
struct Args {
    /// All sizes and features, instead of those that tell most
    #[arg(long)]
    full: bool,
    /// Of all cells only the one with this name, or those whose names have it in them, e.g. `packed`
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Who takes part
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_values_t = Who::ALL)]
    backends: Vec<Who>,
    /// How often all take their turn
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of a turn
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "0.5")]
    seconds: f64,
    #[command(flatten)]
    place: PlaceArgs,
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

fn main() -> ExitCode {
    exit("perf/compare", compare(&Args::parse()))
}

fn compare(args: &Args) -> Result<(), Failure> {
    let mut cells = Cell::all(args.full || args.only.is_some());
    if let Some(text) = &args.only {
        let exact = cells.iter().any(|cell| cell.name() == *text);
        cells.retain(|cell| if exact { cell.name() == *text } else { cell.name().contains(text.as_str()) });
    }
    if cells.is_empty() {
        let text = args.only.as_deref().unwrap_or_default();
        return Err(Failure(format!(
            "--only {text}: no cell has this in its name (--full --list names them)"
        )));
    }
    if args.list {
        return print(&cells.iter().map(|cell| cell.name() + "\n").collect::<String>());
    }
    let plain = !args.json && !args.csv;
    if plain {
        print(&report::head())?;
    }
    let outcomes = measure(args, &cells, |outcome| if plain { print(&outcome.line()) } else { Ok(()) })?;
    let text = match (args.json, args.csv) {
        (true, _) => report::json(&outcomes)?,
        (_, true) => report::csv(&outcomes),
        _ => report::NOTES.into(),
    };
    print(&text)
}

/// Measures all cells, and shows each when it is done.
fn measure(
    args: &Args,
    cells: &[Cell],
    mut show: impl FnMut(&Outcome) -> Result<(), Failure>,
) -> Result<Vec<Outcome>, Failure> {
    let place = Place::timed(&args.place)?;
    imix::write(&place.directory)?;
    let whos = Who::installed(&args.backends);
    let mut running: Option<(Far, Vec<Backend>)> = None;
    let mut outcomes = Vec::new();
    for (number, cell) in cells.iter().enumerate() {
        let mut backends = match running.take() {
            Some((far, backends)) if far == cell.far() => backends,
            others => {
                drop(others);
                Backend::start_all(&whos, cell.far(), &place)?
            }
        };
        eprintln!("[{}/{}] {}", number + 1, cells.len(), cell.name());
        let rate = |backend: &mut Backend| rate::measure(cell, backend, &place, args.seconds);
        let say = |rate: &f64| format!("{:.3}", rate / 1e6);
        let samples = turns::alternate(&mut backends, args.rounds, &place, rate, say)?;
        let rates = backends.iter().map(|backend| backend.who).zip(samples);
        let rates = rates.filter(|(_, samples)| !samples.is_empty()).collect();
        let outcome = Outcome { name: cell.name(), cell: *cell, rates };
        show(&outcome)?;
        outcomes.push(outcome);
        running = Some((cell.far(), backends));
    }
    Ok(outcomes)
}
