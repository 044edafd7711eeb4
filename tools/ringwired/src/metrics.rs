//! `GET /metrics`: the snapshot in Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};

use snapshot::{Guest, Nic, Port, PortKind, Status, Worker};

mod counters;

/// Content type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Labels<'a> = [(&'a str, &'a dyn Display)];

/// The text of one answer.
struct Page {
    text: String,
}

/// One metric family: its samples follow its HELP and TYPE lines.
struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Page {
    fn family<'a>(&'a mut self, name: &'a str, kind: &str, help: &str) -> Family<'a> {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.text, name }
    }
}

impl Family<'_> {
    fn sample(&mut self, labels: &Labels<'_>, value: impl Display) {
        self.part("", labels, value);
    }

    /// A sample of a histogram, whose name ends in what it is.
    fn part(&mut self, suffix: &str, labels: &Labels<'_>, value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (index, (label, content)) in labels.iter().enumerate() {
            let opening = if index == 0 { '{' } else { ',' };
            let content = content.to_string();
            let escaped = content.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{opening}{label}=\"{escaped}\"");
        }
        let closing = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{closing} {value}");
    }
}

/// Everything in `status`.
pub fn render(status: &Status) -> String {
    let mut page = Page { text: String::new() };
    daemon(&mut page, status);
    workers(&mut page, &status.workers);
    counters::workers(&mut page, &status.workers);
    ports(&mut page, &status.ports);
    counters::sizes(&mut page, &status.ports);
    counters::pairs(&mut page, &status.ports);
    drops(&mut page, &status.ports);
    guests(&mut page, &status.ports);
    queues(&mut page, &status.ports);
    nics(&mut page, &status.ports);
    page.text
}

fn daemon(page: &mut Page, status: &Status) {
    page.family("ringwire_build_info", "gauge", "Version of ringwired; always 1.")
        .sample(&[("version", &status.version)], 1);
    page.family("ringwire_uptime_seconds", "gauge", "Seconds since the datapath started.")
        .sample(&[], status.uptime_seconds);
    page.family("ringwire_hugepages", "gauge", "1 if DPDK's memory lies in hugepages.")
        .sample(&[], u8::from(status.hugepages));
}

fn workers(page: &mut Page, workers: &[Worker]) {
    let help = "Poll rounds of a worker, by whether they moved a packet.";
    let mut rounds = page.family("ringwire_worker_rounds_total", "counter", help);
    for worker in workers {
        let labels = |state| [("worker", &worker.name as &dyn Display), ("state", state)];
        rounds.sample(&labels(&"busy"), worker.busy_rounds);
        rounds.sample(&labels(&"idle"), worker.idle_rounds);
    }
    let mut lanes = page.family("ringwire_worker_lanes", "gauge", "Lanes that a worker polls.");
    for worker in workers {
        lanes.sample(&[("worker", &worker.name)], worker.lanes);
    }
}

fn kind(port: &Port) -> &'static str {
    match port.kind {
        PortKind::Guest => "guest",
        PortKind::Nic => "nic",
        PortKind::Tap => "tap",
        PortKind::Raw => "raw",
    }
}

/// One sample a port.
fn per_port(
    page: &mut Page,
    ports: &[Port],
    (name, metric, help): (&str, &str, &str),
    value: impl Fn(&Port) -> u64,
) {
    let mut family = page.family(name, metric, help);
    for port in ports {
        family.sample(&[("port", &port.name), ("kind", &kind(port))], value(port));
    }
}

fn ports(page: &mut Page, ports: &[Port]) {
    let mut state = page.family("ringwire_port_state", "gauge", "1 for the state that a port is in.");
    for port in ports {
        let labels: &Labels<'_> = &[("port", &port.name), ("kind", &kind(port)), ("state", &port.state)];
        state.sample(labels, 1);
    }
    let rx = "Packets that entered the datapath at a port.";
    per_port(page, ports, ("ringwire_port_rx_packets_total", "counter", rx), |p| p.rx_packets);
    let rx = "Bytes that entered the datapath at a port.";
    per_port(page, ports, ("ringwire_port_rx_bytes_total", "counter", rx), |p| p.rx_bytes);
    let tx = "Packets that left the datapath at a port.";
    per_port(page, ports, ("ringwire_port_tx_packets_total", "counter", tx), |p| p.tx_packets);
    let tx = "Bytes that left the datapath at a port.";
    per_port(page, ports, ("ringwire_port_tx_bytes_total", "counter", tx), |p| p.tx_bytes);
    let held = "Packets that entered at a port and wait for its peer.";
    per_port(page, ports, ("ringwire_port_held_packets", "gauge", held), |p| p.held);
}

