//! Workers on the wrong core, or with company.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::child::Child;
use tests::cores;
use tests::namespace::run;

use crate::frontends::{running, scene};
use crate::table::Answer::{Hindered, Note, Well};
use crate::table::Table;

#[test]
fn workers_cores() {
    let (core, other) = (cores::worker(), cores::other());
    if core == other {
        println!("skipped: this needs two cores");
        return;
    }
    let mut table = Table::start("workers' cores");
    let scene = scene();
    let mut daemon = scene.start();
    let _guest = running(&scene, "vm1");
    table.ask("a worker alone on its core", &daemon, "vm1", Well, "vm1 can");

    let thread = daemon.status().workers[0].thread.clone().expect("what the kernel says").id.to_string();
    run(&["taskset", "-cp", &other.to_string(), &thread]);
    let words = format!("its thread is on core {other}, not on core {core}");
    table.ask("wrong core", &daemon, "vm1", Note("worker"), &words);
    run(&["taskset", "-cp", &core.to_string(), &thread]);

    let hogs = [1, 2].map(|n| hog(core, &scene.path(&format!("hog{n}.log"))));
    std::thread::sleep(Duration::from_millis(500));
    let words = format!("of core {core} only");
    table.ask("oversubscribed core", &daemon, "vm1", Hindered("worker"), &words);
    drop(hogs);
    table.end();
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

/// Computes on a core, more important than the worker, as the kernel sees it. It ends by itself, should nobody end it.
fn hog(core: usize, log: &Path) -> Child {
    let mut command = Command::new("nice");
    command.args(["-n", "-20", "taskset", "-c", &core.to_string(), "perl", "-e", "alarm 60; 1 while 1"]);
    Child::start("hog", command, log)
}
