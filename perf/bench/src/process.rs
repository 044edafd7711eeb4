//! A program that serves frontends. It can be stopped (SIGSTOP) while others have their turn, so that programs share
//! a core, and starting up is part of no measurement.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Failure;
use crate::place::Place;

/// How long one may take to start.
const START: Duration = Duration::from_secs(30);
/// Lines of what it said that are shown when it fails.
const END: usize = 10;

/// A running program; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `arguments[0]` with the other arguments; what it says is kept under `name`.
    pub fn start(name: &str, arguments: &[String], place: &Place) -> Result<Process, Failure> {
        let log = place.directory.join(format!("{name}.log"));
        // Should this program be killed, they must not stay behind, and less so stopped.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(arguments);
        // DPDK and Open vSwitch leave run-time files behind: they go with the directory.
        for variable in ["RUNTIME_DIRECTORY", "OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
            command.env(variable, &place.directory);
        }
        let out = File::create(&log)?;
        command.env_remove("RUST_LOG").stdin(Stdio::piped()).stderr(out.try_clone()?).stdout(out);
        let child = command.spawn().map_err(|error| Failure(format!("setpriv: {error}")))?;
        Ok(Process { name: name.to_owned(), child, log })
    }

    /// Waits until it `is_ready`, which is told what the program has said.
    pub fn wait_until(&mut self, is_ready: impl Fn(&str) -> bool) -> Result<(), Failure> {
        let started = Instant::now();
        while !is_ready(&self.said()) {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failure(&format!("ended while starting ({status})")));
            }
            if started.elapsed() > START {
                return Err(self.failure("is not ready"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// All that it has said.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// An error about it, with the end of what it said.
    pub fn failure(&self, what: &str) -> Failure {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let end = lines[lines.len().saturating_sub(END)..].join("\n");
        Failure(format!("{} {what}; the end of what it said:\n{end}", self.name))
    }

    /// Says something at its prompt.
    pub fn say(&mut self, command: &str) -> Result<(), Failure> {
        let stdin =
            self.child.stdin.as_mut().ok_or_else(|| Failure(format!("{} has no prompt", self.name)))?;
        writeln!(stdin, "{command}").map_err(|_| self.failure(&format!("takes no {command:?}")))
    }

    /// It may run again.
    pub fn resume(&mut self) -> Result<(), Failure> {
        self.signal(Signal::SIGCONT)
    }

    /// It may not.
    pub fn pause(&mut self) -> Result<(), Failure> {
        self.signal(Signal::SIGSTOP)
    }

    /// Asks it to end, and waits until it has: what it had open (a NIC) can be opened again.
    pub fn stop(mut self) -> Result<(), Failure> {
        self.signal(Signal::SIGTERM)?;
        self.ended()
    }

    /// Waits until it has ended, which it was asked to.
    pub fn ended(mut self) -> Result<(), Failure> {
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > START {
                return Err(self.failure("does not end"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Result<(), Failure> {
        if let Some(status) = self.child.try_wait()? {
            return Err(self.failure(&format!("ended ({status})")));
        }
        // Not waited for, so the number is still this child's.
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
