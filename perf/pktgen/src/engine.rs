//! One trial: the packet loop, from the first packet sent to the last one that comes.

use std::sync::Arc;

use crate::clock::Clock;
use crate::frame::Traffic;
use crate::port::Port;
use crate::progress::Live;
use crate::track::{Counts, Tracker};

/// What a port does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Generates.
    pub tx: bool,
    /// Receives and checks.
    pub rx: bool,
    /// Sends back what it receives.
    pub echo: bool,
    /// Receives, and counts, without looking at what.
    pub count: bool,
}

impl Role {
    /// Whether it wants frames, for whatever use.
    pub fn receives(self) -> bool {
        self.rx || self.echo || self.count
    }
}

/// A port with its part in a trial.
#[derive(Debug)]
pub struct Station {
    /// `port`, or `port` and `peer`.
    pub name: &'static str,
    /// The device.
    pub port: Port,
    /// Its part.
    pub role: Role,
    /// What it sends, for each queue pair.
    pub traffic: Vec<Traffic>,
    /// The station whose packets it expects; `None`: some other program's.
    pub source: Option<usize>,
    /// What it received.
    pub tracker: Tracker,
}

/// How fast to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as the backend takes them.
    Line,
    /// Packets a second, of each sending port.
    Packets(f64),
}

/// What to do in a trial.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of each sending port.
    pub rate: Rate,
    /// For how long; `None`: until the count is reached, or for ever.
    pub seconds: Option<f64>,
    /// Packets of each port; `None`: until the time is up.
    pub count: Option<u64>,
    /// Packets at a time.
    pub burst: u32,
    /// How long nothing must come before the last packet is believed to have come.
    pub drain: f64,
}

/// How long a paced sender may go on after its time is up, as a part of it: it catches up with its plan.
const GRACE: f64 = 0.01;

/// What a trial found out about one port.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Packets that were due; of a sender at line rate, those sent.
    pub offered: u64,
    /// Handed to the backend.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Of those, never returned: the backend still has them.
    pub pending: u64,
    /// Frames received before the senders stopped.
    pub received_in_time: u64,
    /// All receptions.
    pub counts: Counts,
    /// Frames of any kind received.
    pub frames: u64,
    /// Echo: not sent back for being too long.
    pub too_long: u64,
    /// Kicks.
    pub kicks: u64,
    /// Seconds of sending.
    pub seconds: f64,
}

/// Runs trials on stations.
pub struct Engine<'a> {
    /// Time.
    pub clock: &'a Clock,
    /// Seen by other threads, and changed by them.
    pub live: &'a Arc<Live>,
}

/// The part of a trial in which packets are sent.
struct Sending {
    seconds: f64,
    /// Frames that each station received meanwhile.
    in_time: Vec<u64>,
    /// Packets of each station that were due when it ended; none at line rate.
    due: Option<Vec<u64>>,
}

/// Packets that are due, by time.
struct Pace {
    /// Packets a tick, times 2^64.
    per_tick: u64,
    /// Packets in all.
    limit: u64,
}

impl Pace {
    /// For one of `queues` queues, the `k`-th.
    fn new(plan: &Plan, clock: &Clock, queues: usize, k: usize) -> Pace {
        let share = |total: u64| total / queues as u64 + u64::from((k as u64) < total % queues as u64);
        let limit = plan.count.map_or(u64::MAX, share);
        match plan.rate {
            Rate::Line => Pace { per_tick: u64::MAX, limit },
            Rate::Packets(rate) => {
                let per_tick = rate / queues as f64 / clock.hz();
                let in_time = plan.seconds.map_or(u64::MAX, |s| share((rate * s).round() as u64));
                Pace { per_tick: (per_tick * 2f64.powi(64)) as u64, limit: limit.min(in_time) }
            }
        }
    }

    /// Packets due after `elapsed` ticks: the first at once, so that the last is due before the time is up.
    #[inline(always)]
    fn due(&self, elapsed: u64) -> u64 {
        let intervals = ((u128::from(elapsed) * u128::from(self.per_tick)) >> 64) as u64;
        self.limit.min(intervals + 1)
    }
}

