//! What was found out, for people and for programs.

use std::collections::BTreeMap;

use ringwire_bench::backend::Who;
use ringwire_bench::stats::Spread;
use serde::Serialize;

use crate::cell::Cell;

/// Above this part of the frontend's own limit, a rate says more about the frontend.
const BOUND: f64 = 0.9;

/// One cell.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// What it is.
    pub cell: Cell,
    /// Packets a second, one for each alternation; no entry for a backend that lacks a feature.
    pub rates: BTreeMap<Who, Vec<f64>>,
}

impl Outcome {
    fn samples(&self, who: Who) -> &[f64] {
        self.rates.get(&who).map_or(&[], Vec::as_slice)
    }

    fn rate(&self, who: Who) -> Option<Spread> {
        Spread::of(self.samples(who))
    }

    /// ringwire's rate for one of another's.
    fn ratio(&self, who: Who) -> Option<Spread> {
        Spread::of_ratios(self.samples(Who::Ringwire), self.samples(who))
    }

    /// Whether ringwire, or the fastest of the others, is about as fast as the frontend can be.
    fn bound(&self) -> bool {
        let Some(limit) = self.rate(Who::Reflect) else { return false };
        let rates = [Who::Ringwire, Who::NetVhost, Who::RteVhost, Who::OpenVswitch].map(|who| self.rate(who));
        rates.into_iter().flatten().any(|rate| rate.median > BOUND * limit.median)
    }

    /// The table's line.
    pub fn line(&self) -> String {
        let rate = |who| self.rate(who).map_or("-".into(), |rate| format!("{:.3}", rate.median / 1e6));
        let ratio = |who| match self.ratio(who) {
            Some(Spread { median, min, max }) => format!("{median:.2} [{min:.2}..{max:.2}]"),
            None => "-".into(),
        };
        format!(
            "{:<38}{:>9}{:>11}{:>11}{:>9}{:>9}{:1}{:>20}{:>20}{:>20}\n",
            self.name,
            rate(Who::Ringwire),
            rate(Who::NetVhost),
            rate(Who::RteVhost),
            rate(Who::OpenVswitch),
            rate(Who::Reflect),
            if self.bound() { "*" } else { "" },
            ratio(Who::NetVhost),
            ratio(Who::RteVhost),
            ratio(Who::OpenVswitch),
        )
    }
}

/// The table's head.
pub fn head() -> String {
    let (a, b, c) = ("ratio to net_vhost", "to rte_vhost", "to ovs");
    let [ringwire, net_vhost, rte_vhost, ovs, limit] = Who::ALL.map(Who::name);
    format!(
        "{:<38}{ringwire:>9}{net_vhost:>11}{rte_vhost:>11}{ovs:>9}{limit:>9} {a:>20}{b:>20}{c:>20}\n",
        "Mpps, medians"
    )
}

/// What the table means.
pub const NOTES: &str = "\nRatios are of runs next to each other: median [lowest..highest]. `limit` is the frontend's own, against a backend\n\
that only returns descriptors; *: a rate is within 10% of it, so that the ratio says nothing. Sizes are without FCS.\n";

/// Everything, as JSON.
pub fn json(outcomes: &[Outcome]) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(outcomes)? + "\n")
}

/// One line a cell and backend.
pub fn csv(outcomes: &[Outcome]) -> String {
    let mut out = String::from(
        "cell,backend,rounds,median_pps,min_pps,max_pps,ringwire_ratio,ringwire_ratio_min,ringwire_ratio_max\n",
    );
    for outcome in outcomes {
        for (who, samples) in &outcome.rates {
            let (Some(rate), Some(ratio)) = (outcome.rate(*who), outcome.ratio(*who)) else { continue };
            out += &format!(
                "{},{},{},{:.0},{:.0},{:.0},{:.4},{:.4},{:.4}\n",
                outcome.name,
                who.name(),
                samples.len(),
                rate.median,
                rate.min,
                rate.max,
                ratio.median,
                ratio.min,
                ratio.max
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ringwire: &[f64], net_vhost: &[f64], limit: f64) -> Outcome {
        let cell = Cell::all(false)[0];
        let rates = [
            (Who::Ringwire, ringwire.to_vec()),
            (Who::NetVhost, net_vhost.to_vec()),
            (Who::Reflect, vec![limit; ringwire.len()]),
        ];
        Outcome { name: cell.name(), cell, rates: rates.into() }
    }

    #[test]
    fn a_line_has_medians_ratios_and_a_warning() {
        let free = outcome(&[3e6, 2e6, 4e6], &[1e6, 2e6, 2e6], 9e6).line();
        assert_eq!(
            free.split_whitespace().collect::<Vec<_>>(),
            [
                "guest->NIC",
                "64",
                "split",
                "3.000",
                "2.000",
                "-",
                "-",
                "9.000",
                "2.00",
                "[1.00..3.00]",
                "-",
                "-"
            ]
        );
        assert!(outcome(&[3e6], &[1e6], 3.3e6).line().contains("3.300*"));
        assert!(outcome(&[1e6], &[3e6], 3.3e6).line().contains("3.300*"));
    }

    #[test]
    fn csv_has_a_line_a_backend() {
        let text = csv(&[outcome(&[3e6], &[2e6], 9e6)]);
        assert_eq!(text.lines().count(), 4);
        assert!(
            text.contains("\nguest->NIC 64 split,net_vhost,1,2000000,2000000,2000000,1.5000,1.5000,1.5000\n")
        );
        assert!(head().lines().count() == 1 && json(&[]).is_ok());
    }
}
