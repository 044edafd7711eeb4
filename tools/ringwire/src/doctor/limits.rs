//! Limits of ringwired's process, or of this one where it does not run: what is started from here has the same.

use super::{Finding, Setup, Severity};
use crate::host::Host;
use crate::units::memory;

/// Below this DPDK's and guests' memory cannot be locked for a device.
const LOCKED: u64 = 1 << 30;
/// Each guest takes a few descriptors for each queue and each region of memory.
const FILES: u64 = 4096;

/// Locked memory, and open files.
pub fn limits(host: &Host, setup: &Setup) -> Vec<Finding> {
    let of = setup.pid.map_or("self".to_owned(), |pid| pid.to_string());
    let whose = if setup.pid.is_some() { "ringwired's" } else { "this shell's" };
    let Some(limits) = host.read(&format!("/proc/{of}/limits")) else {
        let found = "ringwired's limits cannot be read";
        return vec![Finding::bad("limits", Severity::Note, found, "run this as root, on ringwired's host")];
    };
    // "Max open files   1024   524288   files": the soft limit counts.
    let soft = |name: &str| {
        let value = limits.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        value.map(|value| value.parse().unwrap_or(u64::MAX))
    };
    let mut findings = Vec::new();
    if let Some(locked) = soft("Max locked memory") {
        // Root is not bound by it (CAP_IPC_LOCK).
        let root =
            host.read(&format!("/proc/{of}/status")).is_some_and(|status| status.contains("Uid:\t0\t0"));
        findings.push(match locked {
            u64::MAX => Finding::ok("memlock", "unlimited"),
            LOCKED.. => Finding::ok("memlock", memory(locked)),
            _ if root => Finding::ok("memlock", format!("{}, by which root is not bound", memory(locked))),
            _ => {
                let found = format!("{whose} limit is {}: vfio cannot map memory for a NIC", memory(locked));
                let fix = "LimitMEMLOCK=infinity in ringwired's unit, or ulimit -l unlimited";
                Finding::bad("memlock", Severity::Warning, found, fix)
            }
        });
    }
    if let Some(files) = soft("Max open files") {
        findings.push(match files {
            FILES.. => Finding::ok("nofile", format!("{whose} limit is {files}")),
            _ => {
                let found = format!("{whose} limit is {files} open files: enough for a few guests");
                let fix = "LimitNOFILE=65536 in ringwired's unit, or ulimit -n 65536";
                Finding::bad("nofile", Severity::Warning, found, fix)
            }
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_one, found, found_with};
    use super::*;

    fn text(locked: &str, files: &str) -> String {
        format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max open files            {files}                 524288               files     \n\
             Max locked memory         {locked}              8388608              bytes     \n"
        )
    }

    #[test]
    fn enough_or_not() {
        let good = found(limits, &[], &[("/proc/self/limits", &text("unlimited", "65536"))]);
        assert_one(&good[..1], Severity::Ok, &["unlimited"]);
        assert_one(&good[1..], Severity::Ok, &["65536"]);
        let low = text("8388608", "1024");
        let bad = found(limits, &[], &[("/proc/self/limits", &low)]);
        assert_one(&bad[..1], Severity::Warning, &["8 MiB", "LimitMEMLOCK=infinity"]);
        assert_one(&bad[1..], Severity::Warning, &["this shell's limit is 1024", "LimitNOFILE=65536"]);
        let setup = Setup { pid: Some(77), ..Setup::default() };
        let root = [("/proc/77/limits", low.as_str()), ("/proc/77/status", "Name:\tx\nUid:\t0\t0\t0\t0\n")];
        let found = found_with(limits, &setup, &root);
        assert_one(&found[..1], Severity::Ok, &["root is not bound"]);
        assert_one(&found[1..], Severity::Warning, &["ringwired's limit is 1024"]);
        assert_one(&found_with(limits, &setup, &[]), Severity::Note, &["cannot be read"]);
    }
}
