//! Workers are added and removed, sleep or poll, and are assigned queues, under load.

use std::fs;

use tests::daemon::Daemon;

use crate::witness::{PAIRS, Witness, two_cores};

/// How often each of both pairs is given to another worker.
const MOVES: usize = 60;

/// The cores that a thread of the daemon may run on, by its name.
fn threads(daemon: &Daemon) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.child.pid())).expect("a live process");
    let look = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let line = |name| Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned());
        Some((line("Name:")?, line("Cpus_allowed_list:")?))
    };
    tasks.flatten().filter_map(look).collect()
}

/// Where all threads but workers may run.
fn control_runs_on(daemon: &Daemon) -> Vec<String> {
    let threads = threads(daemon);
    assert!(threads.iter().any(|(name, _)| name == "slow-path"), "{threads:?}");
    let mut cores: Vec<String> = threads
        .into_iter()
        .filter(|(name, _)| !name.starts_with("worker:"))
        .map(|(_, cores)| cores)
        .collect();
    cores.sort();
    cores.dedup();
    cores
}

#[test]
fn a_worker_that_is_added_and_removed_takes_and_gives_lanes() {
    let Some([first, second]) = two_cores() else { return };
    let witness = Witness::start(|_, _| {});
    let daemon = &witness.daemon;
    let owners = || [0, 1].map(|pair| [witness.owner("near", pair), witness.owner("far", pair)]);
    let [on_first, on_second] = [first, second].map(|core| format!("worker:{core}"));
    let both = |one: &String, other: &String| [[one.clone(), one.clone()], [other.clone(), other.clone()]];
    for round in 0..10 {
        assert_eq!(owners(), both(&on_first, &on_first), "round {round}");
        let cores = control_runs_on(daemon);
        assert!(cores.iter().all(|cores| *cores == second.to_string()), "{:?}", threads(daemon));
        let core = second.to_string();
        assert_eq!(witness.client(&["worker", "add", &core]), format!("worker:{second}: added, lanes 1\n"));
        assert_eq!(owners(), both(&on_first, &on_second), "round {round}");
        let status = daemon.status();
        let workers: Vec<_> = status.workers.iter().map(|worker| (worker.core, worker.lanes)).collect();
        assert_eq!(workers, [(first, 1), (second, 1)]);
        witness.assert_flows();
        // The one that was there from the start goes this time, and comes back; the other one next.
        let core = first.to_string();
        assert_eq!(witness.client(&["worker", "remove", &core]), format!("worker:{first}: removed\n"));
        assert_eq!(owners(), both(&on_second, &on_second), "round {round}");
        assert!(threads(daemon).iter().all(|(name, _)| *name != on_first), "{:?}", threads(daemon));
        assert_eq!(control_runs_on(daemon), [first.to_string()], "{:?}", threads(daemon));
        witness.assert_flows();
        witness.client(&["worker", "add", &core]);
        assert_eq!(owners(), both(&on_second, &on_first), "round {round}");
        witness.client(&["worker", "remove", &second.to_string()]);
    }
    witness.end(&["every core this process may use has a worker"]);
}

#[test]
fn queues_that_are_assigned_move_and_lose_nothing() {
    let Some(cores) = two_cores() else { return };
    let witness = Witness::start(|_, _| {});
    witness.client(&["worker", "add", &cores[1].to_string()]);
    let mut random = fastrand::Rng::with_seed(3);
    for step in 0..MOVES {
        let (guest, other) = if step % 2 == 0 { ("near", "far") } else { ("far", "near") };
        let (pair, core) = (random.usize(..PAIRS), cores[random.usize(..2)]);
        let said = witness.client(&["worker", "assign", &format!("{guest}:{pair}"), &core.to_string()]);
        let expected =
            format!("{guest}:{pair}: worker:{core}, and with it, of the same lane: {other}:{pair}\n");
        assert_eq!(said, expected);
        for guest in [guest, other] {
            assert_eq!(witness.owner(guest, pair), format!("worker:{core}"));
        }
        std::thread::sleep(std::time::Duration::from_millis(random.u64(..40)));
    }
    witness.assert_flows();
    // All on one; then its worker goes.
    for pair in 0..PAIRS {
        witness.client(&["worker", "assign", &format!("near:{pair}"), &cores[1].to_string()]);
    }
    let worker = &witness.daemon.status().workers[1];
    assert_eq!((worker.core, worker.lanes), (cores[1], PAIRS));
    assert_eq!(worker.assigned, ["near:0", "near:1"]);
    let list = witness.client(&["worker", "list"]);
    assert!(list.contains("near:0 near:1"), "{list}");
    witness.client(&["worker", "remove", &cores[1].to_string()]);
    let workers = witness.daemon.status().workers;
    assert_eq!((workers.len(), workers[0].lanes), (1, PAIRS));
    witness.assert_flows();
    witness.end(&["every core this process may use has a worker"]);
}

#[test]
fn workers_poll_and_sleep_as_they_are_told() {
    let witness = Witness::start(|_, _| {});
    let daemon = &witness.daemon;
    for round in 0..10 {
        assert_eq!(witness.client(&["idle", "poll"]), "workers without work: poll\n");
        let naps = || daemon.status().workers[0].thread.as_ref().expect("the kernel's view").naps;
        assert_eq!(daemon.status().idle, snapshot::Idle::Poll);
        let before = naps();
        witness.assert_flows();
        assert_eq!(naps(), before, "round {round}: a worker that polls has slept");
        assert_eq!(witness.client(&["idle", "adaptive"]), "workers without work: adaptive\n");
        tests::wait::until("it sleeps", 20, || if naps() > before { Ok(()) } else { Err(naps()) });
        witness.assert_flows();
    }
    assert_eq!(witness.client(&["idle"]), "workers without work: adaptive\n");
    witness.end(&[]);
}
