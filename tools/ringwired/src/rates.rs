//! Rates from the two latest samples of the datapath's counters.

use std::collections::HashMap;
use std::time::Instant;

use snapshot::{Port, Rates, Status, Worker, WorkerRates};

/// The counters of one moment.
struct Sample {
    taken: Instant,
    ports: HashMap<String, [u64; 4]>,
    workers: HashMap<String, [u64; 4]>,
}

/// The two latest samples.
#[derive(Default)]
pub struct Sampler {
    previous: Option<Sample>,
    latest: Option<Sample>,
}

impl Sampler {
    /// Takes in what the datapath looked like at `taken`.
    pub fn sample(&mut self, taken: Instant, status: &Status) {
        let ports = status.ports.iter().map(|port| (port.name.clone(), port_counters(port)));
        let workers = status.workers.iter().map(|worker| (worker.name.clone(), worker_counters(worker)));
        self.previous = self.latest.take();
        self.latest = Some(Sample { taken, ports: ports.collect(), workers: workers.collect() });
    }

    /// Fills in the rates of every port and worker that is in both samples.
    pub fn annotate(&self, status: &mut Status) {
        let (Some(previous), Some(latest)) = (&self.previous, &self.latest) else {
            return;
        };
        let seconds = latest.taken.duration_since(previous.taken).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        for port in &mut status.ports {
            let before = previous.ports.get(&port.name);
            let after = latest.ports.get(&port.name);
            port.rates = before.zip(after).map(|(before, after)| {
                let [rx_packets, rx_bytes, tx_packets, tx_bytes] = increase(before, after);
                Rates {
                    rx_pps: rx_packets / seconds,
                    rx_bps: rx_bytes * 8.0 / seconds,
                    tx_pps: tx_packets / seconds,
                    tx_bps: tx_bytes * 8.0 / seconds,
                }
            });
        }
        for worker in &mut status.workers {
            let before = previous.workers.get(&worker.name);
            let after = latest.workers.get(&worker.name);
            worker.rates = before.zip(after).map(|(before, after)| {
                let [busy, idle, cycles, packets] = increase(before, after);
                let rounds = busy + idle;
                // A cycle counter that is faster or slower than it says must not show more than all.
                let share = cycles / (worker.time.cycles_per_second.max(1) as f64 * seconds);
                WorkerRates {
                    busy_percent: if rounds > 0.0 { 100.0 * busy / rounds } else { 0.0 },
                    rounds_per_second: rounds / seconds,
                    utilisation_percent: 100.0 * share.min(1.0),
                    pps: packets / seconds,
                    cycles_per_packet: (packets > 0.0).then(|| cycles / packets),
                }
            });
        }
    }
}

fn port_counters(port: &Port) -> [u64; 4] {
    [port.rx_packets, port.rx_bytes, port.tx_packets, port.tx_bytes]
}

fn worker_counters(worker: &Worker) -> [u64; 4] {
    [worker.busy_rounds, worker.idle_rounds, worker.time.busy_cycles, worker.time.packets]
}

/// How far each counter went; 0 for one that was reset in between.
fn increase<const N: usize>(before: &[u64; N], after: &[u64; N]) -> [f64; N] {
    std::array::from_fn(|i| after[i].saturating_sub(before[i]) as f64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use snapshot::{PortKind, WorkerTime};

    use super::*;

    fn status(names: &[&str], count: u64) -> Status {
        let port = |name: &&str| Port {
            name: (*name).to_owned(),
            kind: PortKind::Nic,
            state: "up".into(),
            rx_packets: count,
            rx_bytes: 100 * count,
            tx_packets: 2 * count,
            tx_bytes: 300 * count,
            held: 0,
            drops: BTreeMap::new(),
            pairs: Vec::new(),
            rates: None,
            guest: None,
            nic: None,
            interface: None,
        };
        let worker = Worker {
            name: "worker:1".into(),
            core: 1,
            lanes: 1,
            assigned: Vec::new(),
            busy_rounds: count,
            idle_rounds: 3 * count,
            time: WorkerTime {
                packets: 4 * count,
                busy_cycles: 400 * count,
                idle_cycles: 0,
                cycles_per_second: 8000,
            },
            rates: None,
            thread: None,
        };
        Status {
            version: "0".into(),
            pid: 1,
            uptime_seconds: 0.0,
            hugepages: false,
            idle: snapshot::Idle::Poll,
            burst: 64,
            workers: vec![worker],
            ports: names.iter().map(port).collect(),
        }
    }

    #[test]
    fn rates_come_from_the_two_latest_samples() {
        let start = Instant::now();
        let mut sampler = Sampler::default();
        let mut now = status(&["a", "b"], 0);
        sampler.annotate(&mut now);
        assert_eq!(now.ports[0].rates, None);
        sampler.sample(start, &status(&["a"], 7));
        sampler.sample(start + Duration::from_secs(1), &status(&["a"], 10));
        sampler.annotate(&mut now);
        assert!(now.ports[0].rates.is_some());
        sampler.sample(start + Duration::from_secs(3), &status(&["a", "b"], 30));
        sampler.annotate(&mut now);
        let rates = Rates { rx_pps: 10.0, rx_bps: 8000.0, tx_pps: 20.0, tx_bps: 24000.0 };
        assert_eq!(now.ports[0].rates, Some(rates));
        assert_eq!(now.ports[1].rates, None, "b is only in the later sample");
        let busy = WorkerRates {
            busy_percent: 25.0,
            rounds_per_second: 40.0,
            utilisation_percent: 50.0,
            pps: 40.0,
            cycles_per_packet: Some(100.0),
        };
        assert_eq!(now.workers[0].rates, Some(busy));
    }

    #[test]
    fn counters_that_went_back_and_time_that_stood_still_give_no_nonsense() {
        let start = Instant::now();
        let mut sampler = Sampler::default();
        let mut now = status(&["a"], 0);
        sampler.sample(start, &status(&["a"], 10));
        sampler.sample(start, &status(&["a"], 20));
        sampler.annotate(&mut now);
        assert_eq!(now.ports[0].rates, None);
        sampler.sample(start + Duration::from_secs(1), &status(&["a"], 5));
        sampler.annotate(&mut now);
        assert_eq!(now.ports[0].rates, Some(Rates::default()));
        assert_eq!(now.workers[0].rates, Some(WorkerRates::default()));
    }
}
