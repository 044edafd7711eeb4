//! The daemon with an innocent guest under load and a hostile one, one case after the other, and a table of
//! what came of each.
//!
//! Around each case: the innocent guest's packets do not pause for longer than [`LIMIT`] in either direction;
//! afterwards the daemon lives and has as many file descriptors, threads and as much memory as before, its
//! warnings name the hostile guest and the expected cause, and a well-behaved frontend on the hostile guest's
//! socket passes traffic. A case that fails gets a fresh daemon behind it, so that each stands for itself.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use snapshot::Port;

use super::guest::Hostile;
use super::innocent::{Innocent, Pauses, leave_the_worker_alone};
use crate::bare_guest::{BareGuest, FROM, TO};
use crate::daemon::{Daemon, assert_balanced, guest};
use crate::scene::Scene;
use crate::wait;

/// Longest pause of the innocent guest's packets.
pub const LIMIT: Duration = Duration::from_millis(100);
/// So often is a case tried whose only fault is a pause, which a busy machine makes too.
const TRIES: u32 = 3;
/// Packets each way that a well-behaved guest must see.
const ENOUGH: u64 = 300;
/// Idle threads of the API's status pool come and go.
const THREADS_SLACK: usize = 4;
/// Memory of the daemon's own may go up by this much over all cases, in KiB: the allocator keeps some.
const RESIDENT_SLACK: u64 = 1024;

/// The hostile guest's name.
const HOSTILE: &str = "mallory";
/// The innocent guest's.
const INNOCENT: &str = "alice";
/// One that is not connected, unless a case tries whether it can.
const THIRD: &str = "bob";

/// What a case must leave in the daemon's log at WARN and above.
#[derive(Clone, Copy, Debug)]
pub enum Log<'a> {
    /// A line with each of these texts, and any others about the hostile guest.
    Says(&'a [&'a str]),
    /// Nothing.
    Silent,
    /// Lines about the hostile guest, or none.
    Any,
}

/// The daemon as a case sees it.
pub struct Bench {
    /// The daemon; it goes before its directory does.
    pub daemon: Daemon,
    scene: Scene,
}

impl Bench {
    fn start() -> Bench {
        let mut scene = Scene::new();
        scene.nic("wire1", "net_null0,size=64,copy=1", 1, "");
        // Longer frames than the small receive buffers of some cases.
        scene.nic("wire2", "net_null1,size=1500,copy=1", 2, "");
        scene.guest(INNOCENT, "wire1", 1);
        scene.guest(HOSTILE, "wire2", 2);
        scene.guest(THIRD, "none", 1);
        let daemon = scene.start();
        Bench { daemon, scene }
    }

    /// The hostile guest's socket.
    pub fn socket(&self) -> PathBuf {
        self.scene.socket(HOSTILE)
    }

    /// A path for a file of the case's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scene.path(name)
    }

    /// The hostile guest's port.
    pub fn port(&self) -> Port {
        self.daemon.port(HOSTILE)
    }

    /// What the API says about a violation on ring `index`.
    pub fn violation(&self, index: usize) -> Option<String> {
        guest(&self.port()).queues[index].violation.clone()
    }

    /// How often ring `index` has been stopped for a violation.
    pub fn violations(&self, index: usize) -> u64 {
        guest(&self.port()).queues[index].violations.values().sum()
    }

    /// A frontend of a third guest connects, has its memory mapped, and goes.
    ///
    /// # Panics
    /// If it cannot.
    pub fn assert_admits_others(&self) {
        drop(BareGuest::connect(&self.scene.socket(THIRD), 64));
        self.daemon.wait_connected(THIRD, false);
    }

    /// Waits until no frontend is connected to the hostile guest's socket.
    pub fn wait_gone(&self) {
        self.daemon.wait_connected(HOSTILE, false);
    }

    /// A well-behaved frontend connects, sees packets both ways, and goes.
    ///
    /// # Panics
    /// If it does not see them, or not as it should.
    pub fn assert_serves_others(&self) {
        let mut guest = BareGuest::connect(&self.socket(), 64);
        [TO, FROM].into_iter().for_each(|index| guest.start_ring(index, 0));
        wait::until("a well-behaved guest sees packets both ways", 10, || {
            guest.turn();
            let totals = [TO, FROM].map(|index| guest.rings[index].total);
            if totals.iter().all(|total| *total >= ENOUGH) { Ok(()) } else { Err(format!("{totals:?}")) }
        });
        assert_eq!([&guest.rings[TO].wrong, &guest.rings[FROM].wrong], [&[""; 0], &[""; 0]]);
        drop(guest);
        self.wait_gone();
    }

    fn complaints(&self) -> Vec<String> {
        let complaints = self.daemon.complaints();
        // Lines about lines come later, in some other case.
        let others = ["every core this process may use", "more lines like this suppressed"];
        complaints.into_iter().filter(|line| !others.iter().any(|other| line.contains(other))).collect()
    }

    /// The worker's directory in /proc.
    fn worker(&self) -> PathBuf {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.daemon.child.pid()));
        let threads = std::fs::read_dir(tasks).expect("a live daemon").flatten().map(|entry| entry.path());
        let is_worker = |path: &PathBuf| {
            std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("worker:"))
        };
        threads.into_iter().find(is_worker).expect("a worker thread")
    }

    fn level(&self) -> Level {
        let child = &self.daemon.child;
        let proc =
            |file| std::fs::read_to_string(format!("/proc/{}/{file}", child.pid())).expect("a live daemon");
        let status = proc("status");
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
        let resident = anonymous.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        // What frontends give us is not linked, or not any more.
        let mappings = proc("maps").lines().filter(|line| line.contains("(deleted)")).count();
        Level { fds: child.fds(), threads: child.threads(), mappings, resident }
    }
}

