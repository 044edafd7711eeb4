//! The three commands.

use std::sync::Arc;

use serde::Serialize;

use crate::args::{Mode, OutputArgs, Reflect, Run, Search};
use crate::clock::Clock;
use crate::engine::{Engine, Plan, Rate, Station};
use crate::progress::{Live, on_terminal};
use crate::report::{self, TrialReport, csv, pps, text};
use crate::search::{Goal, loss, search};
use crate::{Failure, setup, usage};

/// Good.
const OK: u8 = 0;
/// Loss, corruption, a broken backend.
const BAD: u8 = 1;
/// The backend went away.
const GONE: u8 = 3;

/// Everything a trial needs, connected.
struct Bench {
    clock: Clock,
    live: Arc<Live>,
    stations: Vec<Station>,
}

impl Bench {
    fn ready(
        mut stations: Vec<Station>,
        live: Arc<Live>,
        core: Option<usize>,
        output: &OutputArgs,
        wait: f64,
    ) -> Result<Bench, Failure> {
        let sockets = stations.iter().filter_map(|s| s.port.watch()).collect();
        let show = output.progress || on_terminal();
        // Before this thread is pinned, or that one would be, too.
        live.watch(sockets, stations.iter().map(|s| s.name).collect(), show);
        setup::pin(core)?;
        let clock = Clock::calibrate();
        let engine = Engine { clock: &clock, live: &live };
        if !engine.probe(&mut stations, wait) && live.going() {
            eprintln!(
                "ringwire-pktgen: nothing of what is sent comes through within {wait} s; going on anyway"
            );
        }
        Ok(Bench { clock, live, stations })
    }

    fn trial(&mut self, plan: &Plan, epoch: u8) -> (TrialReport, Vec<crate::engine::Outcome>) {
        let engine = Engine { clock: &self.clock, live: &self.live };
        let outcomes = engine.trial(&mut self.stations, plan, epoch);
        let ports = report::ports(&mut self.stations, &outcomes, &self.clock);
        let rate_pps = match plan.rate {
            Rate::Line => None,
            Rate::Packets(rate) => Some(rate),
        };
        (TrialReport { rate_pps, ports }, outcomes)
    }

    /// Leaves the backend in peace. The exit status, if it is not up to the result.
    fn finish(mut self) -> Option<u8> {
        let broken = self.stations.iter().find_map(|s| Some((s.name, s.port.broken()?)));
        if let Some((name, why)) = broken {
            eprintln!("ringwire-pktgen: {name}: the backend broke the rules of virtio: {why}");
            return Some(BAD);
        }
        for station in &mut self.stations {
            if !self.live.connected() || station.port.close().is_err() {
                eprintln!("ringwire-pktgen: the backend closed the connection");
                return Some(GONE);
            }
        }
        None
    }
}

/// A number of the trial that tells its packets from others', those of a run just before included.
fn first_epoch() -> u8 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    1 + now.map_or(0, |time| (time.subsec_nanos() >> 10) % 250) as u8
}

fn live() -> Result<Arc<Live>, Failure> {
    Live::new().map_err(|e| usage(format!("signal handlers: {e}")))
}

/// Writes what `--json` and `--csv` ask for, or `text`.
fn print(output: &OutputArgs, json: &impl Serialize, trials: &[TrialReport], text: &str) {
    use std::io::Write;
    let result = if output.json {
        serde_json::to_string_pretty(json).expect("plain numbers and names") + "\n"
    } else if output.csv {
        csv(trials)
    } else {
        text.to_string()
    };
    // A reader that has gone wants no more.
    let _ = std::io::stdout().write_all(result.as_bytes());
}

