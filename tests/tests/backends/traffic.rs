//! Two guests that exchange packets all the time: vm1, whose backend is what the test is about, and vm2, which has a nic
//! in the same network.

use std::time::{Duration, Instant};

use tests::daemon::Daemon;
use tests::lan::{Lan, nic_device, tap_device};
use tests::pktgen::{MACS, Pktgen};
use tests::scene::Scene;
use tests::wait;

/// Packets that show that there is traffic.
const SOME: u64 = 200;

pub struct Traffic {
    pub lan: Lan,
    pub daemon: Daemon,
    pktgen: Pktgen,
    /// Last, because the others' logs are in its directory.
    _scene: Scene,
}

impl Traffic {
    /// Guest vm1 is connected to `backend`: "wire0", a nic whose driver knows of its link; "wire2", one whose does not;
    /// "tap0" or "raw0". `more` is lines for it.
    pub fn start(backend: &str, more: &str) -> Traffic {
        let lan = Lan::enter("10.79.5.1/24");
        ["raw0", "wire1", "wire2"].into_iter().for_each(|name| lan.veth(name));
        lan.tap("tap0", &[]);
        let mut scene = Scene::new();
        scene.nic("wire0", &tap_device("wire0"), 1, "");
        scene.nic("wire1", &nic_device(1, "wire1"), 1, "");
        scene.nic("wire2", &nic_device(2, "wire2"), 1, "");
        scene.socket_port("tap", "tap0", "tap0", "");
        scene.socket_port("raw", "raw0", "raw0", "");
        scene.guest("vm1", backend, 1);
        scene.add(more);
        scene.guest("vm2", "wire1", 1);
        let daemon = scene.start();
        lan.plug_in("wire0");
        let plug =
            if ["raw0", "wire2"].contains(&backend) { format!("{backend}b") } else { backend.to_owned() };
        lan.expect_at(MACS[0], &plug);
        lan.expect_at(MACS[1], "wire1b");
        let arguments = ["--mode", "both", "--rate", "5kpps", "--seconds", "0"];
        let sockets = ["vm1", "vm2"].map(|name| scene.socket(name));
        let pktgen = Pktgen::run(&sockets[0], Some(&sockets[1]), &scene.path("pktgen.log"), &arguments);
        let traffic = Traffic { lan, daemon, pktgen, _scene: scene };
        traffic.assert_flows();
        traffic
    }

    /// Waits until port `name` is in state `wanted`. How long that took from `since`.
    pub fn wait_state(&self, name: &str, wanted: &str, since: Instant) -> Duration {
        wait::until(&format!("{name} is {wanted}"), 10, || {
            let state = self.daemon.port(name).state;
            if state == wanted { Ok(()) } else { Err(state) }
        });
        since.elapsed()
    }

    /// From now on, some packets go each way.
    pub fn assert_flows(&self) {
        let vm1 = self.daemon.port("vm1");
        self.daemon.wait_count("vm1", "rx", 10, vm1.rx_packets + SOME, |port| port.rx_packets);
        self.daemon.wait_count("vm1", "tx", 10, vm1.tx_packets + SOME, |port| port.tx_packets);
    }

    /// Ends it; the daemon has warned of nothing but `expected`.
    pub fn end(mut self, expected: &str) {
        assert!(self.pktgen.ended().is_none(), "the guests have ended before the test");
        drop(self.pktgen);
        assert!(self.daemon.stop(Duration::from_secs(5)).success());
        let complaints = self.daemon.complaints();
        let known =
            |line: &String| line.contains(" WARN ") && !expected.is_empty() && line.contains(expected);
        assert!(complaints.iter().all(known), "{complaints:?}");
    }
}
