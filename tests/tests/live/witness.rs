//! Two guests that exchange numbered packets all the time, through lanes that a worker polls. Nothing that the tests
//! do beside them, or with their lanes, may lose one.

use std::time::Duration;

use snapshot::Port;
use tests::cores;
use tests::daemon::{self, Daemon};
use tests::lan::Lan;
use tests::pktgen::Pktgen;
use tests::scene::Scene;
use tests::wait;

/// Queue pairs of each.
pub const PAIRS: usize = 2;
/// Packets that show that there is traffic.
const SOME: u64 = 500;

pub struct Witness {
    pub daemon: Daemon,
    pktgen: Pktgen,
    /// Last, because the others' logs are in its directory.
    pub scene: Scene,
}

impl Witness {
    /// One worker that sleeps when it can, and guests "near" and "far", each of which is the other's backend. `ports`
    /// adds more.
    pub fn start(ports: impl FnOnce(&Lan, &mut Scene)) -> Witness {
        let lan = Lan::enter("10.79.11.1/24");
        let mut scene = Scene::new();
        scene.add("idle = \"adaptive\"\n");
        ports(&lan, &mut scene);
        scene.guest("near", "far", PAIRS);
        scene.guest("far", "near", PAIRS);
        let daemon = scene.start();
        let sockets = ["near", "far"].map(|name| scene.socket(name));
        let pairs = PAIRS.to_string();
        let arguments =
            ["--mode", "both", "--rate", "20kpps", "--seconds", "0", "--drain", "10", "--queues", &pairs];
        let pktgen = Pktgen::run(&sockets[0], Some(&sockets[1]), &scene.path("pktgen.log"), &arguments);
        let witness = Witness { daemon, pktgen, scene };
        witness.assert_flows();
        witness
    }

    /// From now on, some packets go each way.
    pub fn assert_flows(&self) {
        for name in ["near", "far"] {
            let before = self.daemon.port(name).tx_packets;
            self.daemon.wait_count(name, "tx", 30, before + SOME, |port| port.tx_packets);
        }
    }

    /// What `ringwire` prints, which must not be refused.
    pub fn client(&self, arguments: &[&str]) -> String {
        let output = self.daemon.client(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert_eq!(said, "", "{arguments:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// The port that `ringwire` shows when it is asked so.
    pub fn answer(&self, arguments: &[&str]) -> Port {
        let text = self.client(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// Who owns pair `pair` of a guest.
    pub fn owner(&self, guest: &str, pair: usize) -> String {
        let port = self.daemon.port(guest);
        let [to, from] = [2 * pair, 2 * pair + 1].map(|index| &daemon::guest(&port).queues[index]);
        assert_eq!(to.owner, from.owner, "{port:?}");
        to.owner.clone()
    }

    /// Every packet has arrived once, in order and as it was sent; the daemon's books say the same, and it has warned of
    /// nothing but what has one of these words.
    pub fn end(mut self, expected: &[&str]) {
        assert!(self.pktgen.ended().is_none(), "the guests have ended before the test");
        self.pktgen.stop();
        let seen = self.pktgen.finish(Duration::from_secs(60));
        println!("near {:?}\nfar  {:?}\n{}", seen[0], seen[1], self.daemon.summary());
        for (one, other) in [(&seen[0], &seen[1]), (&seen[1], &seen[0])] {
            assert_eq!((one.received, one.lost, one.pending), (other.sent, 0, 0), "{one:?} of {other:?}");
            assert_eq!((one.reordered, one.duplicates, one.corrupt), (0, 0, 0), "{one:?}");
        }
        let [near, far] = ["near", "far"].map(|name| self.daemon.port(name));
        for (from, to, seen) in [(&near, &far, &seen[0]), (&far, &near, &seen[1])] {
            assert_eq!((from.held, daemon::drops(from)), (0, 0), "{}", self.daemon.summary());
            assert_eq!(from.rx_packets, to.tx_packets, "{}", self.daemon.summary());
            // Before those that it counts it sends one, and waits for it.
            assert!(from.rx_packets >= seen.sent, "{}: {seen:?}", self.daemon.summary());
        }
        assert!(self.daemon.stop(Duration::from_secs(10)).success());
        let complaints = self.daemon.complaints();
        let known =
            |line: &&String| line.contains(" WARN ") && expected.iter().any(|word| line.contains(word));
        let unknown: Vec<&String> = complaints.iter().filter(|line| !known(line)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}

/// Waits until a port has counted so many packets, and no more come.
pub fn wait_exactly(daemon: &Daemon, name: &str, what: &str, wanted: u64, count: impl Fn(&Port) -> u64) {
    daemon.wait_count(name, what, 20, wanted, &count);
    assert_eq!(count(&daemon.port(name)), wanted, "{}", daemon.summary());
}

/// Two cores for workers, the second of which has none at first; `None`, and says so, where there is only one.
pub fn two_cores() -> Option<[usize; 2]> {
    let cores = [cores::worker(), cores::other()];
    if cores[0] == cores[1] {
        println!("skipped: two workers need two cores");
        return None;
    }
    Some(cores)
}

/// Open file descriptors of the daemon while no client of its API is connected.
pub fn idle_fds(daemon: &Daemon) -> usize {
    let looks = (0..20).map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        daemon.child.fds()
    });
    looks.min().expect("twenty looks")
}

/// Looks until `settled`, and gives what it saw last.
pub fn settled<T>(look: impl Fn() -> T, settled: impl Fn(&T) -> bool) -> T {
    wait::poll(Duration::from_secs(2), || Some(look()).filter(&settled)).unwrap_or_else(look)
}
