//! Hostile guests and frontends against a running daemon, while an innocent guest on the same worker is under
//! load. Each case is a line of a table; `tests::hostile::stage` says what is checked around each.

mod connections;
mod eventfds;
mod memory;
mod messages;
mod packed;
mod random;
mod rings;
mod shared;
mod split;
mod truncation;

use tests::hostile::client::Answer;
use tests::hostile::guest::Hostile;
use tests::hostile::stage::{Bench, Log, Stage};
use tests::wait;

/// A ring that does not run: it can be misused without stopping the first pair.
const IDLE: u32 = 3;

/// Messages that must be refused while the guest's first pair of rings runs, and change nothing: packets go on,
/// and no file descriptor is left.
fn refused(
    stage: &mut Stage,
    row: &str,
    sent: &str,
    causes: &[&str],
    features: u64,
    messages: impl Fn(&mut Hostile) -> Vec<Answer> + Sync,
) {
    stage.case(row, sent, Log::Says(causes), |bench| {
        let mut hostile = Hostile::running(&bench.socket(), features);
        hostile.assert_serves();
        hostile.prepare(IDLE);
        let level = bench.daemon.child.fds();
        let answers = messages(&mut hostile);
        let wrong: Vec<_> =
            answers.iter().enumerate().filter(|(_, ack)| **ack != Answer::Refused(1)).collect();
        assert!(wrong.is_empty() && !answers.is_empty(), "not refused: {wrong:?}");
        hostile.assert_serves();
        assert_fds(bench, level);
        format!("{} x {}, rings go on", answers.len(), answers[0])
    });
}

/// The daemon has `level` file descriptors open, soon.
fn assert_fds(bench: &Bench, level: usize) {
    wait::until("the daemon's file descriptors", 2, || {
        let now = bench.daemon.child.fds();
        if now == level { Ok(()) } else { Err(format!("{now}, before: {level}")) }
    });
}
