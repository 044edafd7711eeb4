//! Time as the packet loop sees it: ticks of the time-stamp counter where it runs at one rate on all cores,
//! otherwise nanoseconds of the wall clock.
//!
//! Reading the counter takes no system call and no memory; that is why it is read directly.
#![allow(unsafe_code)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Converts ticks to time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    hz: f64,
    #[cfg(target_arch = "x86_64")]
    tsc: bool,
}

impl Clock {
    /// Finds out what a tick is. Takes 50 ms.
    pub fn calibrate() -> Clock {
        #[cfg(target_arch = "x86_64")]
        if invariant_tsc() {
            let (started, first) = (Instant::now(), rdtsc());
            std::thread::sleep(Duration::from_millis(50));
            let (ticks, elapsed) = (rdtsc().wrapping_sub(first), started.elapsed());
            return Clock { hz: ticks as f64 / elapsed.as_secs_f64(), tsc: true };
        }
        Clock {
            hz: 1e9,
            #[cfg(target_arch = "x86_64")]
            tsc: false,
        }
    }

    /// The time now, in ticks.
    #[inline(always)]
    pub fn now(&self) -> u64 {
        #[cfg(target_arch = "x86_64")]
        if self.tsc {
            return rdtsc();
        }
        wall_ns()
    }

    /// Ticks in a second.
    pub fn hz(&self) -> f64 {
        self.hz
    }

    /// A span of time in ticks.
    pub fn ticks(&self, seconds: f64) -> u64 {
        (seconds * self.hz) as u64
    }

    /// Ticks as seconds.
    pub fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / self.hz
    }

    /// Nanoseconds a tick.
    pub fn ns_per_tick(&self) -> f64 {
        1e9 / self.hz
    }
}

/// The time-stamp counter.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn rdtsc() -> u64 {
    // SAFETY: RDTSC exists on every x86_64 and touches nothing but registers.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Whether the kernel found the counter to run at one rate, on all cores alike.
#[cfg(target_arch = "x86_64")]
fn invariant_tsc() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    flags.lines().find(|line| line.starts_with("flags")).is_some_and(|l| l.contains(" constant_tsc"))
}

/// Without such a counter: the wall clock, because another process' packets are measured by it, too.
fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_as_long_as_it_says() {
        let clock = Clock::calibrate();
        let (started, first) = (Instant::now(), clock.now());
        std::thread::sleep(Duration::from_millis(100));
        let (measured, real) = (clock.seconds(clock.now() - first), started.elapsed().as_secs_f64());
        assert!((measured / real - 1.0).abs() < 0.02, "{measured} s by ticks, {real} s by the clock");
    }
}
