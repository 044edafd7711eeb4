//! What was found out, for people and for programs.

use ringwire_bench::Failure;
use ringwire_bench::backend::Who;
use ringwire_bench::stats::Spread;
use serde::Serialize;

use crate::delays::{Delays, Throughput};

/// All of it.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Bytes of a frame.
    pub bytes: u16,
    /// Packed rings.
    pub packed: bool,
    /// Loads are parts of each backend's own throughput; else of the lowest of all.
    pub own: bool,
    /// The throughputs found.
    pub throughputs: Vec<(Who, Throughput)>,
    /// Each load, each backend.
    pub loads: Vec<Load>,
}

/// One backend at one load.
#[derive(Debug, Serialize)]
pub struct Load {
    /// Percent of the throughput.
    pub percent: u8,
    /// Which.
    pub backend: Who,
    /// Packets a second.
    pub rate_pps: f64,
    /// One for each turn.
    pub samples: Vec<Delays>,
}

impl Load {
    fn spread(&self, of: fn(&Delays) -> f64) -> Option<Spread> {
        Spread::of(&self.samples.iter().map(of).collect::<Vec<_>>())
    }

    fn line(&self) -> String {
        let us = |of| match self.spread(of) {
            Some(Spread { median, min, max }) => format!("{median:.1} [{min:.1}..{max:.1}]"),
            None => "-".into(),
        };
        let lost = self
            .spread(|delays| delays.lost)
            .map_or("-".into(), |lost| format!("{:.3}%", 100.0 * lost.median));
        format!(
            "{:>4}%  {:<10}{:>8.3}{:>28}{:>28}{:>28}{lost:>10}\n",
            self.percent,
            self.backend.name(),
            self.rate_pps / 1e6,
            us(|delays| delays.p50),
            us(|delays| delays.p99),
            us(|delays| delays.p999),
        )
    }
}

impl Latency {
    /// The tables.
    pub fn text(&self) -> String {
        let format = if self.packed { "packed" } else { "split" };
        let mut out = format!("guest->NIC->guest, {} bytes, {format} rings\n\nthroughput:", self.bytes);
        for (who, found) in &self.throughputs {
            out += &format!("  {} {:.3} Mpps", who.name(), found.pps / 1e6);
        }
        let base = if self.own { "its own throughput" } else { "the lowest throughput" };
        out += &format!(
            "\n\n{:>5}  {:<10}{:>8}{:>28}{:>28}{:>28}{:>10}\n",
            "load", "", "Mpps", "p50, us", "p99, us", "p99.9, us", "lost"
        );
        self.loads.iter().for_each(|load| out += &load.line());
        out + &format!("\nLoads are percents of {base}. {NOTES}")
    }

    /// Everything.
    pub fn json(&self) -> Result<String, Failure> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

/// What the table means.
const NOTES: &str = "Medians [lowest..highest] of the turns.\n\
`limit` is the frontend's own, with a backend that copies packets back at once.\n\
`lost` counts what could not be sent in time, too.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_medians() {
        let delays = |p50| Delays { p50, p99: 2.0 * p50, p999: 3.0 * p50, lost: 0.001 };
        let load = Load {
            percent: 50,
            backend: Who::Ringwire,
            rate_pps: 2e6,
            samples: vec![delays(30.0), delays(10.0), delays(20.0)],
        };
        assert_eq!(
            load.line().split_whitespace().collect::<Vec<_>>(),
            [
                "50%",
                "ringwire",
                "2.000",
                "20.0",
                "[10.0..30.0]",
                "40.0",
                "[20.0..60.0]",
                "60.0",
                "[30.0..90.0]",
                "0.100%"
            ]
        );
    }
}
