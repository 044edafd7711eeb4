//! Numbered packets both ways between two guests, one of which goes from nic to tap and back all the time: what is
//! missing has a name, nothing comes twice or late.

use std::time::Duration;

use tests::balance::table;
use tests::daemon;
use tests::lan::Lan;
use tests::pair::{self, Stream};

use crate::owner_with;

const SWITCHES: usize = 100;
const STAY: Duration = Duration::from_millis(40);

fn packets_through_switches(more: &[&str]) {
    let lan = Lan::enter("10.79.2.1/24");
    let scene = pair::on_nics(&lan);
    let mut daemon = scene.start();
    let stream = Stream::start(&lan, &scene, &daemon, &[&["--rate", "20kpps"], more].concat());
    for backend in ["tap0", "wire0"].into_iter().cycle().take(SWITCHES) {
        let vm1 = daemon.set_backend("vm1", backend);
        for queue in &daemon::guest(&vm1).queues {
            assert_eq!(
                (queue.owner.as_str(), &queue.violation),
                (owner_with(backend).as_str(), &None),
                "{queue:?}"
            );
        }
        std::thread::sleep(STAY);
    }
    let seen = stream.end(&daemon);
    println!("{SWITCHES} switches{}", table(&daemon.status().ports));
    assert!(seen.iter().all(|guest| guest.received > 10_000), "{seen:?}");
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

#[test]
fn numbered_packets_through_a_hundred_switches_split() {
    packets_through_switches(&["--packed", "off"]);
}

#[test]
fn numbered_packets_through_a_hundred_switches_packed() {
    packets_through_switches(&["--packed", "on"]);
}
