//! What a trial found out, for people and for programs.

use serde::Serialize;

use crate::clock::Clock;
use crate::engine::{Outcome, Role, Station};
use crate::port::names;
use crate::track::Counts;

/// Bytes on an Ethernet wire besides the frame: preamble, FCS, gap.
const WIRE: u64 = 24;

/// Latency in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Packets measured.
    pub count: u64,
    pub min: f64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// One port in one trial.
#[derive(Clone, Debug, Serialize)]
pub struct PortReport {
    /// `port` or `peer`.
    pub name: &'static str,
    /// Ring format and features in use.
    pub features: Vec<&'static str>,
    /// Whether its memory is huge pages.
    pub hugepages: bool,
    /// Seconds of sending.
    pub seconds: f64,
    /// Packets that were due.
    pub offered: u64,
    /// Packets the backend was given.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Of those, still with the backend at the end.
    pub tx_pending: u64,
    /// Packets a second.
    pub tx_pps: f64,
    /// Bits of frames a second.
    pub tx_bps: f64,
    /// Kicks sent.
    pub kicks: u64,
    /// The backend returned descriptors in another order than it was given them. It may, unless that is negotiated; to
    /// take them back takes longer then.
    pub out_of_order: bool,
    /// Frames received, of any kind.
    pub rx_frames: u64,
    /// Frames received a second, while packets were sent.
    pub rx_pps: f64,
    /// Packets of ours received, and what was wrong with others.
    #[serde(flatten)]
    pub counts: Counts,
    /// Sent by the one whose packets these are, and neither received nor still with the backend.
    pub lost: u64,
    /// Part of them.
    pub loss_ratio: f64,
    /// Echo: frames not sent back for being too long.
    pub too_long: u64,
    /// From the time stamped into the packet, just before it was offered.
    pub latency_us: Option<Latency>,
    /// What it does.
    #[serde(skip)]
    pub role: Role,
}

/// One trial.
#[derive(Clone, Debug, Serialize)]
pub struct TrialReport {
    /// Packets a second that were asked for; none at line rate.
    pub rate_pps: Option<f64>,
    /// Each port.
    pub ports: Vec<PortReport>,
}

/// The report on each station.
pub fn ports(stations: &mut [Station], outcomes: &[Outcome], clock: &Clock) -> Vec<PortReport> {
    let all = stations.iter_mut().zip(outcomes);
    all.map(|(station, outcome)| {
        let source = station.source.map(|at| &outcomes[at]);
        port(station, outcome, source, clock)
    })
    .collect()
}

fn port(station: &mut Station, outcome: &Outcome, source: Option<&Outcome>, clock: &Clock) -> PortReport {
    let Outcome { counts, seconds, .. } = *outcome;
    let unique = counts.received - counts.duplicates;
    // From another program, only the numbers that are missing are known.
    let lost = match source {
        Some(source) => source.sent.saturating_sub(source.pending).saturating_sub(unique),
        None => counts.missing,
    };
    let of = source.map_or(unique + lost, |source| source.sent);
    let per_second = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
    PortReport {
        name: station.name,
        features: names(station.port.features),
        hugepages: station.port.huge,
        seconds,
        offered: outcome.offered,
        tx_packets: outcome.sent,
        tx_bytes: outcome.sent_bytes,
        tx_pending: outcome.pending,
        tx_pps: per_second(outcome.sent),
        tx_bps: per_second(outcome.sent_bytes * 8),
        kicks: outcome.kicks,
        out_of_order: !station.port.orderly(),
        rx_frames: outcome.frames,
        rx_pps: per_second(outcome.received_in_time),
        counts,
        lost,
        loss_ratio: if of > 0 { lost as f64 / of as f64 } else { 0.0 },
        too_long: outcome.too_long,
        latency_us: latency(station, clock),
        role: station.role,
    }
}

fn latency(station: &mut Station, clock: &Clock) -> Option<Latency> {
    let histogram = station.tracker.latency();
    let us = |ticks: f64| ticks * clock.ns_per_tick() / 1000.0;
    let at = |quantile| us(histogram.value_at_quantile(quantile) as f64);
    (!histogram.is_empty()).then(|| Latency {
        count: histogram.len(),
        min: us(histogram.min() as f64),
        mean: us(histogram.mean()),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: us(histogram.max() as f64),
    })
}

