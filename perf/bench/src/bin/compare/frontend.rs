//! The frontend: `ringwire-pktgen`, the same for all backends.

use std::process::Command;

use serde_json::Value;

use crate::Failure;
use crate::backend::{Backend, Place};
use crate::cell::{Cell, Size, Traffic};

/// Seconds of traffic before the measurement.
const WARM_UP: &str = "0.1";

/// Packets a second, both directions added up, that go through the backend; none if it lacks a feature.
pub fn run(cell: &Cell, backend: &Backend, place: &Place, seconds: f64) -> Result<Option<f64>, Failure> {
    let on = |on| if on { "on" } else { "off" };
    let (mode, counts) = match cell.traffic {
        Traffic::FromGuest => ("tx", ["tx_pps"].as_slice()),
        Traffic::ToGuest => ("rx", ["rx_pps"].as_slice()),
        Traffic::Both => ("both", ["tx_pps", "rx_pps"].as_slice()),
    };
    let mut command = Command::new(place.programs.join("ringwire-pktgen"));
    command.args(["run", "--json", "--count-only", "--kick", "never", "--wait", "20", "--mode", mode]);
    command.arg("--socket").arg(&backend.socket).args(["--core", &place.front.to_string()]);
    command.args(["--packed", on(cell.packed), "--mergeable", on(cell.mergeable)]);
    command.args(["--in-order", on(cell.in_order), "--warm-up", WARM_UP, "--seconds", &seconds.to_string()]);
    command.args(["--hugepages", if place.hugepages { "require" } else { "never" }]);
    match cell.size {
        Size::Bytes(bytes) => command.args(["--size", &bytes.to_string()]),
        Size::Imix => command.arg("--imix"),
    };
    let output = command.output().map_err(|error| Failure(format!("ringwire-pktgen: {error}")))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        if error.contains("does not offer") {
            return Ok(None);
        }
        let (name, who) = (cell.name(), backend.who.name());
        return Err(Failure(format!("{name}, {who}: ringwire-pktgen {}: {error}", output.status)));
    }
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let rate = |key: &&str| report["ports"][0][*key].as_f64();
    let rates: Option<Vec<f64>> = counts.iter().map(rate).collect();
    let rates = rates.ok_or_else(|| Failure(format!("not a report of ringwire-pktgen: {report}")))?;
    Ok(Some(rates.iter().sum()))
}
