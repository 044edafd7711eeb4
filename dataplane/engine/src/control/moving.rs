//! Rings that move between owners under load: each chain is returned once and in order, each packet arrives
//! once, and the counters agree.
//!
//! A guest in a thread of its own sends as much as it can through nics that return what they are sent. Meanwhile
//! its rings are stopped, started again where they were, connected to another nic, and given to other workers, which
//! come and go, at random moments.

mod arrivals;
mod guest;
mod workers;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dpdk::eal::{Eal, EalArgs, HugepagePolicy};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use port::counters::{Counter, PairCounters, Shared};
use port::nic::{Nic, NicOptions};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use virtqueue::RingConfig;
use virtqueue::testing::{F_EVENT_IDX, F_IN_ORDER, F_INDIRECT, F_PACKED, Format};

use super::*;
use crate::config::{BURST_MAX, Idle};
use crate::worker::WorkerError;
use guest::{F_MERGEABLE, Guest, Setup};

/// Feature bit VERSION_1.
const F_VERSION_1: u64 = 1 << 32;
/// How long packets may take before they count as lost or stuck: no time that a busy machine would need.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is done to rings. Those that do not apply are passed over.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The ring is taken back, and given up: GET_VRING_BASE.
    Stop(u16),
    /// A stopped ring is started where it was, and given out.
    Start(u16),
    /// Both at once, as for another eventfd or another memory table.
    Restart(u16),
    /// The guest gets this backend, the last one being none.
    Switch(usize),
    /// A pair is assigned to one of the cores, or to none.
    Assign(u16, Option<usize>),
    /// One of the cores gets a worker, or loses it.
    Toggle(usize),
    /// Workers sleep when there is nothing to do, or do not, and move more or fewer packets at a time.
    Poll(Polling),
}

#[derive(Clone, Debug)]
struct Case {
    order: u8,
    features: u64,
    pairs: u16,
    nics: usize,
    /// What is done each time that so many chains have come back.
    steps: Vec<(u64, Step)>,
}

fn cases() -> impl Strategy<Value = Case> {
    let ring = 0..4u16;
    let step = prop_oneof![
        4 => ring.clone().prop_map(Step::Restart),
        2 => ring.clone().prop_map(Step::Stop),
        6 => ring.prop_map(Step::Start),
        3 => (0..3usize).prop_map(Step::Switch),
        3 => (0..2u16, prop::option::weighted(0.7, 0..2usize)).prop_map(|(pair, core)| Step::Assign(pair, core)),
        3 => (0..2usize).prop_map(Step::Toggle),
        2 => (prop::sample::select(vec![Idle::Poll, Idle::Adaptive]), 1..=BURST_MAX as u16)
            .prop_map(|(idle, burst)| Step::Poll(Polling { idle, burst })),
    ];
    let steps = prop::collection::vec((0..400u64, step), 20..50);
    let optional = prop::sample::subsequence(vec![F_MERGEABLE, F_EVENT_IDX, F_INDIRECT, F_IN_ORDER], 0..=4);
    (4..=8u8, optional, 1..=2u16, 1..=2usize, steps).prop_map(|(order, optional, pairs, nics, steps)| Case {
        order,
        features: optional.iter().fold(F_VERSION_1, |all, bit| all | bit),
        pairs,
        nics,
        steps,
    })
}

/// The guest's name.
const VM: &str = "vm";

/// A guest, its backends, and who has which ring.
struct Rig {
    guest: Guest,
    counters: Vec<GuestCounters>,
    nics: Vec<Nic>,
    control: Control,
    /// Cores that may have a worker.
    cores: Vec<usize>,
    /// Rings that are stopped, with their base.
    stopped: BTreeMap<u16, RingConfig>,
}

