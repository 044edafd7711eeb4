//! `perf/offloads`: what it costs to do in software what a guest left to the device.
//!
//! ```text
//! main -> callgrind (runs this program again as `--steps`, and reads the counts) -> table, JSON
//! steps: one kind of work after the other, on frames <- frame
//! ```

mod frame;
mod steps;

use std::process::ExitCode;

use clap::Parser;
use ringwire_bench::callgrind::{self, Profile};
use ringwire_bench::{Failure, exit, print};
use serde::Serialize;
use steps::Part;

/// Instructions of a checksum and of a frame's segmentation in software, and bytes for each instruction, counted by
/// callgrind: the same each time, on any machine with the same compiler and AVX2
#[derive(Debug, Parser)]
#[command(name = "perf/offloads", after_help = "Exit status: 0 good; 1 failed; 2 usage.")]
struct Args {
    /// Result as JSON
    #[arg(long)]
    json: bool,
    /// Be the process that is measured
    #[arg(long, hide = true)]
    steps: bool,
}

/// What one kind of work costs.
#[derive(Debug, Serialize)]
struct Row {
    /// What is done.
    work: String,
    /// Bytes it is done with.
    bytes: usize,
    /// Segments they become; 0 if that is not what is done.
    segments: usize,
    /// Instructions.
    instructions: f64,
    /// Cycles, as callgrind estimates them.
    cycles: f64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    exit("perf/offloads", if args.steps { steps::run() } else { measure(&args) })
}

fn measure(args: &Args) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let program = std::env::current_exe()?.display().to_string();
    let command = [program.as_str(), "--steps"];
    let (said, profiles) = callgrind::run(&command, directory.path())?;
    let parts: Vec<Part> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let rows: Vec<Row> = parts.into_iter().zip(&profiles).map(|(part, profile)| row(part, profile)).collect();
    let text = if args.json { serde_json::to_string_pretty(&rows)? + "\n" } else { text(&rows) };
    print(&text)
}

fn row(part: Part, profile: &Profile) -> Row {
    let each = |cost: u64| cost as f64 / part.count as f64;
    Row {
        work: part.work,
        bytes: part.bytes,
        segments: part.segments,
        instructions: each(profile.total.instructions),
        cycles: each(profile.total.cycles()),
    }
}

fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<36}{:>8}{:>10}{:>14}{:>14}{:>12}{:>10}\n",
        "work", "bytes", "segments", "instructions", "bytes/instr.", "a segment", "cycles"
    );
    for Row { work, bytes, segments, instructions, cycles } in rows {
        let each =
            if *segments > 0 { format!("{:.1}", instructions / *segments as f64) } else { "-".to_owned() };
        text += &format!(
            "{work:<36}{bytes:>8}{:>10}{instructions:>14.1}{:>14.2}{each:>12}{cycles:>10.0}\n",
            if *segments > 0 { segments.to_string() } else { "-".to_owned() },
            *bytes as f64 / instructions,
        );
    }
    text
}