/// What a case may leave behind.
#[derive(Clone, Copy, Debug)]
struct Level {
    fds: usize,
    threads: usize,
    /// Mappings of files without a name: guests' memory, and DPDK's.
    mappings: usize,
    /// Resident memory of the daemon's own, in KiB; guests' memory comes and goes with what is touched.
    resident: u64,
}

/// Why a case failed.
enum Failure {
    /// The innocent guest's packets paused for too long; nothing else was wrong.
    Paused(String),
    /// Something else.
    Wrong(String),
}

/// A test's cases, one after the other.
pub struct Stage {
    bench: Bench,
    innocent: Innocent,
    idle: Level,
    cases: usize,
    longest: Duration,
    failed: Vec<String>,
}

impl Stage {
    /// Starts a daemon and the innocent guest, and a table under `title`.
    pub fn start(title: &str) -> Stage {
        println!("{title}\nrow | what is sent -> what ringwire does | longest pause of the innocent guest");
        let (bench, innocent, idle) = Stage::fresh();
        Stage { bench, innocent, idle, cases: 0, longest: Duration::ZERO, failed: Vec::new() }
    }

    fn fresh() -> (Bench, Innocent, Level) {
        let bench = Bench::start();
        let innocent = Innocent::start(&bench.scene.socket(INNOCENT), &bench.worker());
        // What is opened and allocated once, at the first guest and the first call, is so now.
        bench.assert_serves_others();
        Hostile::running(&bench.socket(), 0).assert_serves();
        bench.wait_gone();
        let looks = (0..20).map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            bench.level()
        });
        let idle = looks.min_by_key(|level| level.fds).expect("twenty looks");
        (bench, innocent, idle)
    }

    /// A line of the table for something that is not tried.
    pub fn skip(&mut self, row: &str, sent: &str, why: &str) {
        println!("{row} | {sent} -> skipped: {why} | -");
    }

    /// Runs a case and adds its line: the inputs' row, what is sent, and what `run` says that ringwire did. The
    /// case runs on a thread away from the worker's core, and may panic.
    pub fn case(&mut self, row: &str, sent: &str, log: Log<'_>, run: impl Fn(&Bench) -> String + Sync) {
        self.cases += 1;
        for attempt in 1..=TRIES {
            let before = self.bench.complaints().len();
            self.innocent.reset();
            let outcome = self.attempt(&run);
            let pauses = self.innocent.pauses();
            let verdict = outcome.map_err(Failure::Wrong).and_then(|did| {
                let said = self.check_log(before, log).map_err(Failure::Wrong)?;
                self.check_level().map_err(Failure::Wrong)?;
                check_pauses(&pauses, attempt < TRIES).map_err(Failure::Paused)?;
                Ok([Some(did), said].into_iter().flatten().collect::<Vec<_>>().join("; "))
            });
            let tries = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
            let pause = format!("{} ms{tries}", pauses.longest.as_millis());
            match verdict {
                Ok(did) => {
                    let unfair = if pauses.are_fair() { "" } else { ", the machine was too busy to tell" };
                    println!("{row} | {sent} -> {did} | {pause}{unfair}");
                    self.longest = self.longest.max(pauses.longest);
                    return;
                }
                Err(Failure::Paused(why)) if attempt < TRIES => {
                    println!("{row} | {sent} -> tried again: {why} | {pause}");
                    self.restart();
                }
                Err(Failure::Paused(why) | Failure::Wrong(why)) => {
                    println!("{row} | {sent} -> FAILED: {why} | {pause}");
                    self.failed.push(format!("{row}: {sent}: {why}"));
                    self.restart();
                    return;
                }
            }
        }
    }

    fn attempt(&self, run: &(impl Fn(&Bench) -> String + Sync)) -> Result<String, String> {
        let bench = &self.bench;
        let whole = || {
            leave_the_worker_alone();
            let did = run(bench);
            bench.wait_gone();
            bench.assert_serves_others();
            did
        };
        std::thread::scope(|scope| scope.spawn(whole).join()).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned()
        })
    }

    /// What was logged, shortened; `Err` if it is not as expected.
    fn check_log(&self, before: usize, log: Log<'_>) -> Result<Option<String>, String> {
        let lines = self.bench.complaints().split_off(before);
        let named = format!("port=\"{HOSTILE}\"");
        if let Some(line) = lines.iter().find(|line| !(line.contains(" WARN ") && line.contains(&named))) {
            return Err(format!("does not name {HOSTILE}, or is worse than a warning: {line}"));
        }
        let missing = |text: &&&str| !lines.iter().any(|line| line.contains(**text));
        match log {
            Log::Says(texts) if texts.iter().any(|text| missing(&text)) => {
                Err(format!("expected {texts:?} in the log, found {lines:?}"))
            }
            Log::Silent if !lines.is_empty() => Err(format!("expected nothing in the log, found {lines:?}")),
            _ => Ok(lines.first().map(|line| {
                let cause = line.split_once(" WARN ").map_or(line.as_str(), |(_, rest)| rest);
                let cause = cause.split_once(": ").map_or(cause, |(_, rest)| rest).replace(&named, "");
                let more = if lines.len() > 1 { format!(" (+{})", lines.len() - 1) } else { String::new() };
                format!("log: {}{more}", cause.split_whitespace().collect::<Vec<_>>().join(" "))
            })),
        }
    }

    fn check_level(&self) -> Result<(), String> {
        let Level { fds, threads, mappings, resident } = self.idle;
        let settled = || {
            let now = self.bench.level();
            let level = (now.fds, now.mappings) == (fds, mappings)
                && now.threads <= threads + THREADS_SLACK
                && now.resident <= resident + RESIDENT_SLACK;
            level.then_some(())
        };
        let end = wait::poll(Duration::from_secs(2), settled);
        end.ok_or_else(|| format!("left behind: {:?}, before: {:?}", self.bench.level(), self.idle))
    }

    fn restart(&mut self) {
        self.bench.daemon.child.kill();
        let (bench, innocent, idle) = Stage::fresh();
        self.bench = bench;
        drop(std::mem::replace(&mut self.innocent, innocent).end());
        self.idle = idle;
    }

    /// Ends the table. All packets are accounted for, and the daemon stops cleanly.
    ///
    /// # Panics
    /// If a case has failed, or any of this is not so.
    pub fn finish(mut self) {
        let alice = self.innocent.end();
        for ring in &alice.rings {
            assert_eq!(ring.wrong, [""; 0], "the innocent guest's used entries");
        }
        drop(alice);
        let daemon = &mut self.bench.daemon;
        daemon.wait_connected(INNOCENT, false);
        assert_balanced(daemon, INNOCENT, "wire1");
        assert_balanced(daemon, HOSTILE, "wire2");
        assert!(daemon.stop(Duration::from_secs(5)).success());
        let Stage { cases, longest, failed, .. } = self;
        println!("{cases} cases, longest pause {} ms", longest.as_millis());
        assert!(failed.is_empty(), "{} of {cases} failed:\n{}", failed.len(), failed.join("\n"));
    }
}

