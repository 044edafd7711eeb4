//! The workers' cores: there, alone, and without a busy sibling.

use super::{Finding, Setup, Severity, list};
use crate::host::{Host, cpu_list};

const CPU: &str = "/sys/devices/system/cpu";

fn kernel_list(host: &Host, file: &str) -> Vec<usize> {
    host.read(&format!("{CPU}/{file}")).map(|text| cpu_list(&text)).unwrap_or_default()
}

/// Cores that exist and are kept free of other threads and of the kernel's timer.
pub fn isolated(host: &Host, setup: &Setup) -> Vec<Finding> {
    if setup.cores.is_empty() {
        let found = "not looked at: ringwired cannot be asked for its cores";
        return vec![Finding::bad("cores", Severity::Note, found, "ringwire doctor --cores 1,2")];
    }
    let online = kernel_list(host, "online");
    let missing: Vec<usize> = setup.cores.iter().copied().filter(|core| !online.contains(core)).collect();
    if !missing.is_empty() {
        let found = format!("cores that are not online: {}", list(&missing));
        let fix = format!("[datapath] cores = [...] of those that are: {}", list(&online));
        return vec![Finding::bad("cores", Severity::Error, found, fix)];
    }
    let lacking = |file| -> Vec<usize> {
        let have = kernel_list(host, file);
        setup.cores.iter().copied().filter(|core| !have.contains(core)).collect()
    };
    let cores = list(&setup.cores);
    let mut findings = Vec::new();
    let shared = lacking("isolated");
    findings.push(match shared.is_empty() {
        true => Finding::ok("isolcpus", format!("worker cores are isolated: {cores}")),
        false => {
            let found = format!("any thread may run on worker cores {}, and delay packets", list(&shared));
            let fix =
                format!("boot with isolcpus=managed_irq,domain,{cores} nohz_full={cores} rcu_nocbs={cores}");
            Finding::bad("isolcpus", Severity::Warning, found, fix)
        }
    });
    let ticking = lacking("nohz_full");
    findings.push(match ticking.is_empty() {
        true => Finding::ok("nohz_full", format!("no timer tick while one thread runs: {cores}")),
        false => {
            let found =
                format!("the timer interrupts worker cores {} up to 1000 times a second", list(&ticking));
            let fix = format!("boot with nohz_full={cores} (a kernel with CONFIG_NO_HZ_FULL)");
            Finding::bad("nohz_full", Severity::Note, found, fix)
        }
    });
    if setup.cores.contains(&0) {
        let found = "core 0 is a worker's: it serves interrupts and much of the kernel's own work";
        findings.push(Finding::bad("cores", Severity::Note, found, "[datapath] cores: any but 0"));
    }
    findings
}

/// The other hardware threads of a worker's core take half of it away when they are busy.
pub fn siblings(host: &Host, setup: &Setup) -> Vec<Finding> {
    let isolated = kernel_list(host, "isolated");
    let mut findings = Vec::new();
    for core in &setup.cores {
        let threads = kernel_list(host, &format!("cpu{core}/topology/thread_siblings_list"));
        let others: Vec<usize> = threads.into_iter().filter(|thread| thread != core).collect();
        let workers: Vec<usize> =
            others.iter().copied().filter(|other| setup.cores.contains(other)).collect();
        let busy: Vec<usize> = others.iter().copied().filter(|other| !isolated.contains(other)).collect();
        if let Some(other) = workers.first().filter(|other| *other > core) {
            let found =
                format!("worker cores {core} and {other} are one physical core: each gets half of it");
            let fix = "[datapath] cores: one hardware thread of each physical core (lscpu -e)";
            findings.push(Finding::bad("SMT", Severity::Warning, found, fix));
        } else if let (true, Some(other)) = (workers.is_empty(), busy.first()) {
            let found =
                format!("worker core {core} shares its physical core with {other}, where anything may run");
            let fix = format!("echo 0 >{CPU}/cpu{other}/online, or isolate {other} as well");
            findings.push(Finding::bad("SMT", Severity::Note, found, fix));
        }
    }
    if findings.is_empty() && !setup.cores.is_empty() {
        findings.push(Finding::ok("SMT", "no worker shares its physical core with anything busy"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_one, found};
    use super::*;

    const ONLINE: (&str, &str) = ("/sys/devices/system/cpu/online", "0-3");
    const ISOLATED: (&str, &str) = ("/sys/devices/system/cpu/isolated", "2-3");
    const NOHZ: (&str, &str) = ("/sys/devices/system/cpu/nohz_full", "2-3");

    #[test]
    fn isolated_cores() {
        let good = found(isolated, &[2, 3], &[ONLINE, ISOLATED, NOHZ]);
        assert!(good.iter().all(|(severity, _)| *severity == Severity::Ok), "{good:?}");
        let bad = found(isolated, &[1, 2], &[ONLINE, ISOLATED, NOHZ]);
        assert_one(&bad[..1], Severity::Warning, &["worker cores 1,", "isolcpus=managed_irq,domain,1,2"]);
        assert_one(&bad[1..], Severity::Note, &["nohz_full=1,2"]);
        let zero = found(isolated, &[0], &[ONLINE]);
        assert_one(&zero[2..], Severity::Note, &["core 0"]);
        assert_one(&found(isolated, &[2, 9], &[ONLINE]), Severity::Error, &["not online: 9", "0,1,2,3"]);
        assert_one(&found(isolated, &[], &[ONLINE]), Severity::Note, &["--cores"]);
    }

    #[test]
    fn sibling_threads() {
        let pair = |core: usize| format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
        let (one, two, three) = (pair(1), pair(2), pair(3));
        let host = [ISOLATED, (one.as_str(), "1"), (two.as_str(), "2-3"), (three.as_str(), "2-3")];
        assert_one(&found(siblings, &[1], &host), Severity::Ok, &["no worker shares"]);
        assert_one(&found(siblings, &[2], &host), Severity::Ok, &["no worker shares"]);
        assert_one(&found(siblings, &[2, 3], &host), Severity::Warning, &["2 and 3 are one physical core"]);
        assert_one(
            &found(siblings, &[2], &host[1..]),
            Severity::Note,
            &["with 3", "echo 0 >", "cpu3/online"],
        );
    }
}
