//! Taking turns: one after the other, again and again, so that what the machine does meanwhile happens to all.

use std::time::{Duration, Instant};

use crate::place::Place;
use crate::process::Process;
use crate::{Failure, distance};

/// How long a backend may take to notice that its frontend has gone.
const SETTLE: Duration = Duration::from_millis(50);
/// A turn is disturbed if, for more than this part of it, some thread of the machine had to wait for a core.
const WAITING: f64 = 0.05;
/// So too if the two cores are farther apart after it than before, or than at the round's begin, by this factor.
const FARTHER: f64 = 1.8;
/// A disturbed turn is taken again, but not more often than this.
const TRIES: u32 = 4;

/// Who takes turns.
pub trait Player {
    /// As it is called in progress lines.
    fn name(&self) -> String;
    /// What runs when it is its turn, and does not otherwise.
    fn process(&mut self) -> &mut Process;
    /// Whether threads of its own wait for each other's core, so that this says nothing of what else runs.
    fn crowds(&self) -> bool {
        false
    }
}

/// `rounds` times, each of `players` has its turn: `measure` is what happens then, and `say` what is shown of it.
/// The samples of each player; none where it cannot do what is asked.
pub fn alternate<P: Player, T>(
    players: &mut [P],
    rounds: u32,
    place: &Place,
    mut measure: impl FnMut(&mut P) -> Result<Option<T>, Failure>,
    say: impl Fn(&T) -> String,
) -> Result<Vec<Vec<T>>, Failure> {
    let mut samples: Vec<Vec<T>> = players.iter().map(|_| Vec::new()).collect();
    let mut disturbed = 0;
    for round in 1..=rounds {
        let away = distance::round_trip(place.front, place.back)?;
        let mut line = format!("  round {round}, cores {away:.0} ns apart:");
        for (player, samples) in players.iter_mut().zip(&mut samples) {
            let (mut sample, mut quiet) = turn(player, place, away, &mut measure)?;
            for _ in 1..TRIES {
                if !quiet {
                    (sample, quiet) = turn(player, place, away, &mut measure)?;
                }
            }
            if let Some(sample) = sample {
                let mark = if quiet { "" } else { "!" };
                disturbed += u32::from(!quiet);
                line += &format!("  {} {}{mark}", player.name(), say(&sample));
                samples.push(sample);
            }
        }
        eprintln!("{line}");
    }
    if disturbed > 0 {
        eprintln!(
            "  {disturbed} turns (!) were disturbed, {TRIES} times in a row: something else runs here, or the cores move"
        );
    }
    Ok(samples)
}

/// One turn, and whether nothing else wanted the cores, and these were `away` from each other all the time.
fn turn<P: Player, T>(
    player: &mut P,
    place: &Place,
    away: f64,
    measure: &mut impl FnMut(&mut P) -> Result<Option<T>, Failure>,
) -> Result<(Option<T>, bool), Failure> {
    player.process().resume()?;
    let (started, waited) = (Instant::now(), waited());
    let mut sample = measure(player);
    place.go_on()?;
    if let Err(Failure(why)) = &sample {
        // On a machine that is busy with something else, a turn may pass without an answer.
        eprintln!("  again, as this turn failed: {why}");
        sample = measure(player);
        place.go_on()?;
    }
    let waited = self::waited().saturating_sub(waited);
    let quiet = player.crowds() || waited.as_secs_f64() <= WAITING * started.elapsed().as_secs_f64();
    std::thread::sleep(SETTLE);
    player.process().pause()?;
    let after = distance::round_trip(place.front, place.back)?;
    Ok((sample?, quiet && after.max(away) <= FARTHER * after.min(away)))
}

/// For how long, since the machine was started, some thread had to wait for a core; 0 if the kernel does not say.
fn waited() -> Duration {
    pressure(&std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default())
}

/// The total of the line `some`, in microseconds.
fn pressure(text: &str) -> Duration {
    let some = text.lines().find(|line| line.starts_with("some"));
    let total = some.and_then(|line| line.split_once("total=")).and_then(|(_, total)| total.parse().ok());
    Duration::from_micros(total.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_the_total_of_some() {
        let text = "some avg10=5.11 avg60=11.31 avg300=20.04 total=13681195900\nfull avg10=0.00 total=7\n";
        assert_eq!(pressure(text), Duration::from_micros(13_681_195_900));
        assert_eq!(pressure(""), Duration::ZERO);
    }
}
