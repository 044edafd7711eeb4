//! What was found out, for people and for programs.

use ringwire_bench::Failure;
use ringwire_bench::stats::Spread;
use serde::Serialize;

use crate::run::{BYTES, Pair, Run};

/// All of it.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// Packed rings.
    pub packed: bool,
    /// Requests a second that were asked for.
    pub requests: u32,
    /// The core of the frontend, and of who makes the requests.
    pub front: usize,
    /// The worker's core.
    pub back: usize,
    /// One for each round.
    pub samples: Vec<Pair>,
}

impl Cost {
    /// Without requests, with them, and the ratio of the two.
    fn spreads(&self, of: fn(&Run) -> f64) -> Result<[Spread; 3], Failure> {
        let side = |side: fn(&Pair) -> &Run| -> Vec<f64> {
            self.samples.iter().map(|pair| of(side(pair))).collect()
        };
        let (without, with) = (side(|pair| &pair.without), side(|pair| &pair.with));
        let spreads = [Spread::of(&without), Spread::of(&with), Spread::of_ratios(&with, &without)];
        match spreads {
            [Some(without), Some(with), Some(ratio)] => Ok([without, with, ratio]),
            _ => Err(Failure("no samples".into())),
        }
    }

    fn line(&self, what: &str, of: fn(&Run) -> f64) -> Result<String, Failure> {
        let text = |spread: Spread| format!("{:.2} [{:.2}..{:.2}]", spread.median, spread.min, spread.max);
        let [without, with, ratio] = self.spreads(of)?.map(text);
        Ok(format!("{what:<16}{without:>26}{with:>26}{ratio:>22}\n"))
    }

    /// The table.
    pub fn text(&self) -> Result<String, Failure> {
        let Cost { requests, front, back, .. } = self;
        let format = if self.packed { "packed" } else { "split" };
        let mut out = format!("guest->NIC, {BYTES} bytes, {format} rings; worker on core {back}\n\n");
        out += &format!("{:<16}{:>26}{:>26}{:>22}\n", "", "without requests", "with", "ratio");
        out += &self.line("Mpps", |run| run.pps / 1e6)?;
        out += &self.line("cycles a packet", |run| run.cycles)?;
        let slowest = self.samples.iter().map(|pair| pair.with.slowest_ms).fold(0.0, f64::max);
        let [_, made, _] = self.spreads(|run| run.requests)?;
        out += &format!(
            "\n{:.0} of {requests} requests a second, each answered as it should be; the slowest after {slowest:.1} ms\n",
            made.median
        );
        out += &format!(
            "Requests come from core {front}, the frontend's, which has less time for packets then: a lower rate is its, \
             too.\nCycles are the worker's, in rounds that moved something. {NOTES}",
        );
        Ok(out)
    }

    /// Everything.
    pub fn json(&self) -> Result<String, Failure> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

/// What the table means.
const NOTES: &str = "Medians [lowest..highest]; ratios are of neighbours.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_with_requests_to_without() {
        let run = |pps, cycles, requests| Run { pps, cycles, requests, slowest_ms: 3.0 };
        let pair = |pps| Pair { without: run(pps, 100.0, 0.0), with: run(pps * 0.9, 101.0, 999.0) };
        let cost = Cost {
            packed: false,
            requests: 1000,
            front: 0,
            back: 1,
            samples: vec![pair(1e7), pair(3e7), pair(2e7)],
        };
        let text = cost.text().unwrap();
        let words = |name: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].split_whitespace().map(str::to_owned).collect()
        };
        let rates = ["20.00", "[10.00..30.00]", "18.00", "[9.00..27.00]", "0.90", "[0.90..0.90]"];
        assert_eq!(words("Mpps"), rates);
        let cycles = ["100.00", "[100.00..100.00]", "101.00", "[101.00..101.00]", "1.01", "[1.01..1.01]"];
        assert_eq!(words("cycles a packet"), cycles);
        assert!(text.contains("\n999 of 1000 requests a second,"), "{text}");
    }
}
