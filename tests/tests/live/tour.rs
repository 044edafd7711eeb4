//! Every change that can be made to a running `ringwired`, one after the other, as a user types it, beside packets that
//! nothing may happen to. Guests vm1 and vm2 talk meanwhile through the ports that come, change and go.

use std::process::Command;
use std::time::Duration;

use snapshot::{Port, PortKind};
use tests::balance::{assert_adds_up, table};
use tests::bare_guest::BareGuest;
use tests::daemon::{self, drops};
use tests::lan::{Lan, nic_device};
use tests::pktgen::{MACS, Pktgen, Seen};
use tests::scene::Scene;
use tests::wait;

use crate::witness::{Witness, two_cores};

/// Of what the client says, so many characters are shown.
const SHOWN: usize = 100;
/// Packets that show that there is traffic.
const SOME: u64 = 50;

/// What is said, and what is not touched, step by step.
struct Tour {
    witness: Witness,
    steps: usize,
    /// Ports as they were when they were removed.
    removed: Vec<Port>,
}

impl Tour {
    /// One step, called `what`: it lasts until hundreds of packets more have gone each way between the witnesses, and each
    /// has all that the other has sent.
    fn step(&mut self, what: &str, change: impl FnOnce(&Witness) -> String) -> String {
        let before = self.untouched();
        let said = change(&self.witness);
        self.witness.assert_flows();
        let now = self.untouched();
        for (before, now) in before.iter().zip(&now) {
            assert!(
                now.rx_packets > before.rx_packets && now.tx_packets > before.tx_packets,
                "{what}: {now:?}"
            );
        }
        let sum = |count: fn(&Port) -> u64| now.iter().map(count).sum::<u64>();
        let (sent, exchanged) = (sum(|port| port.rx_packets), sum(|port| port.tx_packets));
        self.steps += 1;
        let shown: String = said.lines().next().unwrap_or_default().chars().take(SHOWN).collect();
        println!("{:>3}. {exchanged:>7} exchanged, lost {} | {what} | {shown}", self.steps, sent - exchanged);
        said
    }

    /// A command of `ringwire`'s; what it prints.
    fn ringwire(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.step(&format!("ringwire {line}"), |witness| witness.client(&words))
    }

    /// The same, and it prints this.
    fn says(&mut self, line: &str, expected: &str) {
        assert_eq!(self.ringwire(line), format!("{expected}\n"), "ringwire {line}");
    }

    /// Removes a port, and keeps what it has counted.
    fn remove(&mut self, name: &str) {
        let line = format!("ringwire port remove {name} --json");
        // JSON on one line, to be shown.
        let text = self.step(&line, |witness| {
            let text = witness.client(&["port", "remove", name, "--json"]);
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        });
        self.removed.push(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}")));
    }

    /// The ports of the witnesses, at a moment when nothing is under way: what has entered at one has left by the other.
    /// There are such moments all the time, until something is lost.
    fn untouched(&self) -> [Port; 2] {
        wait::until("each witness has what the other has sent", 20, || {
            let mut ports = self.witness.daemon.status().ports;
            ports.retain(|port| ["near", "far"].contains(&port.name.as_str()));
            let [near, far] = ports.try_into().expect("both witnesses");
            let balanced = near.rx_packets == far.tx_packets && far.rx_packets == near.tx_packets;
            if balanced && drops(&near) + drops(&far) == 0 {
                Ok([near, far])
            } else {
                Err(table(&[near, far]))
            }
        })
    }

    /// From now on, vm1 sends and receives.
    fn assert_vm1_talks(&self) {
        let daemon = &self.witness.daemon;
        let before = daemon.port("vm1");
        daemon.wait_count("vm1", "rx", 30, before.rx_packets + SOME, |port| port.rx_packets);
        daemon.wait_count("vm1", "tx", 30, before.tx_packets + SOME, |port| port.tx_packets);
    }

