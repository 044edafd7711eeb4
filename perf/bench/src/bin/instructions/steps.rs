//! The measured process: bursts, one after the other, from a guest through a backend and back.
//!
//! valgrind is told to count while [`counted_call`] runs, and to write out what it counted at [`part_done`]: nothing
//! else is in the counts.

use std::path::Path as FilePath;

use dpdk::burst::Burst;
use dpdk::eal::{Eal, EalArgs, HugepagePolicy};
use dpdk::mempool::Mempool;
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

/// Part of the name of the function in which valgrind counts, [`counted_call`].
pub const COUNTED: &str = "counted_call";
/// Part of the name of the function at which it writes out what it has counted, [`part_done`].
pub const BOUNDARY: &str = "part_done";

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
    let (ours, theirs) = (directory.join("ringwire"), directory.join("net_vhost"));
    let ringwire = Ringwire::start(ours.clone())?;
    let mut net_vhost = Ethdev::net_vhost(&theirs, &pool)?;
    for shape in Path::shapes(bytes) {
        if let Some(mut guest) = connect(&ours, shape)? {
            let mut pair = ringwire.pair()?;
            run_paths(&mut pair, Who::Ringwire, &mut guest, shape, &pool)?;
            ringwire.give_back(pair);
            guest.finish()?;
        }
        if let Some(mut guest) = connect(&theirs, shape)? {
            run_paths(&mut net_vhost, Who::Ethdev, &mut guest, shape, &pool)?;
            guest.finish()?;
        }
    }
    Ok(())
}

/// A guest; `None` if the backend lacks a feature it would need.
fn connect(socket: &FilePath, shape: Shape) -> Result<Option<Guest>, Failure> {
    match Guest::connect(socket, shape) {
        Ok(guest) => Ok(Some(guest)),
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
            let mut burst = Burst::new();
            step(counted && gives, || null.receive(&mut burst, BURST, pool) == BURST)?;
            step(counted && !gives, || null.send(&mut burst) == BURST)?;
        }
        part_done(&Part { who: Who::Ethdev, path: path.into(), count: PACKETS })?;
    }
    Ok(())
}

/// All paths of a guest's shape.
fn run_paths(
    backend: &mut impl Backend,
    who: Who,
    guest: &mut Guest,
    shape: Shape,
    pool: &Mempool,
) -> Result<(), Failure> {
    for path in Path::of(shape) {
        for number in 0..ROUNDS {
            round(backend, guest, pool, (number >= WARM_ROUNDS).then_some(path.work))?;
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
    let mut burst = Burst::new();
    if !guest.send(BURST as u32) {
        return Err(Failure("what the guest sent does not come back".into()));
    }
    step(counted == Some(Work::FromGuest), || {
        backend.receive(&mut burst, BURST, pool);
        burst.len() == BURST
    })?;
    if counted == Some(Work::Idle) {
        let mut nothing = Burst::new();
        counted_call(|| backend.idle(&mut nothing, pool));
    }
    step(counted == Some(Work::ToGuest), || {
        backend.send(&mut burst);
        burst.is_empty()
    })?;
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

/// What valgrind counts.
#[inline(never)]
fn counted_call<T>(call: impl FnOnce() -> T) -> T {
    call()
}

/// Where valgrind writes out what it has counted.
#[inline(never)]
fn part_done(part: &Part) -> Result<(), Failure> {
    println!("{}", serde_json::to_string(part)?);
    Ok(())
}
