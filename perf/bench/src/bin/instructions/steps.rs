//! The measured process: bursts, one after the other, from a guest through a backend and back.
//!
//! valgrind is told to count while [`counted_call`] runs, and to write out what it counted at [`part_done`]: nothing
//! else is in the counts.

use std::path::{Path as FilePath, PathBuf};

use dpdk::eal::{Eal, EalArgs, HugepagePolicy};
use dpdk::mempool::Mempool;
use port::outbox::Outbox;
use ringwire_bench::callgrind::{counted_call, part_done};
use ringwire_pktgen::guest::{Guest, GuestError, QUEUE_SIZE, Shape};
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::backend::{Backend, Ethdev, Ringwire};
use crate::path::{self, Path, Work};

/// Packets at a time: what net_vhost moves at most, and what testpmd asks for.
pub const BURST: usize = 32;
/// Bursts once around the rings.
const LAP: usize = QUEUE_SIZE as usize / BURST;
/// Before counting: by then the mempool's cache is warm, all symbols are bound, each descriptor has been used.
const WARM_ROUNDS: usize = 4 * LAP;
/// With those that are counted.
const ROUNDS: usize = 12 * LAP;
/// Packets that are counted.
const PACKETS: u64 = ((ROUNDS - WARM_ROUNDS) * BURST) as u64;
/// Tries to get the first burst through: the backend's own thread sets its rings up meanwhile.
const TRIES: usize = 2_000_000;
/// Mbufs, and bytes of each.
const MBUFS: (u32, u16) = (1023, 2048);
/// Mbufs an lcore keeps to itself, as testpmd's and ringwire's do.
const CACHE: u32 = 256;
/// Packet memory in MB: DPDK's own needs, and the mbufs'.
const MEMORY_MB: u32 = 64;

/// Whose path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// ringwire.
    Ringwire,
    /// A DPDK port: net_vhost, and rte_vhost in it; or the NIC's stand-in.
    Ethdev,
}

/// What this process says about each part of valgrind's output, a line each, in the order of the parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Whose.
    pub who: Who,
    /// Name of the path.
    pub path: String,
    /// Packets counted; of the idle path, rounds.
    pub count: u64,
}

/// Runs all paths, with frames of `bytes`, and with sockets in `directory`.
pub fn run(directory: &FilePath, bytes: usize) -> Result<(), Failure> {
    let args = EalArgs {
        hugepages: HugepagePolicy::Never,
        memory_mb: MEMORY_MB,
        extra: vec!["--log-level=*:error".into()],
        ..EalArgs::default()
    };
    let _eal = Eal::init(&args)?;
    let pool = Mempool::new("paths", MBUFS.0, MBUFS.1, CACHE, -1)?;
    stand_in(&pool, bytes)?;
    let sockets = |name: &str| [0, 1].map(|number| directory.join(format!("{name}{number}")));
    let (ours, theirs) = (sockets("ringwire"), sockets("net_vhost"));
    let ringwires = [Ringwire::start(ours[0].clone())?, Ringwire::start(ours[1].clone())?];
    let mut net_vhosts = [Ethdev::net_vhost(0, &theirs[0], &pool)?, Ethdev::net_vhost(1, &theirs[1], &pool)?];
    let groups =
        Path::shapes(bytes).flat_map(|shape| Path::of(shape).into_iter().map(move |paths| (shape, paths)));
    for (shape, paths) in groups {
        if let Some(mut guests) = connect(&ours, shape)? {
            let mut pairs = [ringwires[0].pair()?, ringwires[1].pair()?];
            run_paths(&mut pairs, Who::Ringwire, &mut guests, &paths, &pool)?;
            ringwires.iter().zip(pairs).for_each(|(ringwire, pair)| ringwire.give_back(pair));
            guests.into_iter().try_for_each(Guest::finish)?;
        }
        if let Some(mut guests) = connect(&theirs, shape)? {
            run_paths(&mut net_vhosts, Who::Ethdev, &mut guests, &paths, &pool)?;
            guests.into_iter().try_for_each(Guest::finish)?;
        }
    }
    Ok(())
}

