//! How far two cores are from each other: whether they share a cache, and a virtual machine's may do so at one moment and
//! not at the next. A rate depends on it more than on anything else.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::Failure;

/// For how long it is measured.
const TIME: Duration = Duration::from_millis(3);
/// Round trips between two looks at the clock.
const TRIPS: u64 = 64;

/// A word in a cache line of its own.
#[repr(align(128))]
struct Ball(AtomicU64);

/// How long a cache line takes from core `here` to core `there` and back, in nanoseconds; 0 if they are one.
pub fn round_trip(here: usize, there: usize) -> Result<f64, Failure> {
    if here == there {
        return Ok(0.0);
    }
    let (ball, stop) = (&Ball(AtomicU64::new(0)), &AtomicBool::new(false));
    thread::scope(|scope| {
        let back = scope.spawn(move || {
            let given = pinned(there, || give_back(ball, stop));
            stop.store(true, Ordering::Relaxed);
            given
        });
        let trips = scope.spawn(move || {
            let nanos = pinned(here, || throw(ball, stop));
            stop.store(true, Ordering::Relaxed);
            nanos
        });
        let nanos = trips.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        back.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        nanos
    })
}

fn pinned<T>(core: usize, run: impl FnOnce() -> T) -> Result<T, Failure> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(run())
}

/// Makes each odd number even.
fn give_back(Ball(ball): &Ball, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let seen = ball.load(Ordering::Acquire);
        if seen % 2 == 1 {
            ball.store(seen + 1, Ordering::Release);
        }
    }
}

/// Makes each even number odd; nanoseconds that one round trip takes.
fn throw(Ball(ball): &Ball, stop: &AtomicBool) -> f64 {
    let (start, mut trips) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        for _ in 0..TRIPS {
            ball.store(2 * trips + 1, Ordering::Release);
            trips += 1;
            while ball.load(Ordering::Acquire) != 2 * trips {
                // The other thread could not be pinned.
                if stop.load(Ordering::Relaxed) {
                    return 0.0;
                }
                std::hint::spin_loop();
            }
        }
    }
    start.elapsed().as_nanos() as f64 / trips as f64
}

#[cfg(test)]
mod tests {
    use super::round_trip;

    #[test]
    fn a_core_is_no_way_from_itself_and_some_from_another() {
        assert_eq!(round_trip(0, 0).map_err(|error| error.0), Ok(0.0));
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            println!("skipped: there is one core only");
            return;
        }
        assert!(round_trip(0, 1).map_err(|error| error.0).unwrap() > 0.0);
        assert!(round_trip(0, 100_000).is_err());
    }
}
