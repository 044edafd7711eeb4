//! Instructions of a worker's rounds, from what valgrind counted in `steps`.

use ringwire_bench::Failure;
use ringwire_bench::callgrind::Profile;
use ringwire_bench::functions::Names;
use ringwire_bench::place::Place;
use ringwire_bench::stats::Spread;
use serde::Serialize;

use crate::guests;
use crate::steps::{self, Load, Part};
use crate::valgrind;

/// What a worker spends.
#[derive(Clone, Debug, Serialize)]
pub struct Counts {
    /// Instructions of a round in which nothing is to be done.
    pub idle_round: Spread,
    /// With one guest busy: each stretch that was counted.
    pub one_busy: Vec<Round>,
    /// With all busy: instructions for each packet, beyond those of an idle round.
    pub all_busy_packet: Spread,
    /// Where an idle round's instructions are spent, most first.
    pub functions: Vec<(String, f64)>,
}

/// A round, on the average of a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Round {
    /// Packets included.
    pub instructions: f64,
    /// How many there were.
    pub packets: f64,
}

/// One stretch of a load.
struct Sample {
    load: Load,
    instructions: f64,
    rounds: f64,
    packets: f64,
}

impl Sample {
    fn round(&self) -> Round {
        Round { instructions: self.instructions / self.rounds, packets: self.packets / self.rounds }
    }
}

/// Counts with so many guests; names the first `functions` functions of an idle round.
pub fn count(number: u16, packed: bool, functions: usize, place: &Place) -> Result<Counts, Failure> {
    let directory = place.directory.display().to_string();
    std::fs::write(place.directory.join(steps::CONFIG), guests::config(number, place))?;
    let program = std::env::current_exe()?;
    let (name, number) = (program.display().to_string(), number.to_string());
    let mut command = vec![name.as_str(), "--steps", &directory, "--guests", &number];
    command.extend(packed.then_some("--packed"));
    let (said, profiles) = valgrind::run(&command, &place.directory)?;
    let parts: Vec<Part> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let counts = evaluate(&samples(&parts, &profiles)?)?;
    let names =
        if functions > 0 { idle_functions(&parts, &profiles, functions, &program)? } else { Vec::new() };
    Ok(Counts { functions: names, ..counts })
}

/// A part's rounds and packets are what they have become since the part before it.
fn samples(parts: &[Part], profiles: &[Profile]) -> Result<Vec<Sample>, Failure> {
    let pairs = parts.windows(2).zip(profiles.iter().skip(1));
    let samples = pairs.map(|(pair, profile)| Sample {
        load: pair[1].load,
        instructions: profile.total.instructions as f64,
        rounds: (pair[1].rounds - pair[0].rounds) as f64,
        packets: (pair[1].packets - pair[0].packets) as f64,
    });
    let samples: Vec<Sample> = samples.filter(|sample| sample.load != Load::Before).collect();
    let nothing = |sample: &Sample| sample.instructions == 0.0 || sample.rounds == 0.0;
    if samples.iter().any(nothing) {
        return Err(Failure("the worker has not run, or valgrind has not counted it".into()));
    }
    Ok(samples)
}

fn evaluate(samples: &[Sample]) -> Result<Counts, Failure> {
    let spread = |load: Load, value: &dyn Fn(&Sample) -> f64| {
        let values: Vec<f64> = samples.iter().filter(|sample| sample.load == load).map(value).collect();
        Spread::of(&values).ok_or_else(|| Failure(format!("nothing was counted: {load:?}")))
    };
    let idle_round = spread(Load::Idle, &|sample| sample.instructions / sample.rounds)?;
    let packet =
        |sample: &Sample| (sample.instructions - idle_round.median * sample.rounds) / sample.packets.max(1.0);
    Ok(Counts {
        idle_round,
        one_busy: samples.iter().filter(|sample| sample.load == Load::One).map(Sample::round).collect(),
        all_busy_packet: spread(Load::All, &packet)?,
        functions: Vec::new(),
    })
}

/// Of the first idle part.
fn idle_functions(
    parts: &[Part],
    profiles: &[Profile],
    most: usize,
    program: &std::path::Path,
) -> Result<Vec<(String, f64)>, Failure> {
    let Some(at) = parts.iter().position(|part| part.load == Load::Idle) else { return Ok(Vec::new()) };
    let rounds = (parts[at].rounds - parts[at - 1].rounds) as f64;
    let functions = Names::of(program)?.functions(&profiles[at]).into_iter().take(most);
    Ok(functions.map(|(name, cost)| (name, cost.instructions as f64 / rounds)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_costs_what_an_idle_worker_would_not_have_spent() {
        let sample = |load, instructions, rounds, packets| Sample { load, instructions, rounds, packets };
        let counts = evaluate(&[
            sample(Load::Idle, 5000.0, 100.0, 0.0),
            // In the middle of a round.
            sample(Load::Idle, 5030.0, 100.0, 0.0),
            sample(Load::Idle, 5000.0, 100.0, 0.0),
            sample(Load::One, 500.0 + 320.0, 10.0, 32.0),
            sample(Load::All, 500.0 + 6400.0, 10.0, 64.0),
        ]);
        let counts = counts.expect("samples");
        assert_eq!(counts.idle_round.median, 50.0);
        assert_eq!(counts.one_busy, [Round { instructions: 82.0, packets: 3.2 }]);
        assert_eq!(counts.all_busy_packet.median, 100.0);
        assert!(evaluate(&[]).is_err());
    }
}
