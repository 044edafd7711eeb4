//! What is counted for each queue pair, and of workers' time.

use snapshot::{Passed, Port, QueuePair, Sizes, Worker};

use super::{Labels, Page, kind};

/// Octets of a frame that are on the wire only: its check sequence.
const FCS: u64 = 4;

type Cycles = fn(&Worker) -> u64;

/// What workers have done with their time.
pub fn workers(page: &mut Page, workers: &[Worker]) {
    let states: [(&str, Cycles); 2] =
        [("busy", |worker| worker.time.busy_cycles), ("idle", |worker| worker.time.idle_cycles)];
    let help =
        "Time that a worker polled, by whether its round moved a packet; while it sleeps there is none.";
    let mut seconds = page.family("ringwire_worker_seconds_total", "counter", help);
    for worker in workers {
        for (state, cycles) in states {
            let labels: &Labels<'_> = &[("worker", &worker.name), ("state", &state)];
            seconds.sample(labels, cycles(worker) as f64 / worker.time.cycles_per_second.max(1) as f64);
        }
    }
    let help = "The same in cycles of the time-stamp counter.";
    let mut cycles_total = page.family("ringwire_worker_cycles_total", "counter", help);
    for worker in workers {
        for (state, cycles) in states {
            cycles_total.sample(&[("worker", &worker.name), ("state", &state)], cycles(worker));
        }
    }
    let help = "Packets that a worker has moved from one port to another, dropped ones included.";
    let mut packets = page.family("ringwire_worker_packets_total", "counter", help);
    for worker in workers {
        packets.sample(&[("worker", &worker.name)], worker.time.packets);
    }
    let help = "Times that a worker went to sleep.";
    let mut naps = page.family("ringwire_worker_naps_total", "counter", help);
    for worker in workers {
        naps.sample(&[("worker", &worker.name)], worker.thread.as_ref().map_or(0, |thread| thread.naps));
    }
}

type Way = fn(&QueuePair) -> &Passed;

/// Both directions: what is in the metrics' names, and what that is.
const WAYS: [(&str, &str, Way); 2] =
    [("rx", "entered the datapath", |pair| &pair.rx), ("tx", "left the datapath", |pair| &pair.tx)];

/// A histogram a port and direction.
pub fn sizes(page: &mut Page, ports: &[Port]) {
    for (way, did, passed) in WAYS {
        let name = format!("ringwire_port_{way}_frame_size_bytes");
        let help =
            format!("Sizes on the wire, frame check sequence included, of packets that {did} at a port.");
        let mut family = page.family(&name, "histogram", &help);
        for port in ports {
            let bounds = Sizes::LAST.map(|last| last.to_string());
            let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
            let mut count = 0;
            for (class, bound) in bounds.enumerate() {
                count += port.pairs.iter().map(|pair| passed(pair).sizes.classes()[class]).sum::<u64>();
                let labels: &Labels<'_> = &[("port", &port.name), ("kind", &kind(port)), ("le", &bound)];
                family.part("_bucket", labels, count);
            }
            let bytes: u64 = port.pairs.iter().map(|pair| passed(pair).bytes).sum();
            let labels: &Labels<'_> = &[("port", &port.name), ("kind", &kind(port))];
            family.part("_sum", labels, bytes + FCS * count);
            family.part("_count", labels, count);
        }
    }
}

/// One sample a queue pair and direction.
pub fn pairs(page: &mut Page, ports: &[Port]) {
    for (way, did, passed) in WAYS {
        let mut family = |what: &str, metric: &str, help: &str, value: fn(&Passed) -> f64| {
            let name = format!("ringwire_pair_{way}_{what}");
            let mut family = page.family(&name, metric, help);
            for port in ports {
                for pair in &port.pairs {
                    let labels: &Labels<'_> =
                        &[("port", &port.name), ("kind", &kind(port)), ("pair", &pair.index)];
                    family.sample(labels, value(passed(pair)));
                }
            }
        };
        let help = format!("Packets that {did} at a queue pair.");
        family("packets_total", "counter", &help, |passed| passed.packets as f64);
        let help = format!("Bytes that {did} at a queue pair.");
        family("bytes_total", "counter", &help, |passed| passed.bytes as f64);
        let help = format!("Bursts, none of them empty, in which packets {did} at a queue pair.");
        family("bursts_total", "counter", &help, |passed| passed.bursts as f64);
        let help = match way {
            "rx" => "Packets that entered at a queue pair and wait for room at the other end.",
            _ => "Packets that wait to leave at a queue pair.",
        };
        family("held_packets", "gauge", help, |passed| passed.held as f64);
        let help = "Time during which any packets waited so.";
        family("held_seconds_total", "counter", help, |passed| passed.held_ns as f64 / 1e9);
    }
}
