//! Captures come and go without a ring, or a packet, being disturbed: the lanes of the port are taken from their owners,
//! get their taps, and are given back to them.

use std::sync::Arc;

use port::capture::{Capture, Taps};

use super::Control;

impl Control {
    /// Copies of what passes a capture's port go to it from now on.
    pub fn add_capture(&mut self, capture: &Arc<Capture>) {
        self.captures.push(capture.clone());
        self.renew_taps(&capture.wanted().port);
    }

    /// Nothing goes to it any more.
    pub fn remove_capture(&mut self, capture: &Arc<Capture>) {
        self.captures.retain(|other| !Arc::ptr_eq(other, capture));
        self.renew_taps(&capture.wanted().port);
    }

    fn renew_taps(&self, port: &str) {
        let Some(wire) = self.wire_of(port).map(|at| &self.wires[at]) else { return };
        for placed in &wire.lanes {
            let mut lane = self.take(placed);
            // First, so that its rings are free for the new ones.
            lane.taps = None;
            lane.taps = Taps::new(&self.captures, &wire.guest, &wire.backend);
            self.give(placed.worker, lane);
        }
    }
}
