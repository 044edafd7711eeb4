//! `ringwire-pktgen`: guests that number what they send, and look for what is missing, late or doubled.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::child::Child;
use crate::cores;
use crate::daemon::program;
use crate::wait;

/// Hardware addresses of its guest and of the peer.
pub const MACS: [&str; 2] = ["02:72:77:00:00:01", "02:72:77:00:00:02"];

/// A running generator.
pub struct Pktgen {
    child: Child,
}

/// A vhost-user backend that returns to a frontend what it sends.
pub struct Reflect {
    _child: Child,
}

impl Reflect {
    /// Listens on `socket`.
    pub fn start(socket: &Path, log: &Path) -> Reflect {
        let mut command = Command::new(program("ringwire-pktgen"));
        command.args(["reflect", "--rx", "copy", "--socket"]).arg(socket);
        let child = Child::start("ringwire-pktgen", command, log);
        let listens = || if socket.exists() { Ok(()) } else { Err(child.log()) };
        wait::until("ringwire-pktgen reflects", 10, listens);
        Reflect { _child: child }
    }
}

/// What one guest has seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Packets the backend took.
    pub sent: u64,
    /// Of those, not returned.
    pub pending: u64,
    /// The other's packets received.
    pub received: u64,
    /// The other's that were not.
    pub lost: u64,
    /// Received after a later one of the same queue.
    pub reordered: u64,
    /// Received again.
    pub duplicates: u64,
    /// Received, and not as sent.
    pub corrupt: u64,
    /// Received, and of somebody else.
    pub foreign: u64,
}

impl Pktgen {
    /// Starts `ringwire-pktgen run` on guests' sockets, with `more` arguments.
    pub fn run(socket: &Path, peer: Option<&Path>, log: &Path, more: &[&str]) -> Pktgen {
        let mut command = Command::new(program("ringwire-pktgen"));
        command.arg("run").arg("--json").arg("--socket").arg(socket);
        if let Some(peer) = peer {
            command.arg("--peer").arg(peer);
        }
        command.args(["--core", &cores::other().to_string()]).args(more);
        Pktgen { child: Child::start("ringwire-pktgen", command, log) }
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.ended()
    }

    /// Has it send no more: it waits for what is under way, reports, and ends.
    pub fn stop(&self) {
        self.child.signal(Signal::SIGINT);
    }

    /// Waits for its end, and gives what each guest has seen.
    pub fn finish(mut self, limit: Duration) -> Vec<Seen> {
        let status =
            self.child.wait(limit).unwrap_or_else(|| panic!("ringwire-pktgen did not end within {limit:?}"));
        let said = self.child.log();
        assert!(status.success(), "{status:?}: {said}");
        let start = said.find('{').unwrap_or_else(|| panic!("no JSON in {said}"));
        assert_eq!(said[..start].trim(), "", "ringwire-pktgen complains");
        let report: Value =
            serde_json::from_str(&said[start..]).unwrap_or_else(|error| panic!("{error} in {said}"));
        let ports = report["ports"].as_array().expect("ports");
        ports.iter().map(Seen::read).collect()
    }
}

impl Seen {
    fn read(port: &Value) -> Seen {
        let count = |name: &str| port[name].as_u64().unwrap_or_else(|| panic!("{name} in {port}"));
        Seen {
            sent: count("tx_packets"),
            pending: count("tx_pending"),
            received: count("received"),
            lost: count("lost"),
            reordered: count("reordered"),
            duplicates: count("duplicates"),
            corrupt: count("corrupt"),
            foreign: count("foreign"),
        }
    }
}
