//! `ringwire doctor`: is this host set up for polling workers, DPDK and guests? Each check reads /proc and /sys, and
//! gives the exact fix for what it finds.

mod cores;
mod iommu;
mod limits;
mod memory;
mod mitigations;
mod nics;
mod numa;
mod power;

use std::path::Path;

use serde::Serialize;
use snapshot::Status;

use crate::client;
use crate::host::Host;
use crate::table::Table;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// It works, but not as well as this host could.
    Warning,
    /// It cannot work.
    Error,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: a name that scripts may rely on.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, in one line.
    pub found: String,
    /// What to do about it: commands, or settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Finding {
        Finding { check, severity: Severity::Ok, found: found.into(), fix: None }
    }

    fn bad(
        check: &'static str,
        severity: Severity,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding { check, severity, found: found.into(), fix: Some(fix.into()) }
    }
}

/// What ringwired uses of this host, or is to use.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Cores of its workers.
    pub cores: Vec<usize>,
    /// PCI addresses of its NICs.
    pub nics: Vec<String>,
    /// Its process, if it runs.
    pub pid: Option<u32>,
}

type CheckFn = fn(&Host, &Setup) -> Vec<Finding>;

const CHECKS: [CheckFn; 11] = [
    memory::hugepages,
    memory::transparent,
    iommu::iommu,
    nics::drivers,
    numa::distances,
    cores::isolated,
    cores::siblings,
    power::governor,
    power::idle_states,
    limits::limits,
    mitigations::mitigations,
];

#[derive(Serialize)]
struct Report {
    severity: Severity,
    cores: Vec<usize>,
    findings: Vec<Finding>,
}

/// The report, and the exit status: 0 nothing but notes, 1 warnings, 4 errors (2 and 3 mean something else already).
pub fn run(api: &Path, cores: &[usize], json: bool) -> (String, u8) {
    let status = client::get(api, "/v1/status").ok().and_then(|body| serde_json::from_str(&body).ok());
    let mut setup = status.as_ref().map(used).unwrap_or_default();
    if !cores.is_empty() {
        setup.cores = cores.to_vec();
    }
    let host = Host::real();
    let findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(&host, &setup)).collect();
    let severity = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
    let status = match severity {
        Severity::Ok | Severity::Note => 0,
        Severity::Warning => 1,
        Severity::Error => 4,
    };
    let report = Report { severity, cores: setup.cores, findings };
    (if json { as_json(&report) } else { as_text(&report) }, status)
}

/// What a running ringwired uses. Its own word is the best there is.
fn used(status: &Status) -> Setup {
    let nics = status.ports.iter().filter_map(|port| port.nic.as_ref()).map(|nic| nic.device.clone());
    Setup {
        cores: status.workers.iter().map(|worker| worker.core).collect(),
        nics: nics.filter(|device| nics::is_address(device)).collect(),
        pid: Some(status.pid),
    }
}

fn as_json(report: &Report) -> String {
    let text =
        serde_json::to_string_pretty(report).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"));
    format!("{text}\n")
}

fn as_text(report: &Report) -> String {
    let name = |severity| match severity {
        Severity::Ok => "ok",
        Severity::Note => "note",
        Severity::Warning => "WARNING",
        Severity::Error => "ERROR",
    };
    let mut table = Table::new(0).words(&["", "", ""]);
    for Finding { check, severity, found, .. } in &report.findings {
        table.row(vec![name(*severity).to_owned(), (*check).to_owned(), found.clone()]);
    }
    let mut text = String::new();
    for (line, finding) in table.to_string().lines().zip(&report.findings) {
        text.push_str(&format!("{line}\n"));
        if let Some(fix) = &finding.fix {
            text.push_str(&format!("         -> {fix}\n"));
        }
    }
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    format!("{text}\nerrors: {errors}, warnings: {warnings}, notes: {}\n", count(Severity::Note))
}

/// `1,3-5` of numbers in rising order.
fn list(numbers: &[usize]) -> String {
    let texts: Vec<String> = numbers.iter().map(usize::to_string).collect();
    texts.join(",")
}

#[cfg(test)]
mod testing {
    use super::*;
    use crate::host::made_up::MadeUp;

    /// What `check` finds on a made-up host whose workers have these cores: severity and text, fix included.
    pub fn found(check: CheckFn, cores: &[usize], files: &[(&str, &str)]) -> Vec<(Severity, String)> {
        let setup = Setup { cores: cores.to_vec(), ..Setup::default() };
        found_with(check, &setup, files)
    }

    /// The same with more than cores.
    pub fn found_with(check: CheckFn, setup: &Setup, files: &[(&str, &str)]) -> Vec<(Severity, String)> {
        let made = MadeUp::new(files);
        let findings = check(&made.host(), setup);
        let text = |finding: Finding| {
            let fix = finding.fix.map_or(String::new(), |fix| format!(" -> {fix}"));
            (finding.severity, format!("{}{fix}", finding.found))
        };
        findings.into_iter().map(text).collect()
    }

    /// Asserts that there is one finding, of this severity, with all of `words`.
    #[track_caller]
    pub fn assert_one(found: &[(Severity, String)], severity: Severity, words: &[&str]) {
        let [(found_severity, text)] = found else { panic!("not one: {found:?}") };
        assert_eq!(*found_severity, severity, "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "not all of {words:?} in: {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_anything_gives_findings_and_no_panic() {
        let made = crate::host::made_up::MadeUp::new(&[]);
        let setup = Setup { cores: vec![1], nics: vec!["0000:03:00.0".into()], pid: Some(7) };
        for check in CHECKS {
            for setup in [&setup, &Setup::default()] {
                let findings = check(&made.host(), setup);
                assert!(findings.iter().all(|finding| !finding.found.contains('\n')));
                assert!(
                    findings.iter().all(|finding| finding.severity == Severity::Ok || finding.fix.is_some())
                );
            }
        }
    }

    #[test]
    fn text_and_json_tell_the_same() {
        let findings =
            vec![Finding::ok("a", "fine"), Finding::bad("b", Severity::Warning, "bad", "echo 1 >/sys/x")];
        let report = Report { severity: Severity::Warning, cores: vec![1], findings };
        let text = "ok       a  fine\nWARNING  b  bad\n         -> echo 1 >/sys/x\n\nerrors: 0, warnings: 1, notes: 0\n";
        assert_eq!(as_text(&report), text);
        let json: serde_json::Value = serde_json::from_str(&as_json(&report)).unwrap();
        assert_eq!(json["severity"], "warning");
        assert_eq!(json["findings"][1]["fix"], "echo 1 >/sys/x");
    }
}
