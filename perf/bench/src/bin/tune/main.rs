//! `perf/tune`: which settings are fastest on this host.
//!
//! ```text
//! main -> target (ringwired's configuration, given or made)
//!      -> sweep (one knob after the other; its values take turns) <- setting (knobs and their values)
//!      -> report (HTML with plots, and the best setting as a fragment of a configuration)
//! ```

mod host;
mod report;
mod setting;
mod sweep;
mod target;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use report::Report;
use ringwire_bench::place::{Place, PlaceArgs};
use ringwire_bench::{Failure, exit, print, seconds};
use ringwired::config::allowed_cores;
use setting::{Knob, Setting};
use sweep::Sweep;
use target::Target;

/// Tries settings of ringwired and of its guest, one after the other, with ringwire-pktgen as the guest, and writes a
/// report (HTML) and the best setting (TOML). Without --config, with a NIC that is none: to see how it works
#[derive(Clone, Debug, Parser)]
#[command(
    name = "perf/tune",
    after_help = "ringwired must not run meanwhile, if its NIC is to be used. Exit status: 0 good; 1 failed; 2 usage."
)]
struct Args {
    /// ringwired's configuration; its guest's socket is left alone
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Guest in it, whose backend is a nic [default: the first]
    #[arg(long, value_name = "NAME", requires = "config")]
    guest: Option<String>,
    /// Without --config: the NIC's PCI address or devargs
    #[arg(long, value_name = "DEVICE", default_value = "net_null0", conflicts_with = "config")]
    device: String,
    /// What the guest does: to receive, there must be somebody who sends (net_null does)
    #[arg(long, default_value = "tx")]
    traffic: Traffic,
    /// Frame size, without FCS
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(60..=9000))]
    size: u16,
    /// Cores that workers may have [default: the configuration's, or all but the frontend's]
    #[arg(long, value_name = "CORE,...", value_delimiter = ',')]
    cores: Vec<usize>,
    /// The frontend's core
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    front: usize,
    /// Only these knobs
    #[arg(long, value_name = "KNOB,...", value_delimiter = ',', default_values_t = Knob::ALL)]
    knobs: Vec<Knob>,
    /// How often each value has its turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of a turn
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "0.5")]
    seconds: f64,
    /// Huge pages for the guest, and for ringwired if there is no --config
    #[arg(long)]
    hugepages: bool,
    /// Directory for report.html, best.toml and samples.json
    #[arg(long, value_name = "DIR", default_value = "tune-report")]
    out: PathBuf,
}

/// What the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Traffic {
    /// It sends.
    Tx,
    /// It receives.
    Rx,
    /// It sends and receives.
    Both,
}

impl Traffic {
    fn name(self) -> &'static str {
        match self {
            Traffic::Tx => "tx",
            Traffic::Rx => "rx",
            Traffic::Both => "both",
        }
    }
}

fn main() -> ExitCode {
    exit("perf/tune", tune(&Args::parse()))
}

fn tune(args: &Args) -> Result<(), Failure> {
    let target = match &args.config {
        Some(file) => Target::read(file, args.guest.as_deref())?,
        None => Target::made(&args.device, args.hugepages),
    };
    let mut cores = args.cores.clone();
    if cores.is_empty() {
        cores = target.cores();
    }
    if cores.is_empty() {
        cores = allowed_cores();
    }
    cores.retain(|core| *core != args.front);
    if cores.is_empty() {
        return Err(Failure(format!("core {} is the frontend's: a worker needs another one", args.front)));
    }
    // Early, rather than after minutes of measuring.
    std::fs::create_dir_all(&args.out)?;
    let place = Place::timed(&PlaceArgs { front: args.front, back: cores[0], hugepages: args.hugepages })?;
    let mut best = Setting::first(&target);
    let mut sweeps: Vec<Sweep> = Vec::new();
    for knob in &args.knobs {
        let values = knob.values(&cores, best);
        if values.len() < 2 {
            eprintln!("skipped: {knob}: there is only one value to try here");
            continue;
        }
        let sweep = sweep::run(*knob, &values, &target, &cores, args, &place)?;
        if let Some(value) = sweep.best() {
            best = value.setting;
        }
        sweeps.push(sweep);
    }
    let fragment = target.fragment(best, &cores);
    let report = Report { args, target: &target, cores: &cores, best, fragment: &fragment, sweeps: &sweeps };
    std::fs::write(args.out.join("report.html"), report.html())?;
    std::fs::write(args.out.join("best.toml"), &fragment)?;
    std::fs::write(args.out.join("samples.json"), serde_json::to_string_pretty(&sweeps)? + "\n")?;
    print(&format!("{}\n{fragment}", report.text()))?;
    eprintln!("written: {}", args.out.join("report.html").display());
    Ok(())
}
