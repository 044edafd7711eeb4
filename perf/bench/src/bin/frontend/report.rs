//! What was found out, for people and for programs.

use ringwire_bench::backend::Who;
use ringwire_bench::stats::Spread;
use serde::Serialize;

/// One after the other.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pair {
    /// Packets a second of ringwire-pktgen.
    pub pktgen_pps: f64,
    /// Packets a second of testpmd.
    pub testpmd_pps: f64,
}

impl Pair {
    /// For progress lines.
    pub fn short(&self) -> String {
        format!("{:.3}/{:.3}", self.pktgen_pps / 1e6, self.testpmd_pps / 1e6)
    }
}

/// One way of using a virtqueue.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Which.
    pub name: String,
    /// The driver's function in testpmd, in its own words.
    pub testpmd_path: String,
    /// One for each round; none if the backend lacks a feature.
    pub samples: Vec<Pair>,
}

impl Row {
    fn line(&self) -> String {
        let rates = |of: fn(&Pair) -> f64| self.samples.iter().map(of).collect::<Vec<_>>();
        let (ours, theirs) = (rates(|pair| pair.pktgen_pps), rates(|pair| pair.testpmd_pps));
        let spreads = (Spread::of(&ours), Spread::of(&theirs), Spread::of_ratios(&ours, &theirs));
        let (Some(mine), Some(other), Some(ratio)) = spreads else {
            return format!("{:<26}{:>10}\n", self.name, "-");
        };
        format!(
            "{:<26}{:>10.3}{:>10.3}{:>26}  {}\n",
            self.name,
            mine.median / 1e6,
            other.median / 1e6,
            format!("{:.2} [{:.2}..{:.2}]", ratio.median, ratio.min, ratio.max),
            self.testpmd_path
        )
    }
}

/// The table.
pub fn text(backend: Who, rows: &[Row]) -> String {
    let mut out = format!("{} bytes, backend: {backend}\n\n", crate::BYTES);
    out += &format!(
        "{:<26}{:>10}{:>10}{:>26}  {}\n",
        "Mpps", "pktgen", "testpmd", "ratio", "testpmd's function"
    );
    rows.iter().for_each(|row| out += &row.line());
    out + NOTES
}

/// Everything.
pub fn json(rows: &[Row]) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(rows)? + "\n")
}

/// What the table means.
const NOTES: &str = "\nMedians; ratios are of neighbours: median [lowest..highest]. testpmd runs txonly or rxonly. ringwire-pktgen\n\
numbers and times what it sends; of what it receives, both only count the frames.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_pktgen_to_testpmd() {
        let pair = |pktgen_pps, testpmd_pps| Pair { pktgen_pps, testpmd_pps };
        let samples = vec![pair(6e6, 2e6), pair(8e6, 2e6), pair(5e6, 5e6)];
        let row = Row { name: "sends split".into(), testpmd_path: "standard".into(), samples };
        let words: Vec<String> = row.line().split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["sends", "split", "6.000", "2.000", "3.00", "[1.00..4.00]", "standard"]);
    }
}