    fn set_backend(&mut self, backend: &str) {
        self.ringwire(&format!("backend set vm1 {backend}"));
        assert_eq!(daemon::guest(&self.witness.daemon.port("vm1")).backend, backend);
        if backend != "none" {
            self.assert_vm1_talks();
        }
    }

    /// Everything that vm1 and vm2 talk through, and their traffic.
    fn ports_come(&mut self) -> Pktgen {
        let sockets = ["vm1", "vm2"].map(|name| self.witness.scene.socket(name));
        self.ringwire("port add tap tap0 --interface tap0");
        self.ringwire("port add raw raw0 --interface raw0");
        self.plug_nic();
        self.ringwire(&format!("port add guest vm1 --socket {} --backend wire0", sockets[0].display()));
        self.ringwire("port add raw home --interface home");
        self.ringwire(&format!("port add guest vm2 --socket {} --backend home", sockets[1].display()));
        let log = self.witness.scene.path("talk.log");
        let arguments = ["--mode", "both", "--rate", "2kpps", "--seconds", "0", "--drain", "1"];
        let talk = Pktgen::run(&sockets[0], Some(&sockets[1]), &log, &arguments);
        self.assert_vm1_talks();
        talk
    }

    fn plug_nic(&mut self) {
        self.ringwire(&format!("port add nic wire0 --device {}", nic_device(0, "wire0")));
    }

    fn workers(&mut self) {
        let Some([first, second]) = two_cores() else { return };
        self.ringwire(&format!("worker add {second}"));
        for core in [second, first] {
            self.says(&format!("worker assign vm1:0 {core}"), &format!("vm1:0: worker:{core}"));
            assert_eq!(self.witness.owner("vm1", 0), format!("worker:{core}"));
            self.assert_vm1_talks();
        }
        self.says("worker assign vm1:0 any", "vm1:0: any worker");
        // All that it polls, of the witnesses, too, goes to the other; and back.
        self.says(&format!("worker remove {first}"), &format!("worker:{first}: removed"));
        assert_eq!(
            [0, 1].map(|pair| self.witness.owner("near", pair)),
            [(); 2].map(|()| format!("worker:{second}"))
        );
        self.ringwire(&format!("worker add {first}"));
        self.says(&format!("worker remove {second}"), &format!("worker:{second}: removed"));
        self.assert_vm1_talks();
    }

    fn settings(&mut self) {
        for mode in ["poll", "adaptive"] {
            self.says(&format!("idle {mode}"), &format!("workers without work: {mode}"));
        }
        for level in ["debug", "info"] {
            self.says(&format!("log {level}"), level);
        }
        for offloads in ["off", "csum,host_tso4", "auto"] {
            let said = self.ringwire(&format!("guest offloads vm1 {offloads}"));
            assert!(said.starts_with("vm1: offloads offered, in force from the frontend's next"), "{said}");
        }
    }

    /// A guest that is removed in the middle of as much traffic as there can be, and its NIC.
    fn guest_under_load(&mut self) {
        let socket = self.witness.scene.socket("vm3");
        self.ringwire("port add nic null0 --device net_null0,size=64,copy=1");
        self.ringwire(&format!("port add guest vm3 --socket {} --backend null0", socket.display()));
        let load = BareGuest::connect(&socket, 64).load([0, 0]);
        self.witness.daemon.wait_count("vm3", "rx", 30, SOME, |port| port.rx_packets);
        self.witness.daemon.wait_count("vm3", "tx", 30, SOME, |port| port.tx_packets);
        self.remove("vm3");
        load.end();
        self.remove("null0");
        assert_adds_up(&std::mem::take(&mut self.removed));
    }

