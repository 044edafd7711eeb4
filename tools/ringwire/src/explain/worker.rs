//! Do the workers poll, each on its own core, with that to itself?

use snapshot::{Port, Worker, WorkerThread};

use super::Check;
use super::sight::{Seen, Sight};
use crate::units::{percent, rate};

/// A worker that gets less of its core than this is hindered.
const ENOUGH: f64 = 0.8;

fn rounds(worker: Seen<Worker>) -> u64 {
    worker.moved(|worker| worker.busy_rounds + worker.idle_rounds)
}

fn sleeps(worker: Seen<Worker>) -> bool {
    worker.stays(|worker| worker.thread.as_ref().is_some_and(|thread| thread.asleep))
}

/// The workers that own queues of `ports`; all, if none does.
pub fn workers(sight: &Sight, ports: &[Seen<Port>]) -> Vec<Check> {
    let queues: Vec<_> = ports.iter().flat_map(|port| port.queues()).collect();
    let owns = |worker: &Seen<Worker>| queues.iter().any(|queue| queue.now.owner == worker.now.name);
    let all = sight.workers();
    let any = all.iter().any(owns);
    let slow_path = queues.iter().any(|queue| queue.now.owner == "slow-path");
    if slow_path && !any {
        return vec![Check::ok(
            "worker",
            "slow-path",
            "serves the queues: one thread, woken by kicks and sockets",
        )];
    }
    all.into_iter().filter(|worker| !any || owns(worker)).map(|one| worker(one, sight)).collect()
}

fn worker(seen: Seen<Worker>, sight: &Sight) -> Check {
    let Worker { name, core, lanes, thread, .. } = seen.now;
    let seconds = sight.elapsed.as_secs_f64();
    let rounds = rounds(seen);
    let polls = format!("polls on core {core}: {}", rate(rounds as f64 / seconds, "rounds/s"));
    let Some(thread) = thread else { return Check::ok("worker", name, polls) };
    if thread.cores != [*core] {
        let cores: Vec<String> = thread.cores.iter().map(usize::to_string).collect();
        let found = format!("its thread is on core {}, not on core {core}", cores.join(","));
        let advice = format!("somebody has moved it (taskset, cpuset): taskset -cp {core} {}", thread.id);
        return Check::note("worker", name, found, advice);
    }
    if *lanes == 0 {
        return Check::ok("worker", name, format!("waits for queues on core {core}"));
    }
    let moved =
        |count: fn(&WorkerThread) -> u64| seen.moved(|worker| worker.thread.as_ref().map_or(0, count));
    if rounds == 0 && sleeps(seen) {
        return Check::ok("worker", name, format!("sleeps on core {core} until there is work"));
    }
    let ran = moved(|thread| thread.run_ns) as f64 / 1e9;
    if rounds == 0 && ran > seconds / 2.0 {
        let found = format!("runs, but made no poll round in {seconds:.1} s");
        return Check::fail("worker", name, found, "it is stuck: this is a bug in ringwired; restart it");
    }
    // What does not sleep wants to run all the time. The kernel counts a wait only when it is over.
    let wanted = match thread.asleep || moved(|thread| thread.naps) > 0 {
        true => ran + moved(|thread| thread.wait_ns) as f64 / 1e9,
        false => seconds,
    };
    let share = if rounds > 0 && wanted < seconds / 2.0 { 1.0 } else { ran / wanted.max(ran) };
    let advice = format!(
        "other threads run there (ps -eLo psr,tid,pcpu,comm): isolate the core (isolcpus={core}, or a cpuset), or \
         choose another in [datapath] cores"
    );
    let found = format!("gets {} of core {core} only", percent(100.0 * share));
    match share {
        _ if rounds == 0 => Check::fail("worker", name, found, advice),
        _ if share < ENOUGH => Check::note("worker", name, found, advice),
        _ => Check::ok("worker", name, polls),
    }
}
