//! The process whose instructions are counted: ringwire's datapath with its worker, and its guests' frontends.
//!
//! valgrind counts what other threads than this one do, and writes it out at each [`part_done`]. It runs one thread at
//! a time, so that what is read of the worker's counters just before belongs to what was counted.

use std::path::Path;
use std::time::Duration;

use engine::Datapath;
use ringwire_bench::Failure;
use ringwired::config::{Config, allowed_cores};
use serde::{Deserialize, Serialize};

use crate::Args;
use crate::guests::{self, BURST, Guests};

/// Part of the name of the function whose thread is not counted, [`play_guests`].
pub const UNCOUNTED: &str = "play_guests";
/// Part of the name of the function at which valgrind writes out what it has counted, [`part_done`].
pub const BOUNDARY: &str = "part_done";
/// The configuration's file, in the directory.
pub const CONFIG: &str = "scale.toml";
/// Each kind of load is counted so often. A thread's turn may end between a look at the counters and the counting:
/// rarely, so the median is right.
const TIMES: usize = 7;
/// Of an idle worker.
const IDLE: Duration = Duration::from_millis(300);
/// Of what was sent, until the worker has certainly taken it.
const TAKEN: Duration = Duration::from_millis(20);
/// How often the busy guests send a burst, each time they are counted.
const BURSTS: usize = 16;
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
    /// Packets that NICs and guests were given since then.
    pub packets: u64,
}

/// Runs the datapath that [`CONFIG`] in `directory` describes.
pub fn run(directory: &Path, args: &Args) -> Result<(), Failure> {
    let number = args.guests[0];
    let config = Config::load(&directory.join(CONFIG), &allowed_cores())?;
    let datapath = Datapath::start(config.datapath)?;
    let mut guests = Guests::connect(&guests::sockets(number, directory), args.packed)?;
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
    send(guests, all, 2 * 256 / BURST as usize);
    for load in [Load::Idle, Load::One, Load::All] {
        for _ in 0..TIMES {
            count(datapath, Load::Before)?;
            match load {
                Load::One => send(guests, 1, BURSTS),
                Load::All => send(guests, all, BURSTS),
                Load::Idle | Load::Before => std::thread::sleep(IDLE),
            }
            count(datapath, load)?;
        }
    }
    Ok(())
}

/// The first `busy` guests send `bursts` bursts, and each is taken before the next is sent.
fn send(guests: &mut Guests, busy: usize, bursts: usize) {
    for _ in 0..bursts {
        for at in 0..busy {
            guests.send(at);
        }
        std::thread::sleep(TAKEN);
    }
}

/// Has what was counted written out, and says what it is.
fn count(datapath: &Datapath, load: Load) -> Result<(), Failure> {
    let status = datapath.status();
    let worker = &status.workers[0];
    let rounds = worker.busy_rounds + worker.idle_rounds;
    let packets = status.ports.iter().map(|port| port.tx_packets).sum();
    part_done(&Part { load, rounds, packets })
}

/// Where valgrind writes out what it has counted.
#[inline(never)]
fn part_done(part: &Part) -> Result<(), Failure> {
    println!("{}", serde_json::to_string(part)?);
    Ok(())
}
