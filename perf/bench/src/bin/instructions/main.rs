//! `perf/instructions`: what a packet costs, in instructions, on each path, beside DPDK's vhost.
//!
//! ```text
//! main -> callgrind (runs this program again as `--steps`, and reads the counts) -> report, baseline
//! steps: guests (ringwire_pktgen) <-> backend (ringwire's, net_vhost), all in one process, a burst at a time
//! ```
//!
//! Nothing is timed and nothing polls while it is counted, so the counts are the same each time.
#![warn(clippy::undocumented_unsafe_blocks)]

mod backend;
mod baseline;
mod path;
mod report;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;

use baseline::{Baseline, Tools, Verdict};
use clap::Parser;
use ringwire_bench::{Failure, callgrind, functions, print};
use steps::Part;

/// Instructions a packet on ringwire's packet paths and on DPDK's (net_vhost with rte_vhost), counted by callgrind:
/// the same each time, on any machine with the same tools
#[derive(Debug, Parser)]
#[command(
    name = "perf/instructions",
    after_help = "Exit status: 0 good, or nothing can be said (`skipped: ...`); 1 worse than the baseline; 2 failed."
)]
struct Args {
    /// Bytes of a frame, without FCS
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(60..=1518))]
    size: u16,
    /// Show that many functions of each of ringwire's paths
    #[arg(long, value_name = "N", default_value_t = 0)]
    functions: usize,
    /// Result as JSON, all functions included
    #[arg(long)]
    json: bool,
    /// Compare with the baseline: fail if a path is worse by more than 2%
    #[arg(long, conflicts_with_all = ["update", "size"])]
    check: bool,
    /// Write the baseline
    #[arg(long, conflicts_with = "size")]
    update: bool,
    /// The baseline's file
    #[arg(long, value_name = "FILE", default_value = "perf/instructions.json")]
    baseline: PathBuf,
    /// Be the process that is measured, with sockets in that directory
    #[arg(long, hide = true)]
    steps: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.steps {
        Some(directory) => steps::run(directory, usize::from(args.size)).map(|()| ExitCode::SUCCESS),
        None => measure(&args),
    };
    result.unwrap_or_else(|Failure(why)| {
        eprintln!("perf/instructions: {why}");
        ExitCode::from(2)
    })
}

fn measure(args: &Args) -> Result<ExitCode, Failure> {
    let directory = tempfile::tempdir()?;
    let program = std::env::current_exe()?;
    let (name, place) = (program.display().to_string(), directory.path().display().to_string());
    let size = args.size.to_string();
    let command = [&name, "--steps", &place, "--size", &size];
    let (said, profiles) = callgrind::run(&command, directory.path())?;
    let parts: Vec<Part> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let parts: Vec<_> = parts.into_iter().zip(profiles).collect();
    let rows = report::rows(&parts, &functions::Names::of(&program)?);
    let text = if args.json {
        report::json(&rows, usize::from(args.size))?
    } else {
        report::text(&rows, usize::from(args.size), args.functions)
    };
    print(&text)?;
    let now = Baseline::of(&rows, Tools::here());
    if args.update {
        baseline::update(&args.baseline, now)?;
        eprintln!("written: {}", args.baseline.display());
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        return Ok(say(baseline::check(&args.baseline, &now)?));
    }
    Ok(ExitCode::SUCCESS)
}

/// On standard error, so that `--json` stays JSON.
fn say(verdict: Verdict) -> ExitCode {
    const AGAIN: &str = "if that is meant to be: perf/instructions --update, and commit the file";
    match verdict {
        Verdict::Good(notes) => {
            eprintln!("no path is worse than the baseline");
            notes.iter().for_each(|note| eprintln!("  {note}"));
            ExitCode::SUCCESS
        }
        Verdict::Worse(lines) => {
            eprintln!("worse than the baseline ({AGAIN}):");
            lines.iter().for_each(|line| eprintln!("  {line}"));
            ExitCode::FAILURE
        }
        Verdict::Skipped(why) => {
            eprintln!("skipped: {why}");
            ExitCode::SUCCESS
        }
    }
}
