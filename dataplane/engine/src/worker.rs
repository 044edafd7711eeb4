//! Workers: one pinned thread each, polling the lanes it owns.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use dpdk::cycles;
use dpdk::eal::{self, EalError};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::{Pid, gettid};
use port::counters::{Counter, Shared, shared};

use crate::config::{Idle, Polling};
use crate::handle::Handle;
use crate::lane::{Lane, LaneId};
use crate::nap::{Bell, Nap};
use crate::rota::Rota;

/// What control asks of a worker.
enum Command {
    /// Own this lane from now on.
    Give(Lane),
    /// Let go of this lane.
    Take(LaneId, Sender<Lane>),
    /// Sleep so from now on when there is no work; or never.
    Nap(Option<Box<Nap>>),
    /// Move so many packets at a time from now on.
    Burst(u16),
    /// Say that you live.
    Answer(Sender<()>),
}

/// Why a worker could not be started, or what was asked of workers cannot be.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The kernel refused the pin: no such core, or not allowed to this process.
    #[error(
        "core {0} cannot be used: it does not exist, or this process may not run on it (cpuset, taskset)"
    )]
    Pin(usize),
    /// Not one of the process's cores.
    #[error("this process may not run on core {core} (allowed: {allowed})")]
    NotAllowed {
        /// The core.
        core: usize,
        /// Those that it may run on.
        allowed: String,
    },
    /// Each core has one worker at most.
    #[error("core {0} has a worker already")]
    Taken(usize),
    /// There is no worker on that core.
    #[error("core {0} has no worker")]
    NoSuchWorker(usize),
    /// One is needed.
    #[error("core {0} has the last worker: add another one first")]
    Last(usize),
    /// There is no such guest.
    #[error("no guest is called {0:?}")]
    NoSuchGuest(String),
    /// The guest has no such pair.
    #[error("{guest} has no queue pair {pair}: it has {pairs}, from 0 on")]
    NoSuchPair {
        /// The guest.
        guest: String,
        /// The pair asked for.
        pair: u16,
        /// How many there are.
        pairs: usize,
    },
    /// DPDK refused the thread.
    #[error("the worker on core {core} cannot be registered with DPDK: {source}")]
    Register {
        /// The core.
        core: usize,
        /// What DPDK said.
        source: EalError,
    },
    /// The thread could not be made.
    #[error("the thread for core {core} cannot be started: {source}")]
    Spawn {
        /// The core.
        core: usize,
        /// What the system said.
        source: io::Error,
    },
}

/// Rounds of a worker's loop.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Rounds in which at least one packet moved.
    pub busy: Counter,
    /// The others.
    pub idle: Counter,
    /// Cycles of the time-stamp counter that passed in busy rounds.
    pub busy_cycles: Counter,
    /// And in the others. Sleep is neither.
    pub idle_cycles: Counter,
    /// Packets that moved: each from one port to another.
    pub packets: Counter,
    /// How often it slept.
    pub naps: Counter,
}

/// Control's handle on a worker. The thread ends when this is dropped.
pub struct Worker {
    /// The core it is pinned to.
    pub core: usize,
    /// Its rounds.
    pub counters: Shared<WorkerCounters>,
    thread: Handle<Command>,
    /// The thread's number in the kernel.
    id: Pid,
}

