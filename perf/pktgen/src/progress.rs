//! What other threads see and do while packets move: a line each second, ^C, a backend that goes away. The
//! packet loop itself makes no system call.

use std::io::{IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::proto::readable;
use crate::report::pps;
use crate::track::Counts;

/// Clears the rest of a terminal's line, and goes back to its start.
const REST_CLEARED: &str = "\x1b[K\r";
/// Two ports at most.
const PORTS: usize = 2;

/// Shared with the packet loop, which writes it once in 1024 rounds. Every value stands for itself, so all
/// accesses are relaxed.
#[derive(Debug, Default)]
pub struct Live {
    ports: [[AtomicU64; 5]; PORTS],
    stop: Arc<AtomicBool>,
    gone: AtomicBool,
}

impl Live {
    /// New, and stopped by SIGINT and SIGTERM.
    pub fn new() -> std::io::Result<Arc<Live>> {
        let live = Arc::new(Live::default());
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, live.stop.clone())?;
        }
        Ok(live)
    }

    /// Whether nobody asked to stop, and all backends are there.
    pub fn going(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) && self.connected()
    }

    /// Asks to stop.
    pub fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether all backends are there.
    pub fn connected(&self) -> bool {
        !self.gone.load(Ordering::Relaxed)
    }

    /// Whether to stop was asked.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Port `at`: packets and bytes sent, frames and packets of ours received.
    pub fn publish(&self, at: usize, sent: (u64, u64), frames: u64, counts: Counts) {
        let values = [sent.0, sent.1, frames, counts.bytes, counts.missing];
        for (shared, value) in self.ports[at].iter().zip(values) {
            shared.store(value, Ordering::Relaxed);
        }
    }

    fn read(&self) -> [[u64; 5]; PORTS] {
        std::array::from_fn(|p| std::array::from_fn(|i| self.ports[p][i].load(Ordering::Relaxed)))
    }

    /// Watches the backends' sockets, and prints a line each second if `show`. The thread ends with the
    /// process.
    pub fn watch(self: &Arc<Live>, sockets: Vec<OwnedFd>, names: Vec<&'static str>, show: bool) {
        let live = self.clone();
        std::thread::spawn(move || {
            let (started, mut last, mut before) = (Instant::now(), Instant::now(), live.read());
            loop {
                std::thread::sleep(Duration::from_millis(100));
                if sockets.iter().any(|socket| readable(socket, 0)) {
                    live.gone.store(true, Ordering::Relaxed);
                    return;
                }
                let elapsed = last.elapsed().as_secs_f64();
                if elapsed >= 1.0 {
                    let after = live.read();
                    if show {
                        print_line(started.elapsed().as_secs(), &names, &before, &after, elapsed);
                    }
                    (before, last) = (after, Instant::now());
                }
            }
        });
    }
}

/// Whether standard error is a terminal.
pub fn on_terminal() -> bool {
    std::io::stderr().is_terminal()
}

fn print_line(at: u64, names: &[&str], before: &[[u64; 5]; PORTS], after: &[[u64; 5]; PORTS], seconds: f64) {
    let mut line = format!("{at:>4} s");
    for (name, (before, after)) in names.iter().zip(before.iter().zip(after)) {
        // Counters start again with each trial.
        let rate = |i: usize| after[i].checked_sub(before[i]).unwrap_or(after[i]) as f64 / seconds;
        line += &format!(
            "   {name}: tx {} ({:.2} Gbit/s), rx {}, missing {}",
            pps(rate(0)),
            rate(1) * 8e-9,
            pps(rate(2)),
            after[4]
        );
    }
    let end = if on_terminal() { REST_CLEARED } else { "\n" };
    let _ = write!(std::io::stderr(), "{line}{end}");
}

/// Makes room for other output where the line of a terminal is.
pub fn clear_line() {
    if on_terminal() {
        let _ = write!(std::io::stderr(), "{REST_CLEARED}");
    }
}