impl PortReport {
    /// Whether nothing was lost, damaged or duplicated, or is stuck.
    pub fn clean(&self) -> bool {
        self.lost == 0 && self.tx_pending == 0 && self.counts.corrupt == 0 && self.counts.duplicates == 0
    }
}

/// A rate as people read it.
pub fn pps(rate: f64) -> String {
    match rate {
        r if r >= 1e6 => format!("{:.3} Mpps", r / 1e6),
        r if r >= 1e3 => format!("{:.3} kpps", r / 1e3),
        r => format!("{r:.1} pps"),
    }
}

/// The table.
pub fn text(ports: &[PortReport]) -> String {
    let mut out = String::new();
    let longest = ports.iter().map(|p| p.features.join(" ").len()).max().unwrap_or(0);
    let width = 26.max(longest + 2);
    let mut row = |name: &str, cell: &dyn Fn(&PortReport) -> String| {
        let cells: Vec<String> = ports.iter().map(|p| format!("{:>width$}", cell(p))).collect();
        if cells.iter().any(|c| !c.trim().is_empty()) {
            out += &format!("{name:<26}{}\n", cells.concat());
        }
    };
    let wire = |p: &PortReport| p.tx_pps * (WIRE * 8) as f64 + p.tx_bps;
    let us = |value: Option<f64>| value.map_or(String::new(), |v| format!("{v:.2}"));
    row("", &|p| p.name.to_string());
    row("ring", &|p| p.features.join(" "));
    // What a port does not do is left blank: a 0 would say that it was looked for, and not found.
    let sends = |p: &PortReport, cell: String| if p.role.tx || p.role.echo { cell } else { String::new() };
    let receives = |p: &PortReport, cell: String| if p.role.receives() { cell } else { String::new() };
    let looks = |p: &PortReport, cell: String| if p.role.rx { cell } else { String::new() };
    row("tx packets", &|p| sends(p, p.tx_packets.to_string()));
    row("   due, but not taken", &|p| more(p.offered.saturating_sub(p.tx_packets)));
    row("   still with the backend", &|p| more(p.tx_pending));
    row("tx rate", &|p| sends(p, pps(p.tx_pps)));
    row("   frames", &|p| sends(p, format!("{:.3} Gbit/s", p.tx_bps / 1e9)));
    row("   as on a wire", &|p| sends(p, format!("{:.3} Gbit/s", wire(p) / 1e9)));
    row("rx frames", &|p| receives(p, p.rx_frames.to_string()));
    row("rx rate", &|p| receives(p, pps(p.rx_pps)));
    row("   ours", &|p| looks(p, p.counts.received.to_string()));
    row("   lost", &|p| looks(p, format!("{} ({:.4}%)", p.lost, p.loss_ratio * 100.0)));
    row("   reordered", &|p| looks(p, p.counts.reordered.to_string()));
    row("   duplicates", &|p| looks(p, p.counts.duplicates.to_string()));
    row("   corrupt", &|p| looks(p, p.counts.corrupt.to_string()));
    row("   foreign", &|p| looks(p, p.counts.foreign.to_string()));
    row("   too long to echo", &|p| more(p.too_long));
    row("latency, us: min", &|p| us(p.latency_us.as_ref().map(|l| l.min)));
    row("   p50", &|p| us(p.latency_us.as_ref().map(|l| l.p50)));
    row("   p99", &|p| us(p.latency_us.as_ref().map(|l| l.p99)));
    row("   p99.9", &|p| us(p.latency_us.as_ref().map(|l| l.p999)));
    row("   max", &|p| us(p.latency_us.as_ref().map(|l| l.max)));
    row("seconds", &|p| format!("{:.3}", p.seconds));
    out
}

/// A number that is of interest when it is not 0.
fn more(number: u64) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

