//! Queue pairs that are assigned to workers: by the file, by hand, and by a dump of what was done by hand.

use std::time::Duration;

use tests::bare_guest::BareGuest;
use tests::cores;
use tests::daemon::{self, Daemon};
use tests::lan::Lan;
use tests::scene::Scene;

use crate::stage::{By, Stage};
use crate::untouched::while_packets_flow;

/// The first of two cores has a worker from the start. `None`, and says so, where there is only one.
fn two_cores() -> Option<[usize; 2]> {
    let cores = [cores::worker(), cores::other()];
    if cores[0] == cores[1] {
        println!("skipped: two workers need two cores");
        return None;
    }
    Some(cores)
}

/// Who polls the first queue pair of vm1.
fn owner(daemon: &Daemon) -> String {
    daemon::guest(&daemon.port("vm1")).queues[0].owner.clone()
}

fn ringwire(stage: &Stage, line: &str) -> String {
    let output = stage.daemon.client(&line.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_file_assigns_a_queue_pair_and_takes_it_back() {
    let Some([first, second]) = two_cores() else { return };
    while_packets_flow(
        |_| {},
        |stage| {
            let before = stage.dump();
            let reload = |assign: &str, by| {
                stage.edit(&[
                    (&format!("cores = [{first}]"), &format!("cores = [{first}, {second}]")),
                    ("name = \"vm1\"\n", &format!("name = \"vm1\"\n{assign}")),
                ]);
                stage.reload(by)
            };
            for by in [By::Hangup, By::Client] {
                let said = reload(&format!("assign = {{ 0 = {second} }}\n"), by);
                let assigned = format!("guest vm1: assign none -> {{ 0 = {second} }}");
                assert_eq!(said, [format!("worker:{second}: added"), assigned], "{by:?}");
                assert_eq!(owner(&stage.daemon), format!("worker:{second}"));
                assert!(
                    stage.dump().contains(&format!("[guest.assign]\n0 = {second}\n")),
                    "{}",
                    stage.dump()
                );

                let said = reload(&format!("assign = {{ 0 = {first} }}\n"), by);
                assert_eq!(said, [format!("guest vm1: assign {{ 0 = {second} }} -> {{ 0 = {first} }}")]);
                assert_eq!(owner(&stage.daemon), format!("worker:{first}"));

                // By hand, and back to the file.
                assert_eq!(ringwire(stage, "worker assign vm1:0 any"), "vm1:0: any worker\n");
                assert!(!stage.dump().contains("assign"), "{}", stage.dump());
                let said = reload(&format!("assign.0 = {first}\n"), by);
                assert_eq!(said, [format!("guest vm1: assign none -> {{ 0 = {first} }}")]);
                assert_eq!(reload("", by), [format!("guest vm1: assign {{ 0 = {first} }} -> none")]);

                // With its worker, an assignment goes, too.
                ringwire(stage, &format!("worker assign vm1:0 {second}"));
                ringwire(stage, &format!("worker remove {second}"));
                assert_eq!(owner(&stage.daemon), format!("worker:{first}"));
                stage.append("");
                assert_eq!(stage.reload(by), [""; 0]);
                assert_eq!(stage.dump(), before);
            }
        },
    );
}

#[test]
fn what_was_assigned_by_hand_is_dumped_and_started_again() {
    let Some([first, second]) = two_cores() else { return };
    let _lan = Lan::enter("10.79.15.1/24");
    let mut scene = Scene::new();
    scene.nic("null0", "net_null0", 1, "");
    scene.guest("vm1", "null0", 2);
    let mut stage = Stage::start(scene);
    ringwire(&stage, &format!("worker add {second}"));
    // Not what it would come to by itself: the lowest core is asked first.
    let [low, high] = [first.min(second), first.max(second)];
    ringwire(&stage, &format!("worker assign vm1:0 {high}"));
    ringwire(&stage, &format!("worker assign vm1:1 {low}"));
    let text = stage.dump();
    assert!(text.contains(&format!("[guest.assign]\n0 = {high}\n1 = {low}\n")), "{text}");
    std::fs::write(stage.file(), &text).expect("the file");
    assert_eq!(stage.reload(By::Client), [""; 0]);
    assert!(stage.daemon.stop(Duration::from_secs(5)).success());
    stage.daemon =
        Daemon::start(&stage.file(), &stage.scene.path("api.sock"), &stage.scene.path("again.log"));
    assert_eq!(stage.dump(), text);
    let load = BareGuest::connect(&stage.scene.socket("vm1"), 64).load([0, 0]);
    stage.daemon.wait_count("vm1", "rx", 30, 100, |port| port.rx_packets);
    assert_eq!(owner(&stage.daemon), format!("worker:{high}"));
    load.end();
    assert!(stage.daemon.stop(Duration::from_secs(5)).success());
}