impl Rig {
    /// Everything, with all rings running on the first nic.
    fn set_up(format: Format, case: &Case, workers: usize) -> Rig {
        let (size, features, pairs) = (1 << case.order, case.features, case.pairs);
        let paths = case.nics * usize::from(pairs);
        let guest = Guest::start(Setup { format, size, features, pairs, paths });
        let counters: Vec<_> = (0..pairs).map(|_| GuestCounters::default()).collect();
        let (cores, started) = start_workers(workers);
        let mut control = Control::new(started, Polling::default(), SlowPath::start().unwrap());
        control.add_guest(VM, counters.clone());
        let (nics, queues): (Vec<Nic>, Vec<_>) = (0..case.nics).map(|_| open_loop(pairs)).unzip();
        for (at, pairs) in queues.into_iter().enumerate() {
            control.add_nic(&format!("nic{at}"), pairs);
        }
        let stopped = guest.configs.iter().map(|config| (config.index, config.clone())).collect();
        let mut rig = Rig { guest, counters, nics, control, cores, stopped };
        rig.switch(0);
        (0..2 * pairs).for_each(|ring| rig.start(ring));
        rig
    }

    fn stop(&mut self, ring: u16) {
        if let Some(ring) = self.control.take_back(VM, ring) {
            self.stopped.insert(ring.index(), RingConfig { base: ring.base(), ..ring.config().clone() });
        }
        // Its memory may be unmapped now: nobody may look at it any more.
        assert_eq!(self.control.glance(VM, ring), None);
    }

    fn start(&mut self, ring: u16) {
        if let Some(config) = self.stopped.remove(&ring) {
            self.control.give_out(VM, Ring::start(config).unwrap());
            assert!(self.control.glance(VM, ring).is_some());
        }
    }

    fn switch(&mut self, backend: usize) {
        let backend = backend % (self.nics.len() + 1);
        let name = format!("nic{backend}");
        let backend = Some(name.as_str()).filter(|_| backend < self.nics.len());
        self.control.connect(VM, backend, Arrived::Dropped).unwrap();
        self.tell_losses();
    }