impl Engine<'_> {
    /// Whether to go on: nobody asked to stop, and all backends are there and keep the rules.
    fn going(&self, stations: &[Station]) -> bool {
        self.live.going() && stations.iter().all(|s| s.port.broken().is_none())
    }

    /// Sends `plan`'s packets, and waits for the last of them.
    pub fn trial(&self, stations: &mut [Station], plan: &Plan, epoch: u8) -> Vec<Outcome> {
        for at in 0..stations.len() {
            let source = stations[at].source;
            let flows = source.map(|s| {
                let traffic = &stations[s].traffic;
                (traffic[0].flow_base, traffic.iter().map(|t| t.flows).sum::<u32>())
            });
            let station = &mut stations[at];
            let (first, count) = flows.unwrap_or((0, 1));
            station.tracker = Tracker::new(first, count, epoch, source.is_none());
            for (queue, traffic) in station.port.tx.iter_mut().zip(&mut station.traffic) {
                queue.ring.reclaim();
                traffic.epoch = epoch;
                queue.arm(traffic);
                queue.kick.count = 0;
            }
            for queue in &mut station.port.rx {
                (queue.frames, queue.too_long) = (0, 0);
            }
        }
        let paces: Vec<Vec<Pace>> = stations
            .iter()
            .map(|s| (0..s.port.tx.len()).map(|k| Pace::new(plan, self.clock, s.port.tx.len(), k)).collect())
            .collect();
        let sending = self.sending(stations, plan, &paces);
        self.drain(stations, plan);
        self.publish(stations);
        stations.iter().enumerate().map(|(at, s)| outcome(s, at, &sending)).collect()
    }

    /// The packet loop proper.
    fn sending(&self, stations: &mut [Station], plan: &Plan, paces: &[Vec<Pace>]) -> Sending {
        let start = self.clock.now();
        let end = plan.seconds.map_or(u64::MAX, |s| start + self.clock.ticks(s));
        let late = plan.seconds.map_or(u64::MAX, |s| start + self.clock.ticks(s * (1.0 + GRACE)));
        let paced = plan.rate != Rate::Line;
        let sends = stations.iter().any(|s| s.role.tx);
        let mut rounds = 0u32;
        let (mut now, mut elapsed);
        loop {
            now = self.clock.now();
            elapsed = now.min(end) - start;
            let mut done = sends;
            for (station, paces) in stations.iter_mut().zip(paces) {
                if station.role.tx {
                    for (queue, pace) in station.port.tx.iter_mut().zip(paces) {
                        let left = pace.limit - queue.sent;
                        done &= left == 0;
                        let burst = plan.burst.min(left.min(u64::from(u32::MAX)) as u32);
                        if paced {
                            let due =
                                pace.due(elapsed).saturating_sub(queue.sent).min(u64::from(burst)) as u32;
                            if due > 0 {
                                let count = due.min(queue.room(due));
                                if count > 0 {
                                    queue.send(count, now);
                                }
                            }
                        } else if burst > 0 && queue.room(burst) >= burst {
                            // Full bursts only: sending what just became free, one by one, would slow down
                            // the backend, and nobody else.
                            queue.send(burst, now);
                        }
                    }
                }
                // What was sent a moment ago may be back already.
                receive(station, plan.burst, self.clock.now());
            }
            rounds = rounds.wrapping_add(1);
            if done || now >= end && (!paced || !sends || now >= late || caught_up(stations, paces, elapsed))
            {
                break;
            }
            if rounds.is_multiple_of(1024) {
                self.publish(stations);
                if !self.going(stations) || !sends && enough(stations, plan) {
                    break;
                }
            }
        }
        let due = |paces: &Vec<Pace>| paces.iter().map(|pace| pace.due(elapsed)).sum();
        Sending {
            seconds: self.clock.seconds(now - start),
            in_time: stations.iter().map(frames).collect(),
            due: paced.then(|| paces.iter().map(due).collect()),
        }
    }

    /// Receives until everything expected has come, or nothing has for a while.
    fn drain(&self, stations: &mut [Station], plan: &Plan) {
        let quiet = self.clock.ticks(plan.drain);
        let start = self.clock.now();
        let last = start + self.clock.ticks(5.0 + plan.drain);
        let (mut moved, mut rounds) = (start, 0u32);
        loop {
            let now = self.clock.now();
            for station in &mut *stations {
                if receive(station, plan.burst, self.clock.now()) > 0 {
                    moved = now;
                }
                for queue in &mut station.port.tx {
                    queue.ring.reclaim();
                }
            }
            rounds = rounds.wrapping_add(1);
            let stop = rounds.is_multiple_of(1024) && (!self.live.connected() || complete(stations));
            if now - moved > quiet || now > last || stop {
                break;
            }
        }
    }

    /// Sends single packets until one has come through to each receiver, so that a backend that is still
    /// setting up is not counted as losing. Whether all receivers got one.
    pub fn probe(&self, stations: &mut [Station], patience: f64) -> bool {
        let expecting: Vec<usize> =
            (0..stations.len()).filter(|s| stations[*s].role.rx && stations[*s].source.is_some()).collect();
        let plan = Plan { rate: Rate::Line, seconds: Some(0.05), count: Some(1), burst: 1, drain: 0.02 };
        let start = self.clock.now();
        while !expecting.is_empty() && self.going(stations) {
            let outcomes = self.trial(stations, &plan, 0);
            if expecting.iter().all(|s| outcomes[*s].counts.received > 0) {
                // What was sent in vain before may still be under way.
                self.drain(stations, &Plan { drain: 0.05, ..plan });
                return true;
            }
            if self.clock.seconds(self.clock.now() - start) > patience {
                return false;
            }
        }
        expecting.is_empty()
    }

    fn publish(&self, stations: &[Station]) {
        for (at, station) in stations.iter().enumerate() {
            let sent = station.port.tx.iter().fold((0, 0), |sum, q| (sum.0 + q.sent, sum.1 + q.bytes));
            self.live.publish(at, sent, frames(station), station.tracker.counts);
        }
    }
}

