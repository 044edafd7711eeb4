//! A thread of a program under test: does it sleep, and how much has it run?

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// A thread, by its name.
pub struct Thread(PathBuf);

impl Thread {
    /// The thread called `name` of process `pid`.
    ///
    /// # Panics
    /// If there is none.
    pub fn find(pid: u32, name: &str) -> Thread {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a live process");
        let mut tasks = tasks.map(|task| task.expect("a thread").path());
        // The kernel cuts a name to 15 bytes.
        let found = tasks
            .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name));
        Thread(found.unwrap_or_else(|| panic!("no thread of process {pid} is called {name}")))
    }

    /// Whether it waits for something.
    pub fn sleeps(&self) -> bool {
        let stat = fs::read_to_string(self.0.join("stat")).expect("a live thread");
        // The name, in brackets, may have blanks.
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
    }

    /// How often it has gone to sleep so far.
    pub fn slept(&self) -> u64 {
        let status = fs::read_to_string(self.0.join("status")).expect("a live thread");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse().ok()).unwrap_or_else(|| panic!("no count in {status}"))
    }

    /// For how long it has run, by the scheduler's own clock.
    pub fn ran(&self) -> Duration {
        let text = fs::read_to_string(self.0.join("schedstat")).expect("a kernel that keeps schedstat");
        let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
        Duration::from_nanos(nanoseconds.unwrap_or_else(|| panic!("schedstat says {text:?}")))
    }
}
