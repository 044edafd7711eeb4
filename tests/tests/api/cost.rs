//! What the packet path pays for a busy API, in instructions, which do not depend on how busy the machine is.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tests::bare_guest::{BareGuest, FROM, TO};
use tests::daemon::{self, Daemon};
use tests::requests::{self, Tally};
use tests::scene::Scene;
use tests::wait;

/// Packets at a time: as many as ringwired takes at once.
const BURST: u16 = 64;
const BURSTS: u64 = 400;
/// Under valgrind everything takes its time.
const START: u64 = 90;
const REQUESTS_A_SECOND: u32 = 100;
/// A burst is all that is counted: from the one ring, into the other, published.
const COUNTED: &str = "*forward_burst*";
/// Part of the instructions by which two runs may differ.
const ALLOWED: f64 = 0.01;

struct Count {
    instructions: u64,
    packets: u64,
    requests: u64,
}

impl Count {
    fn a_packet(&self) -> f64 {
        self.instructions as f64 / self.packets as f64
    }
}

/// Sends bursts from one guest to another, with a client at the API, or without.
fn count(asked: bool) -> Count {
    let mut scene = Scene::new();
    scene.add("\n[eal]\nhugepages = \"never\"\n");
    scene.guest("vm1", "vm2", 1);
    scene.guest("vm2", "vm1", 1);
    let out = scene.path("callgrind.out");
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind", "--fair-sched=yes", &format!("--toggle-collect={COUNTED}")]);
    command.arg(format!("--callgrind-out-file={}", out.display())).arg(daemon::program("ringwired"));
    let mut daemon =
        Daemon::start_as(command, &scene.config_file(), &scene.path("api.sock"), &scene.path("log"), START);

    let [mut sender, mut receiver] = ["vm1", "vm2"].map(|name| BareGuest::connect(&scene.socket(name), 64));
    for guest in [&mut sender, &mut receiver] {
        [TO, FROM].into_iter().for_each(|ring| guest.start_ring(ring, 0));
    }
    let done = AtomicBool::new(false);
    let tally = std::thread::scope(|scope| {
        let client = asked.then(|| scope.spawn(|| ask_until(&scene.path("api.sock"), &done)));
        send(&mut sender, &mut receiver);
        done.store(true, Ordering::Relaxed);
        client.map(|client| client.join().expect("a client"))
    });
    let tally = tally.unwrap_or_default();
    assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
    let packets = daemon.port("vm1").rx_packets;
    assert_eq!(packets, BURSTS * u64::from(BURST), "{}", daemon.summary());
    assert!(daemon.stop(Duration::from_secs(60)).success());
    Count { instructions: instructions(&out), packets, requests: tally.total() }
}

/// A burst is sent when the one before it has arrived: each is moved at once, and as a whole.
fn send(sender: &mut BareGuest, receiver: &mut BareGuest) {
    for burst in 1..=BURSTS {
        receiver.rings[TO].post();
        sender.rings[FROM].post_some(BURST);
        let wanted = burst * u64::from(BURST);
        wait::until(&format!("burst {burst} arrives"), 30, || {
            let rings = [&mut sender.rings[FROM], &mut receiver.rings[TO]];
            let totals = rings.map(|ring| {
                ring.collect();
                ring.total
            });
            if totals == [wanted; 2] { Ok(()) } else { Err(format!("{totals:?}, not {wanted}")) }
        });
    }
    assert_eq!([&sender.rings[FROM].wrong, &receiver.rings[TO].wrong], [&[""; 0], &[""; 0]]);
}

fn ask_until(api: &Path, done: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !done.load(Ordering::Relaxed) {
        tally.add(requests::make(api, REQUESTS_A_SECOND / 2, REQUESTS_A_SECOND, ("vm1", "vm2")));
    }
    tally
}

/// The total of callgrind's output.
fn instructions(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).expect("callgrind's output");
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).expect("a line of totals")
}

#[test]
fn requests_cost_a_packet_no_instruction() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return println!("skipped: no valgrind");
    }
    let (alone, asked) = (count(false), count(true));
    let ratio = asked.a_packet() / alone.a_packet();
    println!(
        "instructions a packet: {:.2} alone, {:.2} with {} requests among {} packets: {ratio:.4}",
        alone.a_packet(),
        asked.a_packet(),
        asked.requests,
        asked.packets
    );
    assert!(asked.requests > 0 && alone.a_packet() > 10.0, "something was counted");
    assert!((ratio - 1.0).abs() < ALLOWED);
}
