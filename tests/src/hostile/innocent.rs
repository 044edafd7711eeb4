//! An innocent guest under continuous traffic, and the longest time it saw none.
//!
//! Its driver looks at the used rings all the time and notes every few milliseconds whether they moved. On a
//! busy machine neither it nor the worker runs all the time, and that is no fault of ringwire's. So off each pause
//! goes the time that the driver did not look, or the time that the worker was ready to run but had no core
//! (`run_delay`, the second number in the kernel's schedstat): the longer of the two, as they may overlap.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::bare_guest::{BareGuest, FROM, TO};
use crate::{cores, wait};

/// Time between two notes.
const PERIOD: Duration = Duration::from_millis(2);
/// Time the driver leaves the rings alone: they hold more than the worker moves in it.
const REST: Duration = Duration::from_micros(200);
/// After this time without a note the driver does not look.
const LOOK: Duration = Duration::from_millis(5);

/// A pause that lasts longer is not waited for.
const FOR_EVER: Duration = Duration::from_secs(2);

/// Pins the calling thread to the core that no worker polls.
pub fn leave_the_worker_alone() {
    let mut core = CpuSet::new();
    core.set(cores::other()).expect("a core");
    sched_setaffinity(Pid::from_raw(0), &core).expect("pinned");
}

/// How long nothing moved, in the worse of the two directions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pauses {
    /// The longest pause that is not the machine's.
    pub longest: Duration,
    /// The longest pause on the clock.
    pub on_the_clock: Duration,
    /// Packets that moved.
    pub packets: [u64; 2],
    /// How long it was to be looked at.
    pub watched: Duration,
    /// How much of that nobody looked.
    pub absent: Duration,
}

impl Pauses {
    /// Whether the driver ran often enough to tell anything.
    pub fn are_fair(&self) -> bool {
        self.absent * 2 < self.watched
    }
}

/// One direction, since packets moved last.
#[derive(Clone, Copy)]
struct Way {
    total: u64,
    since: Instant,
    /// How long nobody looked.
    absent: Duration,
    /// The worker's `run_delay` then.
    delay: Duration,
}

struct Watch {
    schedstat: Option<File>,
    noted: Instant,
    ways: [Way; 2],
    start: [u64; 2],
    seen: Pauses,
}

impl Watch {
    fn new(worker: &Path) -> Watch {
        let now = Instant::now();
        let way = Way { total: 0, since: now, absent: Duration::ZERO, delay: Duration::ZERO };
        let schedstat = File::open(worker.join("schedstat")).ok();
        Watch { schedstat, noted: now, ways: [way; 2], start: [0; 2], seen: Pauses::default() }
    }

    /// How long the worker has waited for its core in all; zero where the kernel does not count it.
    fn delay(&self) -> Duration {
        let mut text = [0; 64];
        let read = self.schedstat.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        let text = std::str::from_utf8(&text[..read]).unwrap_or_default();
        let nanos = text.split(' ').nth(1).and_then(|delay| delay.parse().ok());
        Duration::from_nanos(nanos.unwrap_or(0))
    }

    fn note(&mut self, totals: [u64; 2]) {
        let (now, delay) = (Instant::now(), self.delay());
        let step = now - self.noted;
        let absent = step.saturating_sub(LOOK);
        self.noted = now;
        self.seen.watched += step;
        self.seen.absent += absent;
        for (way, total) in self.ways.iter_mut().zip(totals) {
            way.absent += absent;
            // Only now: the kernel counts a wait when it is over.
            if way.total != total {
                let excused = way.absent.max(delay.saturating_sub(way.delay));
                let pause = now - way.since;
                self.seen.longest = self.seen.longest.max(pause.saturating_sub(excused));
                self.seen.on_the_clock = self.seen.on_the_clock.max(pause);
                *way = Way { total, since: now, absent: Duration::ZERO, delay };
            }
        }
    }

    /// Packets that moved since `start`.
    fn moved(&self, start: [u64; 2]) -> [u64; 2] {
        [0, 1].map(|way| self.ways[way].total - start[way])
    }
}

/// The guest, kept full by a thread of its own.
pub struct Innocent {
    stop: Arc<AtomicBool>,
    watch: Arc<Mutex<Watch>>,
    thread: JoinHandle<BareGuest>,
}

fn lock(watch: &Mutex<Watch>) -> MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Innocent {
    /// Connects a guest, starts its rings, and keeps them full. `worker` is its worker's directory in /proc.
    pub fn start(socket: &Path, worker: &Path) -> Innocent {
        let mut guest = BareGuest::connect(socket, 64);
        [TO, FROM].into_iter().for_each(|index| guest.start_ring(index, 0));
        let (stop, watch) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Watch::new(worker))));
        let (stopped, noted) = (stop.clone(), watch.clone());
        let thread = std::thread::spawn(move || {
            leave_the_worker_alone();
            while !stopped.load(Ordering::Relaxed) {
                guest.turn();
                let mut watch = lock(&noted);
                if watch.noted.elapsed() >= PERIOD {
                    watch.note([TO, FROM].map(|index| guest.rings[index].total));
                }
                drop(watch);
                std::thread::sleep(REST);
            }
            guest
        });
        Innocent { stop, watch, thread }
    }

    /// Forgets what was seen so far.
    pub fn reset(&self) {
        let mut watch = lock(&self.watch);
        let (now, delay) = (Instant::now(), watch.delay());
        watch.start = watch.ways.map(|way| way.total);
        watch.seen = Pauses::default();
        watch.noted = now;
        watch.ways = watch.ways.map(|way| Way { since: now, absent: Duration::ZERO, delay, ..way });
    }

    /// What was seen since then. A pause that is not over by now is waited for, though not for ever.
    pub fn pauses(&self) -> Pauses {
        let start = lock(&self.watch).ways.map(|way| way.total);
        let over = || (!lock(&self.watch).moved(start).contains(&0)).then_some(());
        let over = wait::poll(FOR_EVER, over);
        let watch = lock(&self.watch);
        let mut pauses = Pauses { packets: watch.moved(watch.start), ..watch.seen };
        if over.is_none() {
            pauses.longest = FOR_EVER;
        }
        pauses
    }

    /// Leaves the rings as they are, and gives the guest back.
    pub fn end(self) -> BareGuest {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the innocent guest")
    }
}
