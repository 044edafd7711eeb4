//! While a guest's nic has no link, the guest is connected to its fallback.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::wait;

use crate::traffic::Traffic;

/// Seconds for which the link must be back: `fallback_hold`.
const HOLD: u64 = 1;
/// Guest vm1 with a nic and a fallback.
struct Stage(Traffic);

impl Stage {
    fn set() -> Stage {
        Stage(Traffic::start("wire0", &format!("fallback = \"tap0\"\nfallback_hold = {HOLD}\n")))
    }

    fn link(&self, up: bool) {
        self.0.lan.set_up("wire0", up);
    }

    /// As `ringwire port show` tells.
    fn shown(&self) -> (String, String, String) {
        let output = self.0.daemon.client(&["port", "show", "vm1", "--json"]);
        let port: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let text = |key: &str| port[key].as_str().unwrap_or_else(|| panic!("{key} in {port}")).to_owned();
        (text("backend"), text("backend_wanted"), text("fallback"))
    }

    fn assert_backend(&self, backend: &str, wanted: &str) {
        assert_eq!(self.shown(), (backend.to_owned(), wanted.to_owned(), "tap0".to_owned()));
    }

    /// Waits until the guest is connected to `backend`. How long that took from `since`.
    fn wait_backend(&self, backend: &str, since: Instant) -> Duration {
        wait::until(&format!("vm1 goes to {backend}"), 10, || {
            let (found, _, _) = self.shown();
            if found == backend { Ok(()) } else { Err(found) }
        });
        since.elapsed()
    }

    fn end(self) {
        self.0.end("connected: wire0 is");
    }
}

#[test]
fn fallback_is_taken_without_link_and_left_after_the_hold() {
    let stage = Stage::set();
    stage.assert_backend("wire0", "wire0");
    let down = Instant::now();
    stage.link(false);
    let took = stage.wait_backend("tap0", down);
    println!("to the fallback within {took:?} of the link's loss");
    stage.assert_backend("tap0", "wire0");
    assert_eq!(stage.0.daemon.port("wire0").state, "down");
    stage.0.assert_flows();

    let up = Instant::now();
    stage.link(true);
    let took = stage.wait_backend("wire0", up);
    println!("back {took:?} after the link, with a hold of {HOLD} s");
    assert!(took >= Duration::from_secs(HOLD), "back after {took:?}");
    stage.assert_backend("wire0", "wire0");
    stage.0.assert_flows();
    stage.end();
}

#[test]
fn a_link_that_flaps_faster_than_the_hold_is_not_returned_to() {
    let stage = Stage::set();
    stage.link(false);
    stage.wait_backend("tap0", Instant::now());
    let mut short = 0;
    for _ in 0..10 {
        let up = Instant::now();
        stage.link(true);
        std::thread::sleep(Duration::from_millis(500));
        stage.link(false);
        // A machine that has stopped for a while has made it long.
        if up.elapsed() < Duration::from_secs(HOLD) {
            short += 1;
            // The watch has time to do the wrong thing.
            std::thread::sleep(Duration::from_millis(300));
            stage.assert_backend("tap0", "wire0");
        } else {
            stage.wait_backend("tap0", Instant::now());
        }
        if short == 4 {
            break;
        }
    }
    assert_eq!(short, 4, "this machine is too slow for a link to flap");
    stage.0.assert_flows();
    stage.link(true);
    stage.wait_backend("wire0", Instant::now());
    stage.0.assert_flows();
    stage.end();
}

#[test]
fn what_is_asked_for_counts_more_than_the_fallback() {
    let stage = Stage::set();
    stage.link(false);
    stage.wait_backend("tap0", Instant::now());
    // None is what is wanted now: no link brings it to anything.
    stage.0.daemon.set_backend("vm1", "none");
    stage.assert_backend("none", "none");
    stage.link(true);
    std::thread::sleep(Duration::from_millis(1000 * HOLD + 500));
    stage.assert_backend("none", "none");
    // Without link: to the nic, and on to the fallback.
    stage.link(false);
    stage.0.daemon.set_backend("vm1", "wire0");
    stage.wait_backend("tap0", Instant::now());
    stage.assert_backend("tap0", "wire0");
    // To what it has anyway: it stays there when the link is back.
    stage.0.daemon.set_backend("vm1", "tap0");
    stage.link(true);
    std::thread::sleep(Duration::from_millis(1000 * HOLD + 500));
    stage.assert_backend("tap0", "tap0");
    stage.0.assert_flows();
    stage.end();
}
