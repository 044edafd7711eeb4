//! The three commands.

use std::io::Write;
use std::sync::Arc;

use serde::Serialize;

use crate::args::{Mode, OutputArgs, Reflect, Run, Search};
use crate::clock::Clock;
use crate::engine::{Engine, Plan, Rate, Station};
use crate::progress::{Live, clear_line, on_terminal};
use crate::report::{self, TrialReport, csv, text};
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

/// To be called once the backends are there: ^C while they are waited for just ends the program.
fn live() -> Result<Arc<Live>, Failure> {
    Live::new().map_err(|e| usage(format!("signal handlers: {e}")))
}

/// Writes to standard output.
fn write(text: &str) -> Result<(), Failure> {
    clear_line();
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has gone wants no more.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(usage(format!("standard output: {e}"))),
        _ => Ok(()),
    }
}

/// Writes what `--json` and `--csv` ask for, or `text`.
fn print(
    output: &OutputArgs,
    json: &impl Serialize,
    trials: &[TrialReport],
    text: &str,
) -> Result<(), Failure> {
    let result = if output.json {
        serde_json::to_string_pretty(json).expect("plain numbers and names") + "\n"
    } else if output.csv {
        csv(trials)
    } else {
        text.to_string()
    };
    write(&result)
}

/// `run`
pub fn run(args: &Run) -> Result<u8, Failure> {
    let mean = setup::mean(&setup::sizes(&args.traffic)?);
    let seconds = match (args.seconds, args.count) {
        (None, None) => Some(10.0),
        (Some(0.0), _) | (None, Some(_)) => None,
        (Some(seconds), _) => Some(seconds),
    };
    let plan = Plan {
        rate: args.rate.packets(mean),
        seconds,
        count: args.count,
        burst: args.traffic.burst.min(u32::from(args.device.queue_size)),
        drain: args.drain,
    };
    if args.check && !setup::looks(&args.device, &args.traffic, args.mode, args.peer_mode) {
        return Err(usage(
            "--check: no port looks at what it receives (--mode, --peer, --count-only)".into(),
        ));
    }
    let stations = setup::stations(&args.device, &args.traffic, args.mode, args.peer_mode)?;
    let live = live()?;
    let mut bench = Bench::ready(stations, live, args.device.core, &args.output, args.device.wait)?;
    let mut epoch = first_epoch();
    if args.warm_up > 0.0 {
        bench.trial(&Plan { seconds: Some(args.warm_up), count: None, ..plan }, epoch);
        epoch = epoch % 250 + 1;
    }
    let (trial, _) = bench.trial(&plan, epoch);
    let clean = trial.ports.iter().all(report::PortReport::clean);
    let printed = print(&args.output, &trial, std::slice::from_ref(&trial), &text(&trial.ports));
    let status = bench.finish();
    printed?;
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
    if args.trial == 0.0 {
        return Err(usage("--trial 0: above 0".into()));
    }
    let stations = setup::stations(&args.device, &args.traffic, args.mode, None)?;
    let live = live()?;
    let mut bench = Bench::ready(stations, live.clone(), args.device.core, &args.output, args.device.wait)?;
    let sources: Vec<Option<usize>> = bench.stations.iter().map(|s| s.source).collect();
    let burst = args.traffic.burst.min(u32::from(args.device.queue_size));
    let drain = args.drain;
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
    let mut say = |line: String| {
        clear_line();
        if !plain {
            let _ = writeln!(std::io::stderr(), "{line}");
        } else if writeln!(std::io::stdout(), "{line}").is_err() {
            // Nobody gets to know what else is found. `print` says why, if there is more to it than a closed pipe.
            live.end();
        }
    };
    let top = match args.rate.packets(mean) {
        Rate::Line => None,
        Rate::Packets(rate) => Some(rate),
    };
    let allowed = args.pdr * 100.0;
    say(format!(
        "searching the highest rate with at most {allowed}% loss, {} s a trial, to {}% of the rate",
        args.trial,
        args.resolution * 100.0
    ));
    let goal = Goal { loss: args.pdr, resolution: args.resolution, retries: args.retries };
    let found = search(goal, top, &mut trial, &mut say);
    say(found.summary(mean));
    let table = found.confirmed.as_ref().map_or(String::new(), |trial| format!("\n{}", text(&trial.ports)));
    let printed = print(&args.output, &found, &found.trials, &table);
    let status = bench.finish();
    printed?;
    Ok(status.unwrap_or(OK))
}

/// `reflect`
pub fn reflect(args: &Reflect) -> Result<u8, Failure> {
    let live = live()?;
    setup::pin(args.core)?;
    crate::reflect::reflect(args, &live).map_err(|e| Failure::Connect(e.to_string()))?;
    Ok(OK)
}