    /// What was dropped, and counted, the guest need not wait for.
    fn tell_losses(&self) {
        let (guest, nics) = self.sums();
        self.guest.signals.lost.store(guest.drops + nics.drops, Ordering::Relaxed);
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Stop(ring) => self.stop(ring),
            Step::Start(ring) => self.start(ring),
            Step::Restart(ring) => {
                self.stop(ring);
                self.start(ring);
            }
            Step::Switch(backend) => self.switch(backend),
            Step::Assign(pair, core) => self.assign(pair, core),
            Step::Toggle(core) => self.toggle(core),
            Step::Poll(polling) => self.control.set_polling(polling).unwrap(),
        }
    }

    fn assign(&mut self, index: u16, core: Option<usize>) {
        let core = core.map(|core| self.cores[core % self.cores.len()]);
        let pair = Pair { guest: VM.to_owned(), index };
        let there = core.is_none_or(|core| self.control.cores().contains(&core));
        match self.control.assign(pair.clone(), core) {
            Ok(moved) => {
                assert!(there && usize::from(index) < self.counters.len());
                assert_eq!(self.control.assignments(VM).get(&index).copied(), core);
                let polled = self.control.owner(VM, index) != Owner::Parked;
                assert!(core.is_none() || moved.contains(&pair) == polled, "{moved:?}");
                for pair in moved.iter().filter(|_| core.is_some()) {
                    assert_eq!(Some(self.control.owner(VM, pair.index)), core.map(Owner::Worker));
                }
            }
            Err(WorkerError::NoSuchWorker(_)) => assert!(!there),
            Err(WorkerError::NoSuchPair { .. }) => assert!(usize::from(index) >= self.counters.len()),
            Err(error) => panic!("{error}"),
        }
    }

    fn toggle(&mut self, core: usize) {
        let core = self.cores[core % self.cores.len()];
        let before = self.control.cores();
        if !before.contains(&core) {
            self.control.add_worker(Worker::start(core, self.control.polling()).unwrap());
            return;
        }
        match self.control.remove_worker(core) {
            Ok(_) => assert!(before.len() > 1),
            Err(WorkerError::Last(_)) => assert_eq!(before, [core]),
            Err(error) => panic!("{error}"),
        }
    }

    /// Lets so many chains come back. As long as a pair is polled they do, for the guest sends and receives all
    /// the time, and its nics return what they get.
    fn let_move(&self, chains: u64) {
        let moved = || self.guest.signals.moved.load(Ordering::Relaxed);
        let (until, started) = (moved() + chains, Instant::now());
        let pairs = 0..self.counters.len() as u16;
        let polled = |pair| self.control.owner(VM, pair) != Owner::Parked;
        while moved() < until && pairs.clone().any(polled) && !self.is_over() {
            assert!(started.elapsed() < PATIENCE, "nothing moves any more: {:?}", self.sums());
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// While no worker has anything of this guest, nothing is on its way but what is held.
    fn check_if_still(&self) {
        if self.cores.iter().all(|core| self.control.lanes_on(*core) == 0) {
            let (guest, nics) = self.sums();
            guest.check_balance(&nics);
            nics.check_balance(&guest);
        }
    }

    fn sums(&self) -> (Sums, Sums) {
        let nics = self.nics.iter().flat_map(|nic| &nic.counters);
        (Sums::of(self.counters.iter().map(|counters| &counters.pair)), Sums::of(nics))
    }

    fn is_broken(&self) -> bool {
        let rings = self.counters.iter().flat_map(|pair| [&pair.to, &pair.from]);
        rings.into_iter().any(|ring| ring.violation.lock().unwrap().is_some())
    }

    /// Whether the guest has all, or something went wrong.
    fn is_over(&self) -> bool {
        self.guest.is_finished() || self.is_broken()
    }

    /// Starts what is stopped, and lets one nic after the other return what it has, until the guest has it all.
    fn drain(&mut self) {
        self.guest.signals.stop_sending.store(true, Ordering::Relaxed);
        let (started, pairs) = (Instant::now(), self.counters.len() as u16);
        for turn in 0.. {
            (0..2 * pairs).for_each(|ring| self.start(ring));
            self.switch(turn % self.nics.len());
            for _ in 0..20 {
                if self.is_over() || started.elapsed() > PATIENCE {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Ends it all. What the guest has seen must be what the datapath has counted.
    fn finish(mut self) -> Result<(), String> {
        self.drain();
        self.control.remove_all();
        self.tell_losses();
        let tally = self.guest.join()?;
        if self.is_broken() {
            return Err("a ring was stopped".to_owned());
        }
        self.check_if_still();
        let (guest, nics) = self.sums();
        assert_eq!((guest.tx, nics.tx), (tally.frames, nics.rx));
        assert_eq!(guest.rx.0, nics.tx.0 + guest.drops);
        assert_eq!(nics.rx.0, guest.tx.0 + nics.drops);
        let rings = self.counters.iter().flat_map(|pair| [&pair.to, &pair.from]);
        assert_eq!(rings.map(|ring| ring.used.get()).collect::<Vec<_>>(), tally.chains);
        Ok(())
    }
}

/// (packets, bytes)
type Count = (u64, u64);

/// What all pairs of a port have counted.
#[derive(Debug, Default)]
struct Sums {
    rx: Count,
    tx: Count,
    rx_held: u64,
    tx_held: u64,
    drops: u64,
}

impl Sums {
    fn of<'a>(pairs: impl Iterator<Item = &'a Shared<PairCounters>>) -> Sums {
        pairs.fold(Sums::default(), |sums, pair| Sums {
            rx: (sums.rx.0 + pair.rx.packets.get(), sums.rx.1 + pair.rx.bytes.get()),
            tx: (sums.tx.0 + pair.tx.packets.get(), sums.tx.1 + pair.tx.bytes.get()),
            rx_held: sums.rx_held + pair.rx_held.get(),
            tx_held: sums.tx_held + pair.tx_held.get(),
            drops: sums.drops + pair.drops.iter().map(Counter::get).sum::<u64>(),
        })
    }

    /// What came in here went out over there, is held, or was dropped.
    fn check_balance(&self, other: &Sums) {
        let held = self.rx_held + other.tx_held;
        assert_eq!(self.rx.0, other.tx.0 + held + self.drops, "{self:?} and {other:?}");
    }
}

/// A nic that returns what it is sent.
fn open_loop(queues: u16) -> (Nic, Vec<NicPair>) {
    static OPENED: AtomicUsize = AtomicUsize::new(0);
    let name = format!("net_ring{}", OPENED.fetch_add(1, Ordering::Relaxed));
    let options = NicOptions { name: &name, device: &name, queues, mtu: None, promiscuous: true, lro: false };
    Nic::open(&options).unwrap()
}

/// So many workers, if there are so many cores, from the last core on that this process may use; and two of these cores,
/// if there are as many.
fn start_workers(count: usize) -> (Vec<usize>, Vec<Worker>) {
    // Once in a process: under `cargo test`, all tests share it.
    static EAL: LazyLock<Eal> = LazyLock::new(|| {
        let args = EalArgs { hugepages: HugepagePolicy::Never, ..EalArgs::default() };
        Eal::init(&args).unwrap()
    });
    LazyLock::force(&EAL);
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let cores = (0..CpuSet::count()).rev().filter(|core| allowed.is_set(*core).unwrap());
    let cores: Vec<usize> = cores.take(2).collect();
    let workers = cores.iter().take(count).map(|core| Worker::start(*core, Polling::default()).unwrap());
    (cores.clone(), workers.collect())
}

/// Random moves, on one worker and on two.
fn nothing_is_lost_or_doubled(format: Format) {
    for count in 1..=2 {
        // A case does not fail each time, nor a smaller one at all: there is no use in shrinking it.
        let config = ProptestConfig {
            cases: 16,
            max_shrink_iters: 0,
            failure_persistence: None,
            ..Default::default()
        };
        let outcome = TestRunner::new(config).run(&cases(), |case| {
            let mut rig = Rig::set_up(format, &case, count);
            for (chains, step) in case.steps {
                rig.let_move(chains);
                rig.apply(step);
                rig.check_if_still();
            }
            rig.finish().map_err(TestCaseError::fail)
        });
        outcome.unwrap_or_else(|error| panic!("{count} workers: {error}"));
    }
}

#[test]
fn split_rings_that_move_lose_and_double_nothing() {
    nothing_is_lost_or_doubled(Format::Split);
}

#[test]
fn packed_rings_that_move_lose_and_double_nothing() {
    nothing_is_lost_or_doubled(Format::Packed);
}

/// Two queues of a nic with one ring behind them: a packet that waits for more buffers must not be forgotten
/// while the other queue is looked after.
#[test]
fn one_ring_takes_what_two_queues_receive() {
    for format in [Format::Split, Format::Packed] {
        let case =
            Case { order: 4, features: F_VERSION_1 | F_MERGEABLE, pairs: 2, nics: 1, steps: Vec::new() };
        let mut rig = Rig::set_up(format, &case, 1);
        rig.stop(2);
        rig.let_move(10_000);
        rig.finish().unwrap();
    }
}

/// Where a ring would go on if the chain that is next were left out.
fn one_further(config: &RingConfig) -> u32 {
    let last = config.base & 0x7fff == u32::from(config.size) - 1;
    match config.features & F_PACKED {
        0 => (config.base + 1) & 0xffff,
        // Slot 0 of the next lap.
        _ if last => (config.base & 0xffff_8000) ^ 0x8000,
        _ => config.base + 1,
    }
}

/// Where a split ring would go on if the chain taken last were taken again.
fn one_back(config: &RingConfig) -> u32 {
    config.base.wrapping_sub(1) & 0xffff
}

/// Starts a ring where `base` says, and returns what was wrong then.
fn started_wrongly(format: Format, ring: u16, base: fn(&RingConfig) -> u32) -> String {
    let case = Case { order: 6, features: F_VERSION_1, pairs: 1, nics: 1, steps: Vec::new() };
    let mut rig = Rig::set_up(format, &case, 1);
    rig.let_move(500);
    rig.stop(ring);
    let config = rig.stopped.get_mut(&ring).unwrap();
    config.base = base(config);
    rig.start(ring);
    rig.let_move(500);
    rig.finish().unwrap_err()
}

/// The control of these tests: they notice a move that is one chain off.
#[test]
fn a_ring_that_goes_on_at_the_wrong_chain_is_noticed() {
    for ring in 0..2 {
        println!("split {ring}, one further: {}", started_wrongly(Format::Split, ring, one_further));
        println!("split {ring}, one back: {}", started_wrongly(Format::Split, ring, one_back));
        println!("packed {ring}, one further: {}", started_wrongly(Format::Packed, ring, one_further));
    }
}
