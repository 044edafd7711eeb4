//! `perf/latency`: how long a packet takes from the guest to the NIC and back, beside DPDK's vhost.
//!
//! ```text
//! main -> throughput (ringwire-pktgen rfc2544, each backend) -> loads: 10%, 50%, 90% of it
//!      -> delays (ringwire-pktgen run at a load), the backends taking turns
//!      -> report
//! ```

mod delays;
mod report;

use std::process::ExitCode;

use clap::Parser;
use delays::{Delays, Throughput};
use report::{Latency, Load};
use ringwire_bench::backend::{Backend, Who};
use ringwire_bench::far::{Far, Nic};
use ringwire_bench::frontend::Rings;
use ringwire_bench::place::{Place, PlaceArgs};
use ringwire_bench::turns::{Player, alternate};
use ringwire_bench::{Failure, exit, print, seconds};

/// Latency of 64-byte packets from the guest to a NIC that returns them (net_ring), and back: at parts of the
/// throughput, of ringwired and of testpmd with net_vhost, taking turns
#[derive(Debug, Parser)]
#[command(
    name = "perf/latency",
    after_help = "Nothing else may run on the two cores. Exit status: 0 good; 1 failed; 2 usage."
)]
struct Args {
    /// Percents of the throughput
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', default_value = "10,50,90",
          value_parser = clap::value_parser!(u8).range(1..=100))]
    loads: Vec<u8>,
    /// Of each backend's own throughput, instead of the lowest of all
    #[arg(long)]
    own: bool,
    /// Packed rings
    #[arg(long)]
    packed: bool,
    /// Mergeable receive buffers
    #[arg(long)]
    mergeable: bool,
    /// Frame size, without FCS
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(60..=1518))]
    size: u16,
    /// Packets that the guest hands over at a time, if so many are due
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    burst: u16,
    /// How often all take their turn
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds at each load in a turn, and of each trial of the search for the throughput
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "0.5")]
    seconds: f64,
    /// Part of the packets that may be lost at the throughput, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.1)]
    pdr: f64,
    #[command(flatten)]
    place: PlaceArgs,
    /// Result as JSON, all samples included
    #[arg(long)]
    json: bool,
}

/// Who takes part: the frontend's own latency is that of packets which a backend copies back at once.
const WHO: [Who; 3] = [Who::Ringwire, Who::NetVhost, Who::Reflect];

fn main() -> ExitCode {
    exit("perf/latency", measure(&Args::parse()))
}

fn measure(args: &Args) -> Result<(), Failure> {
    let place = Place::timed(&args.place)?;
    let rings = Rings { packed: args.packed, mergeable: args.mergeable, in_order: false };
    let traffic = delays::Traffic { rings, size: args.size, burst: args.burst, seconds: args.seconds };
    let mut backends = Backend::start_all(&Who::installed(&WHO), Far::Nic(Nic::Returns), &place)?;
    let mut throughputs = Vec::new();
    for backend in &mut backends {
        eprintln!("{}: searching the throughput", backend.name());
        backend.process().resume()?;
        let found = delays::throughput(backend, &traffic, args.pdr, &place);
        backend.process().pause()?;
        place.go_on()?;
        let found = found?;
        eprintln!("  {:.3} Mpps", found.pps / 1e6);
        throughputs.push((backend.who, found));
    }
    let slowest = slowest(&throughputs)?;
    let rate = |who: Who, percent: u8| {
        let own = throughputs.iter().find(|(other, _)| *other == who && who != Who::Reflect);
        let base = own.filter(|_| args.own).map_or(slowest, |(_, found)| found.pps);
        base * f64::from(percent) / 100.0
    };
    eprintln!("p50/p99/p99.9 in us, at {:?}%", args.loads);
    let turn = |backend: &mut Backend| {
        let delays = args
            .loads
            .iter()
            .map(|percent| delays::at_rate(backend, &traffic, rate(backend.who, *percent), &place));
        delays.collect::<Result<Vec<Delays>, _>>().map(Some)
    };
    let say = |delays: &Vec<Delays>| delays.iter().map(Delays::short).collect::<Vec<_>>().join(" ");
    let samples = alternate(&mut backends, args.rounds, &place, turn, say)?;
    let mut loads = Vec::new();
    for (at, percent) in args.loads.iter().enumerate() {
        for (backend, turns) in backends.iter().zip(&samples) {
            loads.push(Load {
                percent: *percent,
                backend: backend.who,
                rate_pps: rate(backend.who, *percent),
                samples: turns.iter().map(|turn| turn[at]).collect(),
            });
        }
    }
    let latency = Latency { bytes: args.size, packed: args.packed, own: args.own, throughputs, loads };
    let text = if args.json { latency.json()? } else { latency.text() };
    print(&text)
}

/// The lowest throughput of those that do more than to show the frontend's limit.
fn slowest(throughputs: &[(Who, Throughput)]) -> Result<f64, Failure> {
    let others = throughputs.iter().filter(|(who, _)| *who != Who::Reflect);
    let slowest = others.map(|(_, found)| found.pps).min_by(f64::total_cmp);
    slowest.ok_or_else(|| Failure("no backend has a throughput".into()))
}
