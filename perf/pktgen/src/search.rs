//! The throughput search of RFC 2544, 26.1.

use serde::Serialize;

use crate::engine::Outcome;
use crate::report::{TrialReport, pps};

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Part of the packets that may be lost.
    pub loss: f64,
    /// Stop when the span is this part of the lowest rate that failed.
    pub resolution: f64,
    /// More tries for a rate that failed.
    pub retries: u32,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// `NDR` or `PDR`.
    pub kind: &'static str,
    /// Part of the packets that was allowed to be lost.
    pub allowed_loss: f64,
    /// Whether the search came to its end.
    pub complete: bool,
    /// Packets a second of each sending port, the highest that passed; none if no rate did.
    pub rate_pps: Option<f64>,
    /// The lowest rate that failed.
    pub failed_pps: Option<f64>,
    /// All trials, in order.
    pub trials: Vec<TrialReport>,
    /// The trial that confirmed the rate.
    pub confirmed: Option<TrialReport>,
}

impl Found {
    /// The result in a line; frames are of `mean` bytes.
    pub fn summary(&self, mean: f64) -> String {
        let early = if self.complete { "" } else { "the search was ended early: " };
        let at_least = if self.complete { "" } else { "at least " };
        match self.rate_pps {
            Some(rate) => {
                let gbit = rate * mean * 8.0 / 1e9;
                let (kind, rate) = (self.kind, pps(rate));
                format!("{kind}: {early}{at_least}{rate} a port ({gbit:.3} Gbit/s of frames)")
            }
            None => format!("{}: {early}no rate passed", self.kind),
        }
    }
}

/// Packets offered, and of those not received, over all receivers. What was due and not sent is not received.
pub fn loss(outcomes: &[Outcome], sources: &[Option<usize>]) -> (u64, u64) {
    let pairs = outcomes.iter().zip(sources).filter_map(|(o, source)| Some((o, &outcomes[(*source)?])));
    pairs.fold((0, 0), |sum, (receiver, sender)| {
        let unique = receiver.counts.received - receiver.counts.duplicates;
        (sum.0 + sender.offered, sum.1 + sender.offered.saturating_sub(unique))
    })
}

/// One trial at a rate (`None`: line): its report, the rate at which each port really sent, offered and lost.
pub type Trial<'a> = dyn FnMut(Option<f64>) -> Option<(TrialReport, f64, u64, u64)> + 'a;

