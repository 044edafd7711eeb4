//! What the processor is vulnerable to, as the kernel sees it: guests are not trusted.

use super::{Finding, Setup, Severity};
use crate::host::Host;

const DIRECTORY: &str = "/sys/devices/system/cpu/vulnerabilities";

/// Vulnerabilities without a mitigation, those that only want a firmware's update first.
pub fn mitigations(host: &Host, _: &Setup) -> Vec<Finding> {
    let state = |name: String| {
        let state = host.read(&format!("{DIRECTORY}/{name}"))?;
        Some((name, state))
    };
    let all: Vec<(String, String)> = host.list(DIRECTORY).into_iter().filter_map(state).collect();
    let open: Vec<&(String, String)> =
        all.iter().filter(|(_, state)| state.starts_with("Vulnerable")).collect();
    let names =
        |of: &[&(String, String)]| of.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let (firmware, kernel): (Vec<_>, Vec<_>) =
        open.into_iter().partition(|(_, state)| state.to_lowercase().contains("microcode"));
    let mut findings = Vec::new();
    if !firmware.is_empty() {
        let found = format!("no microcode against: {}", names(&firmware));
        let fix = "update the firmware, or apt-get install intel-microcode or amd64-microcode, and boot anew";
        findings.push(Finding::bad("mitigations", Severity::Note, found, fix));
    }
    if !kernel.is_empty() {
        let found = format!("open: {}", names(&kernel));
        let fix = "update the kernel, and boot without mitigations=off, unless every guest is trusted";
        findings.push(Finding::bad("mitigations", Severity::Note, found, fix));
    }
    let mitigated = all.iter().filter(|(_, state)| state.starts_with("Mitigation")).count();
    if findings.is_empty() && !all.is_empty() {
        findings.push(Finding::ok("mitigations", format!("nothing is open; mitigated: {mitigated}")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_one, found};
    use super::*;

    #[test]
    fn open_ones_are_named() {
        let file = |name| format!("{DIRECTORY}/{name}");
        let (mds, ssb, v1) = (file("mds"), file("spec_store_bypass"), file("spectre_v1"));
        let good = [(mds.as_str(), "Not affected"), (v1.as_str(), "Mitigation: barriers")];
        assert_one(&found(mitigations, &[], &good), Severity::Ok, &["nothing is open; mitigated: 1"]);
        let bad = [
            (mds.as_str(), "Vulnerable: Clear CPU buffers attempted, no microcode"),
            (ssb.as_str(), "Vulnerable"),
        ];
        let found = found(mitigations, &[], &bad);
        assert_one(&found[..1], Severity::Note, &["against: mds", "intel-microcode"]);
        assert_one(&found[1..], Severity::Note, &["open: spec_store_bypass", "mitigations=off"]);
    }
}
