//! Clock frequency and idle states of the workers' cores, or of all where they are not known.

use super::{Finding, Setup, Severity, list};
use crate::host::{Host, cpu_list};

const CPU: &str = "/sys/devices/system/cpu";
/// A core may take so long to wake, in microseconds, before it is worth a word.
const QUICK: u64 = 10;

fn cores(host: &Host, setup: &Setup) -> Vec<usize> {
    match setup.cores.is_empty() {
        false => setup.cores.clone(),
        true => host.read(&format!("{CPU}/online")).map(|text| cpu_list(&text)).unwrap_or_default(),
    }
}

/// Full speed all the time.
pub fn governor(host: &Host, setup: &Setup) -> Vec<Finding> {
    let of = |core: &usize| host.read(&format!("{CPU}/cpu{core}/cpufreq/scaling_governor"));
    let known: Vec<(usize, String)> =
        cores(host, setup).iter().filter_map(|core| Some((*core, of(core)?))).collect();
    if known.is_empty() {
        return vec![Finding::ok("governor", "the clock is not the kernel's to set here")];
    }
    let slow: Vec<usize> =
        known.iter().filter(|(_, governor)| governor != "performance").map(|(core, _)| *core).collect();
    let governor = known.iter().map(|(_, governor)| governor).find(|governor| *governor != "performance");
    vec![match governor {
        None => Finding::ok("governor", "performance"),
        Some(governor) => {
            let severity = if setup.cores.is_empty() { Severity::Note } else { Severity::Warning };
            let cores = list(&slow);
            let found = format!("{governor} on cores {cores}: they may run below their full clock");
            let fix = format!("cpupower -c {cores} frequency-set -g performance");
            Finding::bad("governor", severity, found, fix)
        }
    }]
}

/// Deep idle states matter to workers that sleep (`idle = "adaptive"`), and to guests.
pub fn idle_states(host: &Host, setup: &Setup) -> Vec<Finding> {
    let mut slowest: Option<(u64, String, usize)> = None;
    for core in cores(host, setup) {
        let parent = format!("{CPU}/cpu{core}/cpuidle");
        for state in host.list(&parent) {
            let read = |file| host.read(&format!("{parent}/{state}/{file}"));
            let latency = read("latency").and_then(|latency| latency.parse().ok()).unwrap_or(0);
            let enabled = read("disable").as_deref() != Some("1");
            if enabled && latency > slowest.as_ref().map_or(QUICK, |(most, ..)| *most) {
                slowest = Some((latency, read("name").unwrap_or(state), core));
            }
        }
    }
    vec![match slowest {
        None => Finding::ok("C-states", format!("every core wakes within {QUICK} us")),
        Some((latency, name, core)) => {
            let found = format!(
                "{name} is allowed: core {core} takes {latency} us to wake (no matter to workers with idle = \"poll\")"
            );
            let fix = format!(
                "cpupower idle-set -D {QUICK}, or intel_idle.max_cstate=1 on the kernel command line"
            );
            Finding::bad("C-states", Severity::Note, found, fix)
        }
    }]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_one, found};
    use super::*;

    #[test]
    fn governors() {
        let host = [
            ("/sys/devices/system/cpu/online", "0-2"),
            ("/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n"),
            ("/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "powersave\n"),
        ];
        assert_one(&found(governor, &[1], &host), Severity::Ok, &["performance"]);
        assert_one(&found(governor, &[0], &host), Severity::Ok, &["not the kernel's"]);
        let bad = found(governor, &[1, 2], &host);
        assert_one(
            &bad,
            Severity::Warning,
            &["powersave on cores 2", "cpupower -c 2 frequency-set -g performance"],
        );
        assert_one(&found(governor, &[], &host), Severity::Note, &["powersave on cores 2"]);
    }

    #[test]
    fn deep_idle_states() {
        let host = |disable| {
            [
                ("/sys/devices/system/cpu/cpu1/cpuidle/state0/latency", "0"),
                ("/sys/devices/system/cpu/cpu1/cpuidle/state0/disable", "0"),
                ("/sys/devices/system/cpu/cpu1/cpuidle/state3/name", "C6"),
                ("/sys/devices/system/cpu/cpu1/cpuidle/state3/latency", "133"),
                ("/sys/devices/system/cpu/cpu1/cpuidle/state3/disable", disable),
            ]
        };
        assert_one(&found(idle_states, &[1], &host("1")), Severity::Ok, &["within 10 us"]);
        let bad = found(idle_states, &[1], &host("0"));
        assert_one(&bad, Severity::Note, &["C6 is allowed", "133 us", "cpupower idle-set -D 10"]);
    }
}