/// `run`
pub fn run(args: &Run) -> Result<u8, Failure> {
    let mean = setup::mean(&setup::sizes(&args.traffic)?);
    let seconds = match (args.seconds, args.count) {
        (None, None) => Some(10.0),
        (Some(0.0), _) | (None, Some(_)) => None,
        (Some(seconds), _) if seconds > 0.0 && seconds < 1e7 => Some(seconds),
        (Some(seconds), _) => return Err(usage(format!("--seconds {seconds}: from 0 to 10000000"))),
    };
    if !(0.0..1e7).contains(&args.warm_up) {
        return Err(usage(format!("--warm-up {}: from 0 to 10000000", args.warm_up)));
    }
    let plan = Plan {
        rate: args.rate.packets(mean),
        seconds,
        count: args.count,
        burst: args.traffic.burst.min(u32::from(args.device.queue_size)),
        drain: args.drain.clamp(0.0, 60.0),
    };
    let live = live()?;
    let stations = setup::stations(&args.device, &args.traffic, args.mode, args.peer_mode)?;
    let mut bench = Bench::ready(stations, live, args.device.core, &args.output, args.device.wait)?;
    let mut epoch = first_epoch();
    if args.warm_up > 0.0 {
        bench.trial(&Plan { seconds: Some(args.warm_up), count: None, ..plan }, epoch);
        epoch = epoch % 250 + 1;
    }
    let (trial, _) = bench.trial(&plan, epoch);
    let clean = trial.ports.iter().all(report::PortReport::clean);
    print(&args.output, &trial, std::slice::from_ref(&trial), &text(&trial.ports));
    let status = bench.finish();
    Ok(status.unwrap_or(if args.check && !clean { BAD } else { OK }))
}

/// `rfc2544`
pub fn rfc2544(args: &Search) -> Result<u8, Failure> {
    let mean = setup::mean(&setup::sizes(&args.traffic)?);
    if args.mode == Mode::Echo || (args.mode != Mode::Both && args.device.peer.is_none()) {
        return Err(usage("rfc2544 needs packets that come back: --mode both, or --peer".into()));
    }
    if args.traffic.count_only {
        return Err(usage("rfc2544 must look at what it receives: no --count-only".into()));
    }
    if !(args.trial > 0.0 && args.trial < 1e6) {
        return Err(usage(format!("--trial {}: seconds, above 0", args.trial)));
    }
    let live = live()?;
    let stations = setup::stations(&args.device, &args.traffic, args.mode, None)?;
    let mut bench = Bench::ready(stations, live, args.device.core, &args.output, args.device.wait)?;
    let sources: Vec<Option<usize>> = bench.stations.iter().map(|s| s.source).collect();
    let burst = args.traffic.burst.min(u32::from(args.device.queue_size));
    let drain = args.drain.clamp(0.0, 60.0);
    let mut epoch = first_epoch();
    let mut trial = |rate: Option<f64>| {
        // 0 is the probes'.
        epoch = epoch.checked_add(1).unwrap_or(1);
        let rate = rate.map_or(Rate::Line, Rate::Packets);
        let (report, outcomes) =
            bench.trial(&Plan { rate, seconds: Some(args.trial), count: None, burst, drain }, epoch);
        let senders: Vec<_> = outcomes.iter().filter(|o| o.offered > 0).collect();
        let sent: f64 = senders.iter().map(|o| o.sent as f64 / o.seconds).sum();
        let (offered, lost) = loss(&outcomes, &sources);
        let alive = bench.live.going() && bench.stations.iter().all(|s| s.port.broken().is_none());
        alive.then_some((report, sent / senders.len().max(1) as f64, offered, lost))
    };
    let plain = !args.output.json && !args.output.csv;
    let mut say = |line: String| if plain { println!("{line}") } else { eprintln!("{line}") };
    let top = match args.rate.packets(mean) {
        Rate::Line => None,
        Rate::Packets(rate) => Some(rate),
    };
    let allowed = args.pdr * 100.0;
    say(format!(
        "searching the highest rate with at most {allowed}% loss, {} s a trial, to {}% of the first rate",
        args.trial,
        args.resolution * 100.0
    ));
    let goal = Goal { loss: args.pdr, resolution: args.resolution, retries: args.retries };
    let found = search(goal, top, &mut trial, &mut say);
    let rate = found.rate_pps.map_or("none: no rate passed".to_string(), pps);
    let gbit = found.rate_pps.unwrap_or(0.0) * mean * 8.0 / 1e9;
    let mut summary = format!("{}: {rate} a port ({gbit:.3} Gbit/s of frames)\n", found.kind);
    if let Some(confirmed) = &found.confirmed {
        summary += &format!("\n{}", text(&confirmed.ports));
    }
    print(&args.output, &found, &found.trials, &summary);
    Ok(bench.finish().unwrap_or(OK))
}

/// `reflect`
pub fn reflect(args: &Reflect) -> Result<u8, Failure> {
    let live = live()?;
    setup::pin(args.core)?;
    crate::reflect::reflect(args, &live).map_err(|e| Failure::Connect(e.to_string()))?;
    Ok(OK)
}