    /// What runs is made the file, which is edited: once for `ringwire reload`, and back for SIGHUP.
    fn reloads(&mut self) {
        let file = self.witness.scene.path("ringwired.toml");
        let dump = self.ringwire("config dump");
        let edited = dump.replacen("backend = \"wire0\"", "backend = \"tap0\"", 1);
        assert_ne!(edited, dump);
        std::fs::write(&file, edited + "\n[[tap]]\nname = \"tap9\"\ninterface = \"rw-tap9\"\n")
            .expect("the file");
        self.says("reload", "tap tap9: added\nguest vm1: backend wire0 -> tap0");
        self.assert_vm1_talks();
        std::fs::write(&file, &dump).expect("the file");
        let said = self.step("SIGHUP", |witness| witness.daemon.hang_up().join("\n"));
        assert_eq!(said, "tap tap9: removed\nguest vm1: backend tap0 -> wire0");
        self.assert_vm1_talks();
        assert_eq!(self.ringwire("config dump"), dump);
    }

    fn ports_go(&mut self) {
        self.set_backend("raw0");
        self.remove("wire0");
        self.set_backend("tap0");
        self.remove("raw0");
        self.plug_nic();
        self.set_backend("wire0");
        self.remove("tap0");
        self.assert_vm1_talks();
    }

    /// All that has entered at a port has left by another, is held, or was dropped under a name.
    fn assert_books(&mut self, talk: Pktgen) {
        talk.stop();
        let seen = talk.finish(Duration::from_secs(60));
        println!("vm1 {:?}\nvm2 {:?}", seen[0], seen[1]);
        for Seen { received, reordered, duplicates, corrupt, .. } in seen {
            assert!(received > SOME);
            assert_eq!((reordered, duplicates, corrupt), (0, 0, 0));
        }
        let daemon = &self.witness.daemon;
        ["vm1", "vm2"].into_iter().for_each(|name| daemon.wait_connected(name, false));
        let ports = ["vm1", "wire0"].map(|name| daemon.port(name));
        assert_adds_up(&[&ports[..], &self.removed].concat());
        assert_adds_up(&["vm2", "home"].map(|name| daemon.port(name)));
        let ports = daemon.status().ports;
        println!("{}removed:{}", table(&ports), table(&self.removed));
        for port in ports.iter().filter(|port| port.kind == PortKind::Guest) {
            let violations = daemon::guest(port).queues.iter().flat_map(|queue| queue.violations.values());
            assert_eq!(violations.sum::<u64>(), 0, "{port:?}");
        }
    }

    /// What runs at the end is a file that `ringwired` takes.
    fn dumps(&mut self) {
        let file = self.witness.scene.path("dump.toml");
        std::fs::write(&file, self.ringwire("config dump")).expect("a file");
        let check =
            Command::new(daemon::program("ringwired")).arg("--config").arg(&file).arg("--check").output();
        let check = check.expect("ringwired");
        let said = String::from_utf8_lossy(&check.stdout);
        println!("ringwired --config DUMP --check: {}", said.trim_end());
        assert!(check.status.success() && said.contains("valid: workers 1, nics 1, guests 4"), "{check:?}");
    }
}

/// The network that vm1 and vm2 meet in.
fn network(lan: &Lan, _: &mut Scene) {
    ["wire0", "raw0", "home"].into_iter().for_each(|name| lan.veth(name));
    lan.tap("tap0", &[]);
    lan.expect_at(MACS[0], "wire0b");
    lan.expect_at(MACS[1], "homeb");
}

#[test]
fn a_tour_of_all_live_changes_costs_the_untouched_nothing() {
    let mut tour = Tour { witness: Witness::start(network), steps: 0, removed: Vec::new() };
    let talk = tour.ports_come();
    tour.workers();
    tour.settings();
    for backend in ["tap0", "raw0", "none", "wire0"] {
        tour.set_backend(backend);
    }
    tour.guest_under_load();
    tour.reloads();
    tour.ports_go();
    tour.assert_books(talk);
    tour.dumps();
    tour.witness.end(&["every core this process may use has a worker"]);
}
