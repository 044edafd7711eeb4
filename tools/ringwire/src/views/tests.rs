//! Each view of one datapath against the text it should be.

use snapshot::{Rates, Status, WorkerRates};

fn status() -> Status {
    let text = include_str!("../../../ringwired/tests/common/status.json");
    let mut status: Status = serde_json::from_str(text).unwrap();
    let (busy_percent, rounds_per_second) = (37.25, 1_234_567.0);
    status.workers[0].rates = Some(WorkerRates {
        busy_percent,
        rounds_per_second,
        utilisation_percent: 41.5,
        pps: 2e6,
        cycles_per_packet: Some(163.4),
    });
    for port in &mut status.ports {
        port.rates = Some(Rates::default());
    }
    let towards_guest = (1_204_819.0, 14_457_831_325.0);
    let from_guest = (602_409.0, 318_072_000.0);
    for (index, rx, tx) in [(0, towards_guest, from_guest), (2, from_guest, towards_guest)] {
        status.ports[index].rates = Some(Rates { rx_pps: rx.0, rx_bps: rx.1, tx_pps: tx.0, tx_bps: tx.1 });
    }
    status
}

#[test]
fn the_views_are_as_they_should_be() {
    let status = status();
    let views = [
        (super::status(&status), include_str!("expected/status.txt")),
        (super::ports(&status.ports), include_str!("expected/ports.txt")),
        (super::port(&status.ports[0]), include_str!("expected/nic.txt")),
        (super::port(&status.ports[3]), include_str!("expected/guest.txt")),
        (super::port(&status.ports[5]), include_str!("expected/tap.txt")),
        (super::stats(&status.ports), include_str!("expected/stats.txt")),
        (super::stats_of(&status.ports[3]), include_str!("expected/stats_guest.txt")),
        (super::explained(&status.ports), include_str!("expected/explained.txt")),
    ];
    for (view, expected) in views {
        assert_eq!(view, expected, "\n{view}");
    }
}

#[test]
fn before_the_second_sample_there_are_no_rates() {
    let mut status = status();
    status.workers[0].rates = None;
    status.ports[0].rates = None;
    let text = super::status(&status);
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let cells: Vec<String> = line("worker:1").split_whitespace().map(str::to_owned).collect();
    assert_eq!(cells[3..], ["-"; 4], "{text}");
    let wire0 = line("wire0");
    let cells: Vec<&str> = wire0.split_whitespace().collect();
    assert_eq!(cells[3..8], ["-"; 5], "{text}");
}