/// A guest on each socket; `None` if the backend lacks a feature they would need.
fn connect(sockets: &[PathBuf; 2], shape: Shape) -> Result<Option<[Guest; 2]>, Failure> {
    let guests = || Ok([Guest::connect(&sockets[0], shape)?, Guest::connect(&sockets[1], shape)?]);
    match guests() {
        Ok(guests) => Ok(Some(guests)),
        Err(GuestError::NotOffered(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What the NIC's stand-in costs: the same on both sides, and in none of the paths.
fn stand_in(pool: &Mempool, bytes: usize) -> Result<(), Failure> {
    let mut null = Ethdev::net_null(bytes, pool)?;
    for (gives, path) in [(true, path::STAND_IN[0]), (false, path::STAND_IN[1])] {
        for round in 0..ROUNDS {
            let counted = round >= WARM_ROUNDS;
            let mut outbox = Outbox::new(pool.clone());
            step(counted && gives, || null.receive(&mut outbox, BURST) == BURST)?;
            step(counted && !gives, || null.send(&mut outbox.burst) == BURST)?;
        }
        part_done(&Part { who: Who::Ethdev, path: path.into(), count: PACKETS })?;
    }
    Ok(())
}

/// Paths of one shape. The second guest is there for packets from the first one.
fn run_paths<B: Backend>(
    backends: &mut [B; 2],
    who: Who,
    guests: &mut [Guest; 2],
    paths: &[Path],
    pool: &Mempool,
) -> Result<(), Failure> {
    for path in paths {
        for number in 0..ROUNDS {
            let counted = (number >= WARM_ROUNDS).then_some(path.work);
            match path.work {
                Work::BetweenGuests => round_between(backends, guests, pool, counted)?,
                _ => round(&mut backends[0], &mut guests[0], pool, counted)?,
            }
        }
        let count = if path.work == Work::Idle { (ROUNDS - WARM_ROUNDS) as u64 } else { PACKETS };
        part_done(&Part { who, path: path.name(), count })?;
    }
    Ok(())
}

/// One burst from the guest through the backend and back, with one kind of work counted.
fn round(
    backend: &mut impl Backend,
    guest: &mut Guest,
    pool: &Mempool,
    counted: Option<Work>,
) -> Result<(), Failure> {
    let mut outbox = Outbox::new(pool.clone());
    send(guest)?;
    step(counted == Some(Work::FromGuest), || {
        backend.receive(&mut outbox, BURST);
        outbox.burst.len() == BURST
    })?;
    if counted == Some(Work::Idle) {
        let mut nothing = Outbox::new(pool.clone());
        counted_call(|| backend.idle(&mut nothing));
    }
    step(counted == Some(Work::ToGuest), || {
        backend.send(&mut outbox.burst);
        outbox.burst.is_empty()
    })?;
    receive(guest)
}

/// One burst from one guest to the other.
fn round_between<B: Backend>(
    [from, to]: &mut [B; 2],
    [sender, receiver]: &mut [Guest; 2],
    pool: &Mempool,
    counted: Option<Work>,
) -> Result<(), Failure> {
    let (mut outbox, mut moved) = (Outbox::new(pool.clone()), 0);
    send(sender)?;
    step(counted.is_some(), || {
        moved += from.forward(to, &mut outbox, BURST - moved);
        moved == BURST
    })?;
    receive(receiver)
}

/// The guest sends a burst.
fn send(guest: &mut Guest) -> Result<(), Failure> {
    let sent = guest.send(BURST as u32);
    sent.then_some(()).ok_or_else(|| Failure("what the guest sent does not come back".into()))
}

/// The guest receives a burst.
fn receive(guest: &mut Guest) -> Result<(), Failure> {
    let mut received = 0;
    step(false, || {
        received += guest.receive(BURST as u32);
        received == BURST as u32
    })
}

/// Makes `call`, which says whether a whole burst has moved: again and again if it is not counted (the very
/// first one may have to wait), once if it is.
fn step(counted: bool, mut call: impl FnMut() -> bool) -> Result<(), Failure> {
    let done = if counted { counted_call(&mut call) } else { (0..TRIES).any(|_| call()) };
    done.then_some(()).ok_or_else(|| Failure("a burst does not come through whole".into()))
}
