//! One cell's traffic through one backend.

use ringwire_bench::Failure;
use ringwire_bench::backend::{Backend, Who};
use ringwire_bench::frontend::{number, report};
use ringwire_bench::place::Place;

use crate::cell::{Cell, GSO_BYTES, Size, Traffic};

/// Seconds of traffic before the measurement. Open vSwitch's ports come up a while after the frontend has connected.
fn warm_up(who: Who) -> &'static str {
    if who == Who::OpenVswitch { "1" } else { "0.1" }
}

/// Packets a second that go through the backend, both directions added up; none if it lacks a feature.
pub fn measure(cell: &Cell, backend: &Backend, place: &Place, seconds: f64) -> Result<Option<f64>, Failure> {
    let limit = backend.who == Who::Reflect;
    let mode = match cell.traffic {
        Traffic::FromGuest => "tx",
        Traffic::ToGuest => "rx",
        Traffic::Both => "both",
        // One guest that sends and receives has as much to do as two of which each does one.
        Traffic::Between => {
            if limit {
                "both"
            } else {
                "tx"
            }
        }
    };
    let mut command = backend.pktgen("run", cell.rings(), place);
    command.args([
        "--count-only",
        "--mode",
        mode,
        "--warm-up",
        warm_up(backend.who),
        "--seconds",
        &seconds.to_string(),
    ]);
    match cell.size {
        Size::Bytes(bytes) => command.args(["--size", &bytes.to_string()]),
        Size::Imix => command.arg("--imix"),
        Size::Gso => command.args(["--gso", "--size", &GSO_BYTES.to_string()]),
    };
    let Some(report) = report(&mut command)? else { return Ok(None) };
    let (sent, received) = (|| number(&report, "/ports/0/tx_pps"), || number(&report, "/ports/0/rx_pps"));
    let rate = match cell.traffic {
        Traffic::FromGuest => sent()?,
        Traffic::ToGuest => received()?,
        Traffic::Both => sent()? + received()?,
        Traffic::Between if limit => sent()?.min(received()?),
        Traffic::Between => number(&report, "/ports/1/rx_pps")?,
    };
    if rate == 0.0 {
        return Err(Failure("nothing came through".into()));
    }
    Ok(Some(rate))
}
