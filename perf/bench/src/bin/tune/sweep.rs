//! One knob's values, taking turns.

use std::path::PathBuf;

use ringwire_bench::place::Place;
use ringwire_bench::process::Process;
use ringwire_bench::stats::Spread;
use ringwire_bench::{Failure, daemon, frontend};
use serde::Serialize;

use crate::setting::{Knob, Setting};
use crate::target::Target;
use crate::{Args, Traffic};

/// Another value is taken only if it is better by this part: the first one is the simplest.
const BETTER: f64 = 1.02;
/// Above this part of the frontend's own limit, a rate says more about the frontend.
const BOUND: f64 = 0.9;
/// Bytes of the virtio-net header.
const HEADER: u16 = 12;

/// One knob.
#[derive(Debug, Serialize)]
pub struct Sweep {
    /// Which.
    pub knob: Knob,
    /// Its values.
    pub values: Vec<Value>,
}

/// One value.
#[derive(Debug, Serialize)]
pub struct Value {
    /// All that was set.
    pub setting: Setting,
    /// Packets a second, one for each turn.
    pub samples: Vec<f64>,
    /// The same against a backend that only returns descriptors: the frontend's own limit.
    pub limits: Vec<f64>,
    /// Why there are no samples.
    pub failed: Option<String>,
}

impl Value {
    /// Packets a second.
    pub fn rate(&self) -> Option<Spread> {
        Spread::of(&self.samples)
    }

    /// The frontend's limit.
    pub fn limit(&self) -> Option<Spread> {
        Spread::of(&self.limits)
    }

    /// Whether the frontend was about as fast as it can be.
    pub fn bound(&self) -> bool {
        let medians = self.rate().zip(self.limit());
        medians.is_some_and(|(rate, limit)| rate.median > BOUND * limit.median)
    }
}

impl Sweep {
    /// The fastest; of those that are about as fast, the first.
    pub fn best(&self) -> Option<&Value> {
        let rate = |value: &Value| value.rate().map_or(0.0, |rate| rate.median);
        let measured = self.values.iter().filter(|value| value.rate().is_some());
        measured.reduce(|best, value| if rate(value) > BETTER * rate(best) { value } else { best })
    }
}

/// A running ringwired, which is replaced when another configuration is wanted.
struct Running {
    text: String,
    process: Process,
}

/// Tries all `values`, again and again.
pub fn run(
    knob: Knob,
    values: &[Setting],
    target: &Target,
    cores: &[usize],
    args: &Args,
    place: &Place,
) -> Result<Sweep, Failure> {
    let names: Vec<String> = values.iter().map(|setting| knob.value(*setting)).collect();
    eprintln!("{knob}: {}", names.join(", "));
    let value = |setting: &Setting| Value {
        setting: *setting,
        samples: Vec::new(),
        limits: Vec::new(),
        failed: None,
    };
    let mut sweep = Sweep { knob, values: values.iter().map(value).collect() };
    let mut reflect = start_reflect(args, place)?;
    let mut running: Option<Running> = None;
    for round in 1..=args.rounds {
        let mut line = format!("  round {round}, Mpps:");
        for value in sweep.values.iter_mut().filter(|value| value.failed.is_none()) {
            reflect.resume()?;
            let limit = rate(value.setting, &place.directory.join("reflect.sock"), args, place);
            reflect.pause()?;
            place.go_on()?;
            let rate = exchange(&mut running, target, value.setting, cores, place)
                .and_then(|()| rate(value.setting, &place.directory.join("guest.sock"), args, place));
            place.go_on()?;
            match rate {
                Ok(rate) => {
                    line += &format!(" {:.3}", rate / 1e6);
                    value.samples.push(rate);
                    value.limits.push(limit?);
                }
                Err(Failure(why)) => {
                    eprintln!("  skipped: {knob} {}: {why}", knob.value(value.setting));
                    value.failed = Some(why);
                    running = None;
                }
            }
            // It must not poll while the other has its turn.
            running.iter_mut().try_for_each(|running| running.process.pause())?;
        }
        eprintln!("{line}");
    }
    Ok(sweep)
}

/// Sees to it that a ringwired with `setting` runs. A NIC can be opened once: never two at a time.
fn exchange(
    running: &mut Option<Running>,
    target: &Target,
    setting: Setting,
    cores: &[usize],
    place: &Place,
) -> Result<(), Failure> {
    let text = target.config(setting, cores, &place.directory).to_string();
    if let Some(mut old) = running.take() {
        old.process.resume()?;
        if old.text == text {
            *running = Some(old);
            return Ok(());
        }
        old.process.stop()?;
    }
    let process = daemon::start(place, "ringwired", &text, &[place.directory.join("guest.sock")])?;
    *running = Some(Running { text, process });
    Ok(())
}

fn start_reflect(args: &Args, place: &Place) -> Result<Process, Failure> {
    let socket = place.directory.join("reflect.sock");
    let mut arguments = vec![place.program("ringwire-pktgen"), "reflect".into(), "--core".into()];
    arguments.extend([place.back.to_string(), "--socket".into(), socket.display().to_string()]);
    if args.traffic != Traffic::Tx {
        let length = (args.size + HEADER).to_string();
        arguments.extend(["--rx".into(), "blank".into(), "--length".into(), length]);
    }
    let _ = std::fs::remove_file(&socket);
    let mut process = Process::start("reflect", &arguments, place)?;
    process.wait_until(|_| socket.exists())?;
    process.pause()?;
    Ok(process)
}

/// Packets a second.
fn rate(setting: Setting, socket: &PathBuf, args: &Args, place: &Place) -> Result<f64, Failure> {
    let mut command = frontend::pktgen("run", std::slice::from_ref(socket), setting.rings(), place);
    command.args(["--count-only", "--mode", args.traffic.name(), "--warm-up", "0.1"]);
    command.args(["--seconds", &args.seconds.to_string(), "--size", &args.size.to_string()]);
    command.args(["--burst", &setting.burst.to_string(), "--queues", &setting.queues.to_string()]);
    command.args(["--queue-size", &setting.ring_size.to_string()]);
    let report = frontend::report(&mut command)?;
    let report = report.ok_or_else(|| Failure(format!("{} rings are not offered", setting.format())))?;
    let of = |key: &str| frontend::number(&report, &format!("/ports/0/{key}"));
    Ok(match args.traffic {
        Traffic::Tx => of("tx_pps")?,
        Traffic::Rx => of("rx_pps")?,
        Traffic::Both => of("tx_pps")? + of("rx_pps")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_clearly_better() {
        let target = Target::made("net_null0", false);
        let value = |samples: &[f64]| Value {
            setting: Setting::first(&target),
            samples: samples.to_vec(),
            limits: vec![10.0],
            failed: None,
        };
        let sweep = |samples: &[&[f64]]| Sweep {
            knob: Knob::Burst,
            values: samples.iter().map(|samples| value(samples)).collect(),
        };
        let best = |samples: &[&[f64]]| sweep(samples).best().map(|best| best.samples.clone());
        assert_eq!(best(&[&[5.0], &[5.05], &[4.0]]), Some(vec![5.0]));
        assert_eq!(best(&[&[5.0], &[6.0], &[]]), Some(vec![6.0]));
        assert_eq!(best(&[&[]]), None);
        assert!(value(&[9.5]).bound() && !value(&[8.5]).bound());
    }
}
