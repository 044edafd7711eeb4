//! Two guests exchange numbered packets all the time. The file around them changes; they lose nothing.

use std::process::Command;
use std::time::Duration;

use tests::bare_guest::BareGuest;
use tests::cores;
use tests::daemon;
use tests::lan::Lan;
use tests::pktgen::Pktgen;
use tests::scene::Scene;

use crate::stage::{By, Stage};

/// Guests that are each other's backend, with traffic; what is done to the others by `changes`.
pub fn while_packets_flow(scene: impl FnOnce(&mut Scene), changes: impl FnOnce(&Stage)) {
    let _lan = Lan::enter("10.79.9.1/24");
    let mut before = Scene::new();
    before.guest("vm1", "vm2", 1);
    before.guest("vm2", "vm1", 1);
    scene(&mut before);
    let mut stage = Stage::start(before);
    let [first, second] = ["vm1", "vm2"].map(|name| stage.scene.socket(name));
    let arguments = ["--mode", "both", "--rate", "20kpps", "--seconds", "0", "--drain", "1", "--checksum"];
    let pktgen = Pktgen::run(&first, Some(&second), &stage.scene.path("pktgen.log"), &arguments);
    stage.daemon.wait_count("vm1", "rx", 20, 1000, |port| port.rx_packets);
    changes(&stage);
    let sent = stage.daemon.port("vm1").rx_packets;
    stage.daemon.wait_count("vm1", "rx", 10, sent + 1000, |port| port.rx_packets);
    pktgen.stop();
    let seen = pktgen.finish(Duration::from_secs(30));
    println!("{seen:?}");
    for (guest, other) in [(seen[0], seen[1]), (seen[1], seen[0])] {
        assert!(guest.sent > 2000, "{guest:?}");
        assert_eq!((guest.lost, guest.reordered, guest.duplicates, guest.corrupt), (0, 0, 0, 0), "{guest:?}");
        assert_eq!((guest.received, guest.pending), (other.sent, 0), "{guest:?}");
    }
    for guest in ["vm1", "vm2"] {
        assert_eq!(daemon::guest(&stage.daemon.port(guest)).connections, 1, "{guest} has connected again");
    }
    assert!(stage.daemon.stop(Duration::from_secs(5)).success());
}

/// Whether there is an interface. (/sys shows those of the network that it was mounted in.)
fn exists(interface: &str) -> bool {
    let shown = Command::new("ip").args(["link", "show", interface]).output().expect("ip, of iproute2");
    shown.status.success()
}

#[test]
fn a_file_that_says_what_runs_changes_nothing() {
    while_packets_flow(
        |_| {},
        |stage| {
            let before = stage.dump();
            for by in [By::Client, By::Hangup] {
                assert_eq!(stage.reload(by), [""; 0]);
            }
            assert_eq!(stage.dump(), before);
            assert_eq!(stage.daemon.complaints(), [""; 0]);
        },
    );
}

#[test]
fn a_tap_comes_and_goes() {
    while_packets_flow(
        |_| {},
        |stage| {
            let before = stage.dump();
            for by in [By::Hangup, By::Client] {
                stage.append("[[tap]]\nname = \"tap9\"\ninterface = \"rw-tap9\"\n");
                assert_eq!(stage.reload(by), ["tap tap9: added"], "{by:?}");
                assert!(exists("rw-tap9"));
                assert!(stage.dump().contains("interface = \"rw-tap9\""));
                stage.append("");
                assert_eq!(stage.reload(by), ["tap tap9: removed"], "{by:?}");
                assert!(!exists("rw-tap9"));
            }
            assert_eq!(stage.dump(), before);
            assert_eq!(stage.daemon.complaints(), [""; 0]);
        },
    );
}