fn drops(page: &mut Page, ports: &[Port]) {
    let help = "Packets that entered at a port and were dropped, by reason.";
    let mut drops = page.family("ringwire_port_drops_total", "counter", help);
    for port in ports {
        for (reason, count) in &port.drops {
            let labels: &Labels<'_> = &[("port", &port.name), ("kind", &kind(port)), ("reason", reason)];
            drops.sample(labels, count);
        }
    }
}

fn guests(page: &mut Page, ports: &[Port]) {
    let guests = || ports.iter().filter_map(|port| Some((&port.name, port.guest.as_ref()?)));
    let mut family = |name: &str, metric: &str, help: &str, value: fn(&Guest) -> u64| {
        let mut family = page.family(name, metric, help);
        for (port, guest) in guests() {
            family.sample(&[("port", port)], value(guest));
        }
    };
    let help = "1 if a frontend is connected.";
    family("ringwire_guest_connected", "gauge", help, |guest| guest.connected.into());
    let help = "Frontends that have connected so far.";
    family("ringwire_guest_connections_total", "counter", help, |guest| guest.connections);
    let help = "Bytes of memory mapped from the frontend.";
    family("ringwire_guest_memory_bytes", "gauge", help, |guest| guest.memory_bytes);
}

fn queues(page: &mut Page, ports: &[Port]) {
    let queues = || {
        ports.iter().flat_map(|port| {
            let queues = port.guest.iter().flat_map(|guest| &guest.queues);
            queues.map(|queue| (&port.name, queue))
        })
    };
    let mut family = |name: &str, metric: &str, help: &str, value: fn(&snapshot::Queue) -> u64| {
        let mut family = page.family(name, metric, help);
        for (port, queue) in queues() {
            family.sample(&[("port", port), ("queue", &queue.index)], value(queue));
        }
    };
    let help = "1 if the frontend has enabled the virtqueue.";
    family("ringwire_queue_enabled", "gauge", help, |queue| queue.enabled.into());
    let help = "1 if the virtqueue was stopped for good because it violated the protocol.";
    family("ringwire_queue_broken", "gauge", help, |queue| queue.violation.is_some().into());
    let help = "Chains returned to the guest.";
    family("ringwire_queue_used_total", "counter", help, |queue| queue.used);
    let help = "Kicks that were noticed: none while the virtqueue is polled.";
    family("ringwire_queue_kicks_total", "counter", help, |queue| queue.kicks);
    let help = "Calls (guest interrupts) sent.";
    family("ringwire_queue_calls_total", "counter", help, |queue| queue.calls);
    let help = "Calls left out because the guest had suppressed them.";
    family("ringwire_queue_calls_suppressed_total", "counter", help, |queue| queue.calls_suppressed);
    let help = "Times that the virtqueue was stopped because it violated the protocol, by reason.";
    let mut violations = page.family("ringwire_queue_violations_total", "counter", help);
    for (port, queue) in queues() {
        for (reason, count) in &queue.violations {
            let labels: &Labels<'_> = &[("port", port), ("queue", &queue.index), ("reason", reason)];
            violations.sample(labels, count);
        }
    }
}

fn nics(page: &mut Page, ports: &[Port]) {
    let nics = || ports.iter().filter_map(|port| Some((&port.name, port.nic.as_ref()?)));
    let mut family = |name: &str, help: &str, value: fn(&Nic) -> u64| {
        let mut family = page.family(name, "gauge", help);
        for (port, nic) in nics() {
            family.sample(&[("port", port)], value(nic));
        }
    };
    family("ringwire_nic_link_up", "1 if the link is up.", |nic| nic.link_up.into());
    let help = "Link speed in bytes a second; 0 where the driver does not say.";
    family("ringwire_nic_link_speed_bytes", help, |nic| u64::from(nic.link_speed_mbps) * 125_000);
    let help = "The device's own basic counters, by DPDK's name for them.";
    let mut stats = page.family("ringwire_nic_device_total", "counter", help);
    for (port, nic) in nics() {
        for (counter, count) in &nic.device_stats {
            stats.sample(&[("port", port), ("counter", counter)], count);
        }
    }
    // Drivers put gauges among them, so these have no type.
    let help = "The driver's extended statistics, by its own names.";
    let mut xstats = page.family("ringwire_nic_xstat", "untyped", help);
    for (port, nic) in nics() {
        for (name, value) in &nic.xstats {
            xstats.sample(&[("port", port), ("name", name)], value);
        }
    }
}
