//! Who runs where: `ringwired`'s worker polls the last core there is, testpmd the first.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("the cores of this process");
    (0..CpuSet::count()).filter(|core| set.is_set(*core) == Ok(true)).collect()
}

/// The core for a worker.
pub fn worker() -> usize {
    *allowed().last().expect("a core")
}

/// The core for everything else that polls.
pub fn other() -> usize {
    *allowed().first().expect("a core")
}

/// All there are, as `ringwired` writes them: `0-3, 6`.
pub fn all() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("its cores");
    list.trim().replace(',', ", ")
}