/// Searches. `say` gets a line for each trial. Ends early, with what it has, when a trial does.
pub fn search(goal: Goal, top: Option<f64>, trial: &mut Trial<'_>, say: &mut dyn FnMut(String)) -> Found {
    let kind = if goal.loss == 0.0 { "NDR" } else { "PDR" };
    let mut found = Found {
        kind,
        allowed_loss: goal.loss,
        complete: false,
        rate_pps: None,
        failed_pps: None,
        trials: Vec::new(),
        confirmed: None,
    };
    let mut one = |rate: Option<f64>, trials: &mut Vec<TrialReport>, say: &mut dyn FnMut(String)| {
        let (report, sent, offered, lost) = trial(rate)?;
        let ratio = if offered > 0 { lost as f64 / offered as f64 } else { 1.0 };
        let pass = offered > 0 && ratio <= goal.loss;
        say(format!(
            "trial {:>2}: {} offered {offered:>12}, lost {lost:>10} ({:.4}%): {}",
            trials.len() + 1,
            rate.map_or(format!("line = {:>13},", pps(sent)), |r| format!("{:>20},", pps(r))),
            ratio * 100.0,
            if pass { "pass" } else { "fail" }
        ));
        trials.push(report);
        Some((pass, sent, offered))
    };
    let Some((pass, sent, mut offered)) = one(top, &mut found.trials, say) else { return found };
    let high = top.unwrap_or(sent);
    let (mut low, mut fail) = if pass { (high, high) } else { (0.0, high) };
    (found.rate_pps, found.failed_pps) = if pass { (Some(high), None) } else { (None, Some(high)) };
    let resolution = goal.resolution.max(1e-6);
    // With fewer packets, one of them is more than the resolution: whatever is looked for is not there.
    while fail - low > resolution * fail && offered as f64 * resolution >= 1.0 {
        let rate = (low + fail) / 2.0;
        let mut passed = false;
        for _ in 0..=goal.retries {
            let Some((pass, _, due)) = one(Some(rate), &mut found.trials, say) else { return found };
            (passed, offered) = (pass, due);
            if pass {
                break;
            }
        }
        if passed {
            low = rate;
            found.rate_pps = Some(rate);
        } else {
            fail = rate;
            found.failed_pps = Some(rate);
        }
    }
    if low > 0.0 {
        // A line rate that passed is not repeated at a pace: it is what it is.
        let rate = if pass && top.is_none() { None } else { Some(low) };
        match one(rate, &mut found.trials, say) {
            Some((true, ..)) => found.confirmed = found.trials.last().cloned(),
            Some(_) => say("the confirming trial failed: this rate passed once, but is not stable".into()),
            None => return found,
        }
    }
    found.complete = true;
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A backend that forwards `capacity` packets a second, of a sender that can do `line`.
    fn find(capacity: f64, line: f64, top: Option<f64>, loss: f64) -> Found {
        let goal = Goal { loss, resolution: 0.01, retries: 0 };
        let mut trial = |rate: Option<f64>| {
            let rate = rate.unwrap_or(line);
            let lost = (rate - capacity).max(0.0);
            Some((TrialReport { rate_pps: Some(rate), ports: Vec::new() }, rate, rate as u64, lost as u64))
        };
        search(goal, top, &mut trial, &mut |_| ())
    }

    #[test]
    fn the_capacity_is_found_to_the_resolution() {
        for (capacity, line) in [(3.3e6, 10e6), (9.99e6, 10e6), (1e6, 10e6)] {
            let found = find(capacity, line, None, 0.0).rate_pps.expect("found");
            assert!(found <= capacity && found > capacity - 0.0101 * line, "{found} for {capacity}");
        }
    }

    #[test]
    fn a_backend_that_is_far_slower_than_the_frontend_is_found_as_exactly() {
        for capacity in [15e3, 1e3] {
            let found = find(capacity, 20e6, None, 0.0);
            let rate = found.rate_pps.expect("found");
            assert!(
                found.complete && rate < capacity + 1.0 && rate > capacity * 0.989,
                "{rate} for {capacity}"
            );
        }
    }

    #[test]
    fn a_search_that_is_ended_early_has_what_it_found() {
        let goal = Goal { loss: 0.0, resolution: 0.01, retries: 0 };
        let mut trials = 0;
        // 10 Mpps fail, 5 pass, 7.5 fail; ^C.
        let mut trial = |rate: Option<f64>| {
            trials += 1;
            let rate = rate.unwrap_or(10e6);
            let report = TrialReport { rate_pps: Some(rate), ports: Vec::new() };
            (trials < 4).then_some((report, rate, rate as u64, u64::from(rate > 6e6)))
        };
        let found = search(goal, None, &mut trial, &mut |_| ());
        assert_eq!((found.rate_pps, found.failed_pps), (Some(5e6), Some(7.5e6)));
        assert!(!found.complete && found.confirmed.is_none());
        let text = found.summary(64.0);
        assert_eq!(
            text,
            "NDR: the search was ended early: at least 5.000 Mpps a port (2.560 Gbit/s of frames)"
        );
    }

    #[test]
    fn a_backend_that_keeps_up_takes_two_trials() {
        let found = find(20e6, 10e6, None, 0.0);
        assert_eq!((found.rate_pps, found.trials.len()), (Some(10e6), 2));
        assert_eq!(find(20e6, 10e6, Some(5e6), 0.0).rate_pps, Some(5e6));
    }

    #[test]
    fn pdr_is_higher_than_ndr_and_nothing_is_nothing() {
        let ndr = find(5e6, 10e6, None, 0.0).rate_pps.expect("NDR");
        let pdr = find(5e6, 10e6, None, 0.1).rate_pps.expect("PDR");
        assert!(pdr > ndr && pdr <= 5e6 / 0.9);
        assert_eq!(find(0.0, 10e6, None, 0.0).rate_pps, None);
    }
}