/// `again`: whether the case can be tried again where the machine was too busy to tell.
fn check_pauses(pauses: &Pauses, again: bool) -> Result<(), String> {
    let Pauses { longest, on_the_clock, packets, watched, absent } = pauses;
    if *longest > LIMIT {
        return Err(format!("a pause of {longest:?} ({on_the_clock:?} on the clock)"));
    }
    if again && !pauses.are_fair() {
        return Err(format!("nobody looked for {absent:?} of {watched:?}"));
    }
    if packets.contains(&0) {
        return Err(format!("packets to and from the innocent guest: {packets:?}"));
    }
    Ok(())
}

/// Runs `step` over and over for `time`; how often.
pub fn repeat(time: Duration, mut step: impl FnMut(u64)) -> u64 {
    let end = Instant::now() + time;
    let mut count = 0;
    while Instant::now() < end {
        step(count);
        count += 1;
    }
    count
}

/// Runs `beside` over and over on a thread of its own, away from the worker's core, while `run` runs.
pub fn meanwhile<T>(mut beside: impl FnMut(u64) + Send, run: impl FnOnce() -> T) -> T {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            leave_the_worker_alone();
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                beside(round);
                round += 1;
            }
        });
        // Also when `run` panics.
        let _stop = Stop(&stop);
        run()
    })
}
