//! The process whose instructions are counted: ringwire's datapath with its worker, and its guests' frontends.
//!
//! valgrind counts what other threads than this one do, and writes it out at each [`part_done`]. It runs one thread at
//! a time, and goes on to another one when that calls the kernel: what is read of the worker's counters just before, without
//! a call, belongs to what was counted.

use std::path::Path;
use std::time::Duration;

use engine::{Datapath, Work};
use ringwire_bench::Failure;
use ringwire_bench::callgrind::part_done;
use ringwired::config::{Config, allowed_cores};
use serde::{Deserialize, Serialize};

use crate::Args;
use crate::guests::{self, Guests};

/// Part of the name of the function whose thread is not counted, [`play_guests`].
pub const UNCOUNTED: &str = "play_guests";
/// The configuration's file, in the directory.
pub const CONFIG: &str = "scale.toml";
/// Each kind of load is counted so often. A thread's turn may end between a look at the counters and the counting:
/// rarely, so the median is right.
const TIMES: usize = 7;
/// Of an idle worker.
const IDLE: Duration = Duration::from_millis(300);
/// Entries of a virtqueue: more than the worker takes in a few turns of its thread, which are 100,000 basic blocks for
/// valgrind. It always finds something, then, and never is idle for so long that lanes do not rest any more.
const QUEUE_SIZE: u16 = 16384;
/// How often the busy guests fill their rings, each time they are counted.
const FILLS: usize = 64;
/// Looks at the worker until it polls all lanes.
const PATIENCE: usize = 2000;

/// What the guests do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Load {
    /// What was before is not to be counted.
    Before,
    /// Nothing.
    Idle,
    /// One sends.
    One,
    /// All send.
    All,
}

/// What this process says about each part of valgrind's output, a line each.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Part {
    /// What the guests did.
    pub load: Load,
    /// Rounds of the worker since it was started.
    pub rounds: u64,
    /// Packets that it has moved since then.
    pub packets: u64,
}

/// Runs the datapath that [`CONFIG`] in `directory` describes.
pub fn run(directory: &Path, args: &Args) -> Result<(), Failure> {
    let number = args.guests[0];
    let config = Config::load(&directory.join(CONFIG), &allowed_cores())?;
    let datapath = Datapath::start(config.datapath)?;
    let mut guests = Guests::connect(&guests::sockets(number, directory), args.packed, QUEUE_SIZE)?;
    let lanes = usize::from(guests::lanes(number));
    let mut looks = 0;
    while datapath.status().workers[0].lanes < lanes {
        looks += 1;
        if looks > PATIENCE {
            return Err(Failure("the worker does not poll all lanes".into()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    play_guests(&mut guests, &datapath)
}

/// Everything that is counted, but for what this thread does.
#[inline(never)]
fn play_guests(guests: &mut Guests, datapath: &Datapath) -> Result<(), Failure> {
    // What is done once for each descriptor is not of interest: once around the rings.
    let all = guests.len();
    keep_busy(guests, all);
    for load in [Load::Idle, Load::One, Load::All] {
        for _ in 0..TIMES {
            count(datapath, Load::Before)?;
            match load {
                Load::One => keep_busy(guests, 1),
                Load::All => keep_busy(guests, all),
                Load::Idle | Load::Before => std::thread::sleep(IDLE),
            }
            count(datapath, load)?;
        }
    }
    Ok(())
}

/// The rings of the first `busy` guests never run empty: valgrind's lock is fair, so whoever yields waits for one turn of
/// the worker.
fn keep_busy(guests: &mut Guests, busy: usize) {
    for _ in 0..FILLS {
        for at in 0..busy {
            while guests.send(at) > 0 {}
        }
        std::thread::yield_now();
    }
}

/// Has what was counted written out, and says what it is.
fn count(datapath: &Datapath, load: Load) -> Result<(), Failure> {
    let Work { rounds, packets } = datapath.work();
    part_done(&Part { load, rounds, packets })
}