/// One round of receiving.
#[inline(always)]
fn receive(station: &mut Station, burst: u32, now: u64) -> u32 {
    let mut taken = 0;
    if station.role.rx {
        for queue in &mut station.port.rx {
            taken += queue.receive(burst, now, &mut station.tracker);
        }
    } else if station.role.count {
        for queue in &mut station.port.rx {
            taken += queue.count(burst);
        }
    } else if station.role.echo {
        let Port { rx, tx, .. } = &mut station.port;
        for (queue, back) in rx.iter_mut().zip(tx) {
            taken += queue.echo(burst, back);
        }
    }
    taken
}

fn frames(station: &Station) -> u64 {
    station.port.rx.iter().map(|q| q.frames).sum()
}

/// Whether a receiver that nobody here sends to has what it was to wait for.
fn enough(stations: &[Station], plan: &Plan) -> bool {
    plan.count.is_some_and(|count| stations.iter().all(|s| frames(s) >= count))
}

/// Whether all that is due was sent.
#[cold]
fn caught_up(stations: &[Station], paces: &[Vec<Pace>], elapsed: u64) -> bool {
    stations.iter().zip(paces).filter(|(s, _)| s.role.tx).all(|(station, paces)| {
        station.port.tx.iter().zip(paces).all(|(q, pace)| q.sent >= pace.due(elapsed))
    })
}

/// Whether every packet sent has been returned to its sender, and come to the one who waits for it.
fn complete(stations: &[Station]) -> bool {
    let sent = |s: &Station| -> u64 { s.port.tx.iter().map(|q| q.sent).sum() };
    let returned = stations.iter().all(|s| s.port.tx.iter().all(|q| q.ring.in_flight() == 0));
    let came = |s: &Station| {
        !s.role.rx || s.source.is_some_and(|from| s.tracker.counts.received >= sent(&stations[from]))
    };
    returned && stations.iter().all(|s| !s.role.echo && came(s))
}

fn outcome(station: &Station, at: usize, sending: &Sending) -> Outcome {
    let (tx, rx) = (&station.port.tx, &station.port.rx);
    let sent = tx.iter().map(|q| q.sent).sum();
    Outcome {
        offered: sending.due.as_ref().filter(|_| station.role.tx).map_or(sent, |due| due[at]),
        sent,
        sent_bytes: tx.iter().map(|q| q.bytes).sum(),
        pending: tx.iter().map(|q| u64::from(q.ring.in_flight())).sum(),
        received_in_time: sending.in_time[at],
        counts: station.tracker.counts,
        frames: frames(station),
        too_long: rx.iter().map(|q| q.too_long).sum(),
        kicks: tx.iter().map(|q| q.kick.count).sum(),
        seconds: sending.seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_rate_is_due_when_its_time_is_up_and_no_more() {
        let clock = Clock::calibrate();
        for rate in [0.5, 1.0, 777.0, 999.9, 33_333.3, 100_000.0, 14_880_952.0] {
            for (seconds, queues) in [(0.5, 1), (1.0, 1), (1.0, 3), (10.0, 7), (60.0, 128)] {
                let plan = Plan {
                    rate: Rate::Packets(rate),
                    seconds: Some(seconds),
                    count: None,
                    burst: 32,
                    drain: 0.0,
                };
                let paces: Vec<Pace> = (0..queues).map(|k| Pace::new(&plan, &clock, queues, k)).collect();
                let due = |seconds| paces.iter().map(|p| p.due(clock.ticks(seconds))).sum::<u64>();
                let all = (rate * seconds).round() as u64;
                assert_eq!(
                    (due(seconds), due(2.0 * seconds)),
                    (all, all),
                    "{rate} pps, {seconds} s, {queues}"
                );
            }
        }
    }
}
