//! The metrics.

use std::io::Write;

use super::{get, shown};
use crate::common::{self, Server};

#[test]
fn metrics_are_in_prometheus_text_format() {
    let server = Server::start();
    let body = shown(&server, "/metrics", "text/plain; version=0.0.4");
    for line in [
        "# TYPE ringwire_port_rx_packets_total counter",
        "ringwire_build_info{version=\"0.1.0\"} 1",
        "ringwire_uptime_seconds 11533.25",
        "ringwire_worker_rounds_total{worker=\"worker:1\",state=\"busy\"} 1500",
        "ringwire_port_state{port=\"vm2\",kind=\"guest\",state=\"broken\"} 1",
        "ringwire_port_rx_packets_total{port=\"wire0\",kind=\"nic\"} 1200300",
        "ringwire_port_tx_bytes_total{port=\"vm1\",kind=\"guest\"} 1733550000",
        "ringwire_port_held_packets{port=\"vm2\",kind=\"guest\"} 32",
        "ringwire_port_drops_total{port=\"wire0\",kind=\"nic\",reason=\"guest-full\"} 300",
        "ringwire_queue_broken{port=\"vm2\",queue=\"1\"} 1",
        "ringwire_worker_seconds_total{worker=\"worker:1\",state=\"busy\"} 0.0003",
        "ringwire_worker_cycles_total{worker=\"worker:1\",state=\"idle\"} 150000",
        "ringwire_worker_packets_total{worker=\"worker:1\"} 2400",
        "ringwire_port_rx_frame_size_bytes_bucket{port=\"vm2\",kind=\"guest\",le=\"127\"} 60",
        "ringwire_port_rx_frame_size_bytes_bucket{port=\"vm2\",kind=\"guest\",le=\"+Inf\"} 64",
        "ringwire_port_rx_frame_size_bytes_sum{port=\"vm2\",kind=\"guest\"} 4352",
        "ringwire_pair_rx_bursts_total{port=\"vm2\",kind=\"guest\",pair=\"0\"} 2",
        "ringwire_pair_tx_held_seconds_total{port=\"vm2\",kind=\"guest\",pair=\"0\"} 0.0015",
        "ringwire_nic_link_speed_bytes{port=\"wire0\"} 1250000000",
        "ringwire_nic_device_total{port=\"wire0\",counter=\"imissed\"} 5",
    ] {
        assert!(body.lines().any(|found| found == line), "{line}\nis not in\n{body}");
    }
    // Each family is announced once, before its samples, and nothing else is there.
    let (mut family, mut histogram) = (String::new(), false);
    let mut announced = std::collections::HashSet::new();
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(announced.insert(family.clone()), "{family} is announced twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
            histogram = kind == "histogram";
        } else {
            let (labelled, value) = line.rsplit_once(' ').unwrap();
            let name = labelled.split('{').next().unwrap();
            let part = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} is not of {family}"));
            assert!(if histogram { ["_bucket", "_sum", "_count"].contains(&part) } else { part.is_empty() });
            value.parse::<f64>().expect(line);
        }
    }
}

#[test]
fn prometheus_finds_nothing_to_say_about_the_metrics() {
    let mut command = std::process::Command::new("promtool");
    command
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let Ok(mut promtool) = command.stderr(std::process::Stdio::piped()).spawn() else {
        println!("skipped: promtool (Debian: prometheus) is not installed");
        return;
    };
    let (_, _, body) = get(&Server::start(), "/metrics");
    promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.is_empty(), "{text}");
}

#[test]
fn label_values_are_escaped() {
    let server = Server::with(|| {
        let mut status = common::status();
        status.ports[0].drops.insert("a\"b\\c\nd".into(), 1);
        status
    });
    let (_, _, body) = get(&server, "/metrics");
    assert!(body.contains(r#"reason="a\"b\\c\nd"} 1"#), "{body}");
}
