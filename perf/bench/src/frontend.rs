//! The frontend: `ringwire-pktgen`, the same for all backends.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::Failure;
use crate::place::Place;

/// What a guest negotiates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rings {
    /// Packed rings, or split ones.
    pub packed: bool,
    /// Mergeable receive buffers.
    pub mergeable: bool,
    /// VIRTIO_F_IN_ORDER.
    pub in_order: bool,
}

/// `ringwire-pktgen` as a guest of a backend that listens on `sockets`: on a second one, if there is, is its peer.
pub fn pktgen(what: &str, sockets: &[PathBuf], rings: Rings, place: &Place) -> Command {
    let on = |on| if on { "on" } else { "off" };
    let mut command = Command::new(place.program("ringwire-pktgen"));
    command.args([what, "--json", "--wait", "20", "--core", &place.front.to_string()]);
    for (option, socket) in ["--socket", "--peer"].iter().zip(sockets) {
        command.arg(option).arg(socket);
    }
    command.args(["--packed", on(rings.packed), "--mergeable", on(rings.mergeable)]);
    command.args(["--in-order", on(rings.in_order)]);
    command.args(["--hugepages", if place.hugepages { "require" } else { "never" }]);
    command
}

/// Runs it: its report; none if the backend lacks a feature.
pub fn report(command: &mut Command) -> Result<Option<Value>, Failure> {
    let output = command.output().map_err(|error| Failure(format!("ringwire-pktgen: {error}")))?;
    if output.status.success() {
        return Ok(Some(serde_json::from_slice(&output.stdout)?));
    }
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("does not offer") {
        return Ok(None);
    }
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    Err(Failure(format!("ringwire-pktgen {}: {}: {error}", arguments.join(" "), output.status)))
}

/// A number in its report.
pub fn number(report: &Value, pointer: &str) -> Result<f64, Failure> {
    let missing = || Failure(format!("no {pointer} in a report of ringwire-pktgen: {report}"));
    report.pointer(pointer).and_then(Value::as_f64).ok_or_else(missing)
}
