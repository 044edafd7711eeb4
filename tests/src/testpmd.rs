//! DPDK's testpmd, steered through its prompt: as a guest (virtio-user) or as a NIC's peer.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::child::Child;
use crate::{cores, wait};

/// Seconds within which it starts, and answers.
const ANSWER: u64 = 60;

/// What to start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Devices: port 0, port 1, ...
    pub vdevs: Vec<String>,
    /// Queue pairs of each port.
    pub queues: usize,
    /// Packet memory in MiB.
    pub memory: usize,
    /// Mbufs.
    pub mbufs: usize,
    /// Bytes of an mbuf, its 128 of headroom included.
    pub mbuf_size: usize,
    /// Longest frame.
    pub max_frame: usize,
    /// Port 0 may put a frame into several mbufs.
    pub scatter: bool,
    /// More arguments of EAL.
    pub eal: Vec<String>,
    /// More arguments of testpmd itself.
    pub more: Vec<String>,
}

impl Setup {
    /// Small: for frames that fit an mbuf.
    pub fn small(vdevs: impl IntoIterator<Item = String>) -> Setup {
        let vdevs = vdevs.into_iter().collect();
        Setup {
            vdevs,
            queues: 1,
            memory: 64,
            mbufs: 4096,
            mbuf_size: 2176,
            max_frame: 1518,
            scatter: false,
            eal: Vec::new(),
            more: Vec::new(),
        }
    }
}

/// Devargs of a virtio-user port, without options.
pub fn virtio_user(socket: &Path, queues: usize, queue_size: usize) -> String {
    let socket = socket.display();
    format!("net_virtio_user0,path={socket},queues={queues},queue_size={queue_size}")
}

/// How its virtio driver receives (`way` is "Rx") or sends ("Tx") on port 0, as it says in its log at level info:
/// "vectorized", "mergeable buffer", ...
pub fn virtio_path(log: &str, way: &str) -> String {
    let end = format!(" {way} path on port 0");
    let path = log.lines().rev().find_map(|line| line.split_once("virtio: using ")?.1.strip_suffix(&end));
    path.map_or("unknown", |path| path.trim_start_matches("packed ring ")).to_owned()
}

/// Counters of one of its ports, as `show port stats` gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets it received.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets that found no room.
    pub rx_missed: u64,
    /// Broken packets.
    pub rx_errors: u64,
    /// Packets that found no mbuf.
    pub rx_nombuf: u64,
    /// Packets it sent.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Packets it could not send.
    pub tx_errors: u64,
}

/// A running testpmd; killed when dropped.
pub struct Testpmd {
    /// The process.
    pub child: Child,
    stdin: ChildStdin,
}

impl Testpmd {
    /// Starts it, and waits for its prompt; it does not forward yet.
    pub fn start(name: &str, setup: &Setup, log: &Path) -> Testpmd {
        let mut testpmd = Testpmd::spawn(name, setup, log);
        let said = testpmd.wait_for(0, "Checking link statuses...");
        assert!(!said.contains("Fail to configure"), "testpmd could not start its ports: {said}");
        testpmd
    }

    /// Starts it, with its threads on the core that no worker polls, and waits for nothing.
    pub fn spawn(name: &str, setup: &Setup, log: &Path) -> Testpmd {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("rwt-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let core = cores::other();
        // Line by line, or its answers would stay in its buffer.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "dpdk-testpmd", "--no-huge", "--no-pci", "--no-telemetry"]);
        command.args(["--lcores", &format!("0@{core},1@{core}"), "-m", &setup.memory.to_string()]);
        command.args(["--file-prefix", &prefix]).args(&setup.eal);
        // DPDK leaves a megabyte of run-time files behind for each prefix: they go with the test's directory.
        command.env("RUNTIME_DIRECTORY", log.parent().expect("a directory"));
        setup.vdevs.iter().for_each(|vdev| {
            command.args(["--vdev", vdev]);
        });
        let queues = setup.queues;
        command.args(["--", "-i", "--no-flush-rx", "--disable-device-start"]);
        command.args([format!("--rxq={queues}"), format!("--txq={queues}")]);
        command.arg(format!("--total-num-mbufs={}", setup.mbufs));
        command.arg(format!("--mbuf-size={}", setup.mbuf_size));
        command.arg(format!("--max-pkt-len={}", setup.max_frame));
        command.args(&setup.more);
        let mut child = Child::start(name, command, log);
        let stdin = child.take_stdin();
        let mut testpmd = Testpmd { child, stdin };
        if setup.scatter {
            testpmd.say("port config 0 rx_offload scatter on");
        }
        testpmd.say("port start all");
        testpmd
    }

    /// Forwards from port to port, and waits for room rather than drop.
    pub fn forward(&mut self) {
        self.say("set fwd io retry");
        // For 100 s at most; then it would drop.
        self.say("set burst tx delay 100 retry 1000000");
        let from = self.child.log_len();
        self.say("start");
        self.wait_for(from, "packets/burst");
    }

    /// Says something at its prompt.
    pub fn say(&mut self, command: &str) {
        writeln!(self.stdin, "{command}")
            .unwrap_or_else(|error| panic!("testpmd takes no {command}: {error}"));
    }

    fn wait_for(&mut self, from: u64, text: &str) -> String {
        wait::until(&format!("testpmd says {text:?}"), ANSWER, || {
            let said = self.child.log_from(from);
            if said.contains(text) {
                return Ok(said);
            }
            let ended = self.child.ended();
            assert!(ended.is_none(), "testpmd ended: {ended:?}: {said}");
            Err(said)
        })
    }

    /// Counters of port `port`.
    pub fn stats(&mut self, port: usize) -> Stats {
        let from = self.child.log_len();
        self.say(&format!("show port stats {port}"));
        let said = self.wait_for(from, &"#".repeat(76));
        let count = |name: &str| {
            let value =
                said.split(&format!("{name}:")).nth(1).and_then(|rest| rest.split_whitespace().next());
            value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {said}"))
        };
        Stats {
            rx_packets: count("RX-packets"),
            rx_bytes: count("RX-bytes"),
            rx_missed: count("RX-missed"),
            rx_errors: count("RX-errors"),
            rx_nombuf: count("RX-nombuf"),
            tx_packets: count("TX-packets"),
            tx_bytes: count("TX-bytes"),
            tx_errors: count("TX-errors"),
        }
    }

    /// Stops forwarding, closes its ports and ends.
    pub fn quit(mut self) {
        self.say("stop");
        self.say("quit");
        let ended = self.child.wait(Duration::from_secs(ANSWER));
        assert!(ended.is_some_and(|status| status.success()), "testpmd did not quit: {ended:?}");
    }
}