#[test]
fn a_guest_comes_and_goes() {
    while_packets_flow(
        |_| {},
        |stage| {
            let before = stage.dump();
            let socket = stage.scene.socket("vm3");
            for by in [By::Hangup, By::Client] {
                stage.append(&format!(
                    "[[nic]]\nname = \"null0\"\ndevice = \"net_null0\"\n\
                     [[guest]]\nname = \"vm3\"\nsocket = {socket:?}\nbackend = \"null0\"\n"
                ));
                assert_eq!(stage.reload(by), ["nic null0: added", "guest vm3: added"], "{by:?}");
                let load = BareGuest::connect(&socket, 64).load([0, 0]);
                stage.daemon.wait_count("vm3", "rx", 10, 1000, |port| port.rx_packets);
                load.end();
                stage.append("");
                assert_eq!(stage.reload(by), ["nic null0: removed", "guest vm3: removed"], "{by:?}");
                assert!(!socket.exists());
            }
            assert_eq!(stage.dump(), before);
        },
    );
}

#[test]
fn workers_come_and_go_and_sleep() {
    if cores::worker() == cores::other() {
        println!("skipped: there is only one core");
        return;
    }
    while_packets_flow(
        |_| {},
        |stage| {
            let before = stage.dump();
            let (first, second) = (cores::worker(), cores::other());
            let cores =
                |stage: &Stage| stage.daemon.status().workers.iter().map(|worker| worker.core).collect();
            for by in [By::Hangup, By::Client] {
                let all = format!("cores = [{first}, {second}]\nidle = \"adaptive\"");
                stage.edit(&[(&format!("cores = [{first}]"), &all)]);
                let said = [format!("worker:{second}: added"), "workers: idle poll -> adaptive".to_owned()];
                assert_eq!(stage.reload(by), said, "{by:?}");
                let mut now: Vec<usize> = cores(stage);
                now.sort_unstable();
                assert_eq!(now, [second, first]);
                stage.append("");
                let said = [format!("worker:{second}: removed"), "workers: idle adaptive -> poll".to_owned()];
                assert_eq!(stage.reload(by), said, "{by:?}");
                let now: Vec<usize> = cores(stage);
                assert_eq!(now, [first]);
            }
            assert_eq!(stage.dump(), before);
        },
    );
}

/// The tap that is a guest's exception path is made anew, and the guest with it; the tap is somebody's backend then.
#[test]
fn an_exception_path_is_made_anew_and_given_up() {
    while_packets_flow(
        |scene| {
            scene.nic("null0", "net_null0", 1, "");
            scene.socket_port("tap", "tap1", "rw-tap1", "");
            scene.guest("vm3", "null0", 1);
            scene.add("punt = \"tap1\"\n");
            scene.guest("vm4", "none", 1);
        },
        |stage| {
            let before = stage.dump();
            stage.edit(&[("interface = \"rw-tap1\"\n", "interface = \"rw-tap1\"\nuser = \"root\"\n")]);
            let anew = "its exception path tap1 (made anew: its frontend must connect again)";
            let said = ["tap tap1: user none -> root (made anew)".to_owned(), format!("guest vm3: {anew}")];
            assert_eq!(stage.reload(By::Client), said);
            assert!(stage.dump().contains("punt = \"tap1\""));
            stage.append("");
            assert_eq!(stage.reload(By::Hangup).len(), 2);
            assert_eq!(stage.dump(), before);
            stage.edit(&[("punt = \"tap1\"\n", ""), ("backend = \"none\"", "backend = \"tap1\"")]);
            let said = stage.reload(By::Client);
            println!("{said:?}");
            assert!(said.len() == 2 && said[1] == "guest vm4: backend none -> tap1", "{said:?}");
            stage.append("");
            assert_eq!(stage.reload(By::Client).len(), 2);
            assert_eq!(stage.dump(), before);
        },
    );
}