/// One line a port and trial.
pub fn csv(trials: &[TrialReport]) -> String {
    let mut out = String::from(
        "trial,rate_pps,port,ring,seconds,offered,tx_packets,tx_bytes,tx_pending,tx_pps,rx_frames,rx_pps,\
         received,lost,loss_ratio,reordered,duplicates,corrupt,foreign,p50_us,p99_us,p999_us,max_us\n",
    );
    for (number, trial) in trials.iter().enumerate() {
        for p in &trial.ports {
            let us = |f: fn(&Latency) -> f64| {
                p.latency_us.as_ref().map_or(String::new(), |l| format!("{:.3}", f(l)))
            };
            let c = &p.counts;
            let cells = [
                (number + 1).to_string(),
                trial.rate_pps.map_or("line".into(), |r| format!("{r:.0}")),
                p.name.into(),
                p.features.join(" "),
                format!("{:.6}", p.seconds),
                p.offered.to_string(),
                p.tx_packets.to_string(),
                p.tx_bytes.to_string(),
                p.tx_pending.to_string(),
                format!("{:.0}", p.tx_pps),
                p.rx_frames.to_string(),
                format!("{:.0}", p.rx_pps),
                c.received.to_string(),
                p.lost.to_string(),
                format!("{:.8}", p.loss_ratio),
                c.reordered.to_string(),
                c.duplicates.to_string(),
                c.corrupt.to_string(),
                c.foreign.to_string(),
                us(|l| l.p50),
                us(|l| l.p99),
                us(|l| l.p999),
                us(|l| l.max),
            ];
            out += &(cells.join(",") + "\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &'static str, role: Role) -> PortReport {
        PortReport {
            name,
            features: vec!["packed", "mergeable", "in-order", "event-idx", "indirect", "gso"],
            hugepages: false,
            seconds: 1.0,
            offered: 10,
            tx_packets: 10,
            tx_bytes: 640,
            tx_pending: 0,
            tx_pps: 10.0,
            tx_bps: 5120.0,
            kicks: 0,
            out_of_order: false,
            rx_frames: 0,
            rx_pps: 0.0,
            counts: Counts::default(),
            lost: 0,
            loss_ratio: 0.0,
            too_long: 0,
            latency_us: None,
            role,
        }
    }

    /// The cells of the row `name`.
    fn row<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
        let line = table.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).skip(1).collect()
    }

    #[test]
    fn every_field_is_in_the_manual() {
        let us = Latency { count: 1, min: 1.0, mean: 1.0, p50: 1.0, p90: 1.0, p99: 1.0, p999: 1.0, max: 1.0 };
        let report = PortReport { latency_us: Some(us), ..report("port", Role::default()) };
        let json = serde_json::to_value(&report).expect("JSON");
        let fields = [json.as_object(), json["latency_us"].as_object()].into_iter().flatten();
        let manual = include_str!("../../README.md");
        let fields: Vec<&String> = fields.flat_map(|object| object.keys()).collect();
        assert!(fields.len() > 30, "{fields:?}");
        for field in fields {
            assert!(manual.contains(&format!("`{field}`")), "{field}");
        }
    }

    #[test]
    fn a_backend_that_keeps_packets_is_not_clean() {
        let mut sender = report("port", Role { tx: true, ..Role::default() });
        assert!(sender.clean());
        sender.tx_pending = 1;
        assert!(!sender.clean());
    }

    #[test]
    fn the_table_says_nothing_of_what_a_port_does_not_do() {
        let sender = report("port", Role { tx: true, ..Role::default() });
        let alone = text(std::slice::from_ref(&sender));
        assert_eq!(row(&alone, "tx packets"), ["10"]);
        assert!(!alone.contains("lost") && !alone.contains("rx"), "{alone}");

        let counter = text(&[report("port", Role { count: true, ..Role::default() })]);
        assert_eq!(row(&counter, "rx frames"), ["0"]);
        assert!(!counter.contains("lost") && !counter.contains("tx"), "{counter}");

        let both = text(&[sender, report("peer", Role { rx: true, ..Role::default() })]);
        assert_eq!(
            (row(&both, "tx packets"), row(&both, "lost")),
            (vec!["10"], vec!["0 (0.0000%)"]),
            "{both}"
        );
        let ring = "packed mergeable in-order event-idx indirect gso";
        assert_eq!(row(&both, "ring"), [ring, ring], "{both}");
    }
}
