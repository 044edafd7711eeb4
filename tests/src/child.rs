//! A program under test: its log, its end, and what the kernel says about it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// A running child. Dropped, it is killed; in a failing test it shows the end of its log.
pub struct Child {
    name: String,
    process: Process,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts `command`, with its output in `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Child {
        let out = File::create(log).expect("a log file");
        let err = out.try_clone().expect("a log file");
        command.stdin(Stdio::piped()).stdout(out).stderr(err);
        let process = command.spawn().unwrap_or_else(|error| {
            let program = command.get_program().to_string_lossy();
            panic!("{program} cannot be started ({error}); tools/test installs what the tests need")
        });
        Child { name: name.to_owned(), process, log: log.to_owned(), ended: None }
    }

    /// Its standard input, for the caller to keep.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.process.stdin.take().expect("stdin is taken once")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("a signal to a child");
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().expect("wait for a child");
        }
        self.ended
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait::poll(limit, || self.ended())
    }

    /// `kill -9`, and reaped.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let _ = self.process.kill();
            self.ended = self.process.wait().ok();
        }
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.log_from(0)
    }

    /// What it has said from byte `start` on.
    pub fn log_from(&self, start: u64) -> String {
        let mut file = File::open(&self.log).expect("a log file");
        file.seek(SeekFrom::Start(start)).expect("a log file");
        let mut text = Vec::new();
        file.read_to_end(&mut text).expect("a log file");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Bytes it has said so far.
    pub fn log_len(&self) -> u64 {
        std::fs::metadata(&self.log).expect("a log file").len()
    }

    /// Open file descriptors.
    pub fn fds(&self) -> usize {
        self.count("fd")
    }

    /// Threads.
    pub fn threads(&self) -> usize {
        self.count("task")
    }

    fn count(&self, directory: &str) -> usize {
        std::fs::read_dir(format!("/proc/{}/{directory}", self.pid())).expect("a live child").count()
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// Resident memory of its own in KiB: of no file, and not shared.
    pub fn anonymous_kib(&self) -> u64 {
        self.memory_kib("RssAnon:")
    }

    fn memory_kib(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a live child");
        let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("a kernel that says it");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- {} said, at the end:", self.name);
            lines[lines.len().saturating_sub(40)..].iter().for_each(|line| eprintln!("    {line}"));
        }
    }
}