#[test]
fn a_broken_file_changes_nothing() {
    while_packets_flow(
        |_| {},
        |stage| {
            let before = stage.dump();
            for by in [By::Hangup, By::Client] {
                for (from, to, key) in [
                    ("[[guest]]", "[[guest]", "invalid TOML"),
                    (
                        "backend = \"vm2\"",
                        "backend = \"vm9\"",
                        "guest[0].backend: no port has the name \"vm9\"",
                    ),
                    ("cores = [", "cores = [4095, ", "datapath.cores[0]: "),
                    ("queues = 1", "queus = 1", "guest[0].queus: unknown key"),
                ] {
                    // With something good before it.
                    stage.edit(&[(from, to), ("[datapath]", "[datapath]\nidle = \"adaptive\"")]);
                    let said = stage.refused(by);
                    println!("{}", said.trim_end());
                    assert!(said.contains("ringwired.toml:") && said.contains(key), "{by:?} {key}: {said}");
                }
                std::fs::remove_file(stage.file()).expect("the file");
                assert!(stage.refused(by).contains("No such file"));
            }
            assert_eq!(stage.dump(), before);
        },
    );
}

#[test]
fn what_needs_a_restart_changes_nothing() {
    while_packets_flow(
        |_| {},
        |stage| {
            let before = stage.dump();
            stage.edit(&[
                ("[api]", "[eal]\nargs = [\"--log-level=7\"]\n\n[[tap]]\nname = \"tap9\"\ninterface = \"rw-tap9\"\n\n[api]\nmode = \"0600\""),
            ]);
            for by in [By::Hangup, By::Client] {
                let said = stage.refused(by);
                println!("{}", said.trim_end());
                assert!(
                    said.contains("needs a restart") && said.contains("api.mode: 0660 -> 0600"),
                    "{said}"
                );
                assert!(said.contains("eal.args"), "{said}");
            }
            assert!(!exists("rw-tap9"));
            assert_eq!(stage.dump(), before);
        },
    );
}

/// The tap can be had, the raw socket behind it cannot; nor could the guest's backend become the tap, then.
#[test]
fn a_step_that_fails_undoes_those_before_it() {
    while_packets_flow(
        |scene| {
            scene.socket_port("tap", "tap1", "rw-tap1", "");
            scene.socket_port("tap", "tap2", "rw-tap2", "");
            scene.guest("vm3", "tap1", 1);
        },
        |stage| {
            let before = stage.dump();
            let load = BareGuest::connect(&stage.scene.socket("vm3"), 64).load([0, 0]);
            stage.daemon.wait_connected("vm3", true);
            stage.edit(&[
                // Goes, and its interface is another port's.
                ("[[tap]]\nname = \"tap1\"\n", "[[tap]]\nname = \"tap9\"\n"),
                ("backend = \"tap1\"", "backend = \"tap9\""),
                // Made anew.
                ("interface = \"rw-tap2\"\n", "interface = \"rw-tap2\"\nuser = \"root\"\n"),
                ("[[guest]]", "[[tap]]\nname = \"tap8\"\ninterface = \"rw-tap8\"\n\n[[guest]]"),
                // Cannot be had: it would have to wait for nobody, but shares tap1's name.
                ("[datapath]", "[[raw]]\nname = \"tap1\"\ninterface = \"no-such-one\"\n\n[datapath]"),
            ]);
            for by in [By::Hangup, By::Client] {
                let said = stage.refused(by);
                println!("{}", said.trim_end());
                assert!(said.contains("cannot add raw tap1: ") && said.contains("no-such-one"), "{said}");
                assert!(said.contains("(nothing has changed)"), "{said}");
                assert_eq!(stage.dump(), before, "{by:?}");
                assert!(!exists("rw-tap8") && exists("rw-tap1") && exists("rw-tap2"), "{by:?}");
            }
            let vm3 = stage.daemon.port("vm3");
            assert_eq!(daemon::guest(&vm3).connections, 1, "vm3 is untouched but for its backend");
            let carried = vm3.rx_packets;
            // The interfaces that were made again are down.
            tests::namespace::run(&["ip", "link", "set", "rw-tap1", "up"]);
            stage.daemon.wait_count("vm3", "rx", 10, carried + 100, |port| port.rx_packets);
            load.end();
        },
    );
}