impl Worker {
    /// Starts a thread on `core`, registered with DPDK.
    pub fn start(core: usize, polling: Polling) -> Result<Worker, WorkerError> {
        let spawn_error = |source| WorkerError::Spawn { core, source };
        let bell = Arc::new(Bell::new().map_err(spawn_error)?);
        let nap = nap(&bell, polling.idle).map_err(spawn_error)?;
        let (commands, inbox) = unbounded();
        let (ready, outcome) = bounded(1);
        let counters = shared();
        let written = Shared::clone(&counters);
        let thread = std::thread::Builder::new()
            .name(format!("worker:{core}"))
            .spawn(move || {
                if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
                    let _ = ready.send(Err(WorkerError::Pin(core)));
                    return;
                }
                let _registration = match eal::register_thread() {
                    Ok(registration) => registration,
                    Err(source) => {
                        let _ = ready.send(Err(WorkerError::Register { core, source }));
                        return;
                    }
                };
                if let Err(cause) = virtqueue::prepare_to_signal() {
                    tracing::warn!(
                        core,
                        "no asynchronous I/O ({cause}; fs.aio-max-nr?): a hostile frontend can block this worker"
                    );
                }
                let _ = ready.send(Ok(gettid()));
                run(&inbox, &written, Manner { nap, burst: polling.burst });
            })
            .map_err(spawn_error)?;
        let id = outcome.recv().unwrap_or(Err(WorkerError::Pin(core)))?;
        let thread = Handle::new(format!("the worker on core {core}"), commands, bell, thread);
        Ok(Worker { core, counters, thread, id })
    }

    /// How the kernel runs the thread; `None` where it does not tell.
    pub fn thread(&self) -> Option<snapshot::WorkerThread> {
        let allowed = sched_getaffinity(self.id).ok()?;
        let cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true)).collect();
        let read = |file| std::fs::read_to_string(format!("/proc/self/task/{}/{file}", self.id)).ok();
        // The state follows the name, which is in brackets and may have brackets in it.
        let asleep = read("stat")?.rsplit_once(") ")?.1.starts_with('S');
        let times = read("schedstat")?;
        let mut times = times.split_whitespace().map_while(|time| time.parse().ok());
        let (run_ns, wait_ns) = (times.next()?, times.next()?);
        let naps = self.counters.naps.get();
        Some(snapshot::WorkerThread { id: self.id.as_raw(), cores, asleep, naps, run_ns, wait_ns })
    }

    /// Gives a lane to the worker.
    pub fn give(&self, lane: Lane) {
        self.thread.send(Command::Give(lane));
    }

    /// Takes a lane back, quiesced: no burst is in flight, and every used entry is published.
    pub fn take(&self, id: LaneId) -> Lane {
        self.thread.fetch(|reply| Command::Take(id, reply))
    }

    /// How the worker is to sleep when it has no work; not at all if it is to poll.
    pub fn nap(&self, idle: Idle) -> io::Result<Option<Box<Nap>>> {
        nap(self.thread.bell(), idle)
    }

    /// Has the worker sleep so from now on.
    pub fn set_nap(&self, nap: Option<Box<Nap>>) {
        self.thread.send(Command::Nap(nap));
    }

    /// Has the worker move so many packets at a time from now on.
    pub fn set_burst(&self, burst: u16) {
        self.thread.send(Command::Burst(burst));
    }

    /// Asks for an answer, which comes between two rounds.
    pub fn ask(&self) -> Receiver<()> {
        self.thread.ask(Command::Answer)
    }
}

fn nap(bell: &Arc<Bell>, idle: Idle) -> io::Result<Option<Box<Nap>>> {
    match idle {
        Idle::Poll => Ok(None),
        Idle::Adaptive => Ok(Some(Box::new(Nap::new(bell.clone())?))),
    }
}

/// The time between two looks at the time-stamp counter.
struct Lap(u64);

impl Lap {
    fn start() -> Lap {
        Lap(cycles::now())
    }

    /// Cycles since the last look.
    #[inline(always)]
    fn next(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.0, cycles::now());
        self.0.saturating_sub(before)
    }
}

/// How a worker polls.
struct Manner {
    /// How it sleeps; not at all if there is none.
    nap: Option<Box<Nap>>,
    /// Packets at a time.
    burst: u16,
}

/// The poll loop. Blocks only while there is nothing to poll, or in a nap.
fn run(inbox: &Receiver<Command>, counters: &WorkerCounters, mut manner: Manner) {
    let mut lanes = Rota::new();
    let mut lap = Lap::start();
    loop {
        let command = if lanes.is_empty() {
            let command = inbox.recv().map_err(|_| TryRecvError::Disconnected);
            lap = Lap::start();
            command
        } else {
            inbox.try_recv()
        };
        match command {
            Ok(command) => obey(command, &mut lanes, &mut manner),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return,
        }
        let moved = lanes.round(|lane| lane.turn(manner.burst));
        if moved > 0 {
            counters.busy.add(1);
            counters.packets.add(moved);
            counters.busy_cycles.add(lap.next());
        } else {
            counters.idle.add(1);
            std::hint::spin_loop();
            counters.idle_cycles.add(lap.next());
        }
        if let Some(nap) = &mut manner.nap
            && nap.is_due(moved > 0)
        {
            counters.naps.add(1);
            counters.packets.add(nap.sleep(lanes.iter_mut(), manner.burst));
            lap = Lap::start();
        }
    }
}

fn obey(command: Command, lanes: &mut Rota<Lane>, manner: &mut Manner) {
    match command {
        Command::Give(lane) => {
            manner.nap.iter_mut().for_each(|nap| nap.watch(&lane));
            lanes.add(lane);
        }
        Command::Take(id, reply) => {
            if let Some(lane) = lanes.take(|lane| lane.id == id) {
                manner.nap.iter_mut().for_each(|nap| nap.forget(&lane));
                let _ = reply.send(lane);
            }
        }
        Command::Nap(mut other) => {
            other.iter_mut().for_each(|nap| lanes.iter().for_each(|lane| nap.watch(lane)));
            manner.nap = other;
        }
        Command::Burst(burst) => manner.burst = burst,
        Command::Answer(reply) => {
            let _ = reply.send(());
        }
    }
}
