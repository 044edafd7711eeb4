//! A Linux guest with one backend, and a bridge that joins it to all others.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use snapshot::Port;
use tests::balance::{assert_adds_up, assert_lost_by_change};
use tests::child::Child;
use tests::daemon::Daemon;
use tests::lan::{Lan, nic_device, tap_device};
use tests::linux_guest::LinuxGuest;
use tests::namespace::{Namespace, run};
use tests::scene::Scene;
use tests::wait;

use super::{GUEST, PEER, STREAM};

/// The interface behind a nic that is no interface itself.
const FAR: &str = "far0";

#[derive(Clone, Copy, PartialEq)]
pub enum Backend {
    Tap,
    Raw,
    Nic,
    /// A nic whose driver sums, but does not cut.
    TapNic,
    /// A nic that is another ringwired's guest, which has a tap.
    VirtioNic {
        lro: bool,
    },
}

impl Backend {
    pub fn name(self) -> &'static str {
        match self {
            Backend::Tap => "tap0",
            Backend::Raw => "raw0",
            Backend::Nic | Backend::TapNic | Backend::VirtioNic { .. } => "wire0",
        }
    }

    /// The interface that frames come to.
    pub fn interface(self) -> &'static str {
        match self {
            Backend::TapNic | Backend::VirtioNic { .. } => FAR,
            other => other.name(),
        }
    }

    /// Makes its interface, and adds it to the configuration. The other ringwired, if there is one.
    fn add(self, lan: &Lan, scene: &mut Scene) -> Option<(Daemon, Scene)> {
        let name = self.name();
        match self {
            Backend::Tap => {
                lan.tap(name, &[]);
                scene.socket_port("tap", name, name, "");
            }
            Backend::Raw => {
                lan.veth(name);
                // What is left to be done comes through this pair, as it does through a tap.
                for end in [name, &format!("{name}b")] {
                    run(&leaves_all(end));
                }
                scene.socket_port("raw", name, name, "");
            }
            Backend::Nic => {
                lan.veth(name);
                scene.nic(name, &nic_device(0, name), 1, "");
            }
            Backend::TapNic => scene.nic(name, &tap_device(FAR), 1, ""),
            Backend::VirtioNic { lro } => {
                lan.tap(FAR, &[]);
                let mut next = Scene::new();
                next.socket_port("tap", "tap0", FAR, "");
                next.guest("near", "tap0", 1);
                let daemon = next.start();
                let path = next.socket("near");
                // Hugepages would be too many regions for its memory table.
                scene.add("\n[eal]\nhugepages = \"never\"\n");
                let device = format!("net_virtio_user0,path={},queue_size=1024", path.display());
                scene.nic(name, &device, 1, &format!("lro = {lro}"));
                return Some((daemon, next));
            }
        }
        None
    }
}

/// The command after which checksums and segments are left to what `interface` sends to.
fn leaves_all(interface: &str) -> [&str; 9] {
    ["ethtool", "-K", interface, "tx", "on", "tso", "on", "gso", "on"]
}

/// A guest with one backend, and a bridge that joins it to all others.
pub struct Stage {
    pub daemon: Daemon,
    guest: LinuxGuest,
    pub peer: Namespace,
    pub lan: Lan,
    _next: Option<(Daemon, Scene)>,
    /// Last, because the others' logs are in its directory.
    scene: Scene,
}

impl Stage {
    /// Starts everything; `device` is more options of the guest.
    pub fn set(backend: Backend, script: &str, device: &str) -> Stage {
        let lan = Lan::enter("10.79.6.254/24");
        let peer = Namespace::new(&format!("{PEER}/24"));
        lan.plug_in(&peer.near);
        peer.run(&leaves_all(&peer.far));
        let mut scene = Scene::new();
        let _next = backend.add(&lan, &mut scene);
        scene.guest("vm1", backend.name(), 1);
        let daemon = scene.start();
        if backend == Backend::TapNic {
            lan.plug_in(FAR);
        }
        let script = script.replace("GUEST", GUEST).replace("PEER", PEER);
        let script = script.replace("STREAM", &STREAM.to_string());
        let more = ["--timeout", "120", "--extra-device-opts", device];
        let guest = LinuxGuest::start(&scene, "vm1", &script, &more);
        Stage { daemon, guest, peer, lan, _next, scene }
    }

    /// All ports, when the guest has given its mark `name`.
    pub fn ports_at(&mut self, name: &str) -> Vec<Port> {
        self.guest.wait_mark(name, 90);
        self.daemon.status().ports
    }

    /// Starts to keep all of TCP that passes the end of `at`.
    pub fn capture(&self, at: &Namespace) -> Capture {
        let file = self.scene.path("seen.pcap");
        let mut command = at.command(&["tcpdump", "-n", "-i", &at.far, "-B", "65536", "-Z", "root", "-w"]);
        command.arg(&file).arg("tcp");
        let tcpdump = Child::start("tcpdump", command, &self.scene.path("tcpdump.log"));
        wait::until("tcpdump listens", 10, || {
            let log = tcpdump.log();
            if log.contains("listening on") { Ok(()) } else { Err(log) }
        });
        Capture { tcpdump, file }
    }

    /// The guest's end, and the daemon's. What the guest has said.
    pub fn end(mut self) -> String {
        let said = self.guest.end().unwrap_or_else(|why| panic!("{why}"));
        self.daemon.wait_connected("vm1", false);
        let ports = self.daemon.status().ports;
        assert_adds_up(&ports);
        assert_lost_by_change(&ports);
        assert!(self.daemon.stop(Duration::from_secs(5)).success());
        assert_eq!(self.daemon.complaints(), [""; 0]);
        said
    }
}

/// A tcpdump, and what it writes.
pub struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    /// Ends it. It has to have seen everything.
    pub fn end(mut self) -> PathBuf {
        // What has not been asked for after SIGINT is lost: what is under way now is not.
        std::thread::sleep(Duration::from_millis(500));
        self.tcpdump.signal(Signal::SIGINT);
        assert!(self.tcpdump.wait(Duration::from_secs(20)).expect("tcpdump's end").success());
        let log = self.tcpdump.log();
        assert!(log.lines().any(|line| line == "0 packets dropped by kernel"), "{log}");
        self.file
    }
}
