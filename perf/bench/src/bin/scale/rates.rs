//! Packets a second: a ringwired for each number of guests, taking turns on the backend's core. Its guests are here,
//! on the frontend's.

use std::time::{Duration, Instant};

use ringwire_bench::Failure;
use ringwire_bench::place::{Place, pin};
use ringwire_bench::process::Process;
use ringwire_bench::turns::{Player, alternate};
use ringwire_bench::{daemon, stats::Spread};
use ringwire_pktgen::guest::QUEUE_SIZE;
use serde::Serialize;

use crate::Args;
use crate::guests::{self, Guests};
use crate::report::Row;

/// Of a turn: traffic before the measurement.
const WARM_UP: Duration = Duration::from_millis(50);
/// Looks at all guests between two looks at the clock.
const LOOKS: u32 = 64;

/// Packets a second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rates {
    /// Of the one guest that sends.
    pub one_busy_pps: Spread,
    /// Of all, added up.
    pub all_busy_pps: Spread,
    /// Part of the looks at a ring that found it full, with one busy: near 0, the frontend is what limits.
    pub one_busy_full: f64,
    /// The same with all busy.
    pub all_busy_full: f64,
}

/// One number of guests.
struct Daemon {
    number: u16,
    // Before the daemon, which would wait for them.
    guests: Guests,
    process: Process,
}

impl Player for Daemon {
    fn name(&self) -> String {
        format!("{}:", self.number)
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Packets a second, and the part of looks that found a ring full.
#[derive(Clone, Copy)]
struct Rate {
    pps: f64,
    full: f64,
}

/// Fills in the rates of `rows`.
pub fn measure(args: &Args, place: &Place, rows: &mut [Row]) -> Result<(), Failure> {
    let mut daemons = Vec::new();
    for row in &*rows {
        match start(row.guests, args, place) {
            Ok(daemon) => daemons.push(daemon),
            Err(Failure(why)) => eprintln!("skipped: {} guests: {why}", row.guests),
        }
    }
    // After the daemons were started: they would inherit it.
    pin(place.front)?;
    eprintln!("Mpps by number of guests, one busy / all busy");
    let turn = |daemon: &mut Daemon| {
        let all = daemon.guests.len();
        Ok(Some((send(&mut daemon.guests, 1, args.seconds), send(&mut daemon.guests, all, args.seconds))))
    };
    let say = |(one, all): &(Rate, Rate)| format!("{:.3}/{:.3}", one.pps / 1e6, all.pps / 1e6);
    let samples = alternate(&mut daemons, args.rounds, place, turn, say)?;
    for (daemon, samples) in daemons.iter().zip(&samples) {
        let spread = |of: &dyn Fn(&(Rate, Rate)) -> f64| {
            let values: Vec<f64> = samples.iter().map(of).collect();
            Spread::of(&values).ok_or_else(|| Failure("no samples".into()))
        };
        let rates = Rates {
            one_busy_pps: spread(&|(one, _)| one.pps)?,
            all_busy_pps: spread(&|(_, all)| all.pps)?,
            one_busy_full: spread(&|(one, _)| one.full)?.median,
            all_busy_full: spread(&|(_, all)| all.full)?.median,
        };
        rows.iter_mut().filter(|row| row.guests == daemon.number).for_each(|row| row.rates = Some(rates));
    }
    Ok(())
}

fn start(number: u16, args: &Args, place: &Place) -> Result<Daemon, Failure> {
    eprintln!("starting ringwired with {number} guests");
    let sockets = guests::sockets(number, &place.directory);
    let name = format!("ringwired-{number}");
    let mut process = daemon::start(place, &name, &guests::config(number, place), &sockets)?;
    let guests = Guests::connect(&sockets, args.packed, QUEUE_SIZE)?;
    process.pause()?;
    Ok(Daemon { number, guests, process })
}

/// The first `busy` guests send whenever they can.
fn send(guests: &mut Guests, busy: usize, seconds: f64) -> Rate {
    send_for(guests, busy, WARM_UP);
    send_for(guests, busy, Duration::from_secs_f64(seconds))
}

fn send_for(guests: &mut Guests, busy: usize, time: Duration) -> Rate {
    let (mut packets, mut looks, mut full) = (0u64, 0u64, 0u64);
    let started = Instant::now();
    while started.elapsed() < time {
        for _ in 0..LOOKS {
            for at in 0..busy {
                let sent = guests.send(at);
                packets += sent;
                looks += 1;
                full += u64::from(sent == 0);
            }
        }
    }
    Rate { pps: packets as f64 / started.elapsed().as_secs_f64(), full: full as f64 / looks as f64 }
}
