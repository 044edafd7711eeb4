//! The backends that are compared.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use clap::ValueEnum;
use serde::Serialize;

use crate::Failure;
use crate::daemon;
use crate::far::{Far, Nic};
use crate::frontend::{self, Rings};
use crate::ovs;
use crate::place::Place;
use crate::process::Process;
use crate::turns::Player;

/// Bytes of the virtio-net header.
const HEADER: u16 = 12;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Who {
    /// ringwired.
    Ringwire,
    /// testpmd, io forwarding between net_vhost and the other end.
    NetVhost,
    /// rte_vhost called directly: `rte-vhost-io`.
    RteVhost,
    /// Open vSwitch with DPDK, one flow each way.
    #[serde(rename = "ovs")]
    #[value(name = "ovs")]
    OpenVswitch,
    /// `ringwire-pktgen reflect`: returns descriptors, and does nothing else. The frontend's own limit.
    #[serde(rename = "limit")]
    #[value(name = "limit")]
    Reflect,
}

impl Who {
    /// All, in the order in which they take turns.
    pub const ALL: [Who; 5] = [Who::Ringwire, Who::NetVhost, Who::RteVhost, Who::OpenVswitch, Who::Reflect];

    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Who::Ringwire => "ringwire",
            Who::NetVhost => "net_vhost",
            Who::RteVhost => "rte_vhost",
            Who::OpenVswitch => "ovs",
            Who::Reflect => "limit",
        }
    }

    /// Whether it listens on its sockets; else it connects to the frontend's.
    pub fn listens(self) -> bool {
        self != Who::OpenVswitch
    }

    /// Those of `wanted` that are installed; says which are not.
    pub fn installed(wanted: &[Who]) -> Vec<Who> {
        let why_not = |who: &Who| match who {
            Who::NetVhost => (!is_program("dpdk-testpmd"))
                .then(|| "dpdk-testpmd is not installed (apt-get install dpdk)".to_owned()),
            Who::OpenVswitch => ovs::missing(),
            _ => None,
        };
        let is_there = |who: &&Who| match why_not(who) {
            None => true,
            Some(why) => {
                eprintln!("skipped: {}: {why}", who.name());
                false
            }
        };
        wanted.iter().filter(is_there).copied().collect()
    }

    /// Whether it can have that at its other end.
    pub fn has(self, far: Far) -> bool {
        match (self, far) {
            (Who::RteVhost, far) => far != Far::Guest,
            // Its ports know no MTU above 1500 here, and a switch is no measure for what a NIC makes up.
            (Who::OpenVswitch, Far::Nic(nic)) => matches!(nic, Nic::Sink { .. }) && nic.mtu().is_none(),
            _ => true,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn is_program(name: &str) -> bool {
    Command::new(name).arg("--version").output().is_ok()
}

/// A running backend, stopped unless it is its turn; killed when dropped.
pub struct Backend {
    /// Which.
    pub who: Who,
    /// Its guests' sockets: one, or two if the other end is a guest, too.
    pub sockets: Vec<PathBuf>,
    process: Process,
    /// What it needs besides.
    _helper: Option<Process>,
}

impl Backend {
    /// Starts one, and stops it again once it is ready.
    pub fn start(who: Who, far: Far, place: &Place) -> Result<Backend, Failure> {
        let guests = if far == Far::Guest && who != Who::Reflect { 2 } else { 1 };
        let socket = |at| place.directory.join(format!("{}{at}.sock", who.name()));
        let sockets: Vec<PathBuf> = (0..guests).map(socket).collect();
        for socket in &sockets {
            let _ = std::fs::remove_file(socket);
        }
        let (process, helper) = match who {
            Who::Ringwire => (ringwired(far, place, &sockets)?, None),
            Who::OpenVswitch => ovs::start(far, place, &sockets).map(|(switch, db)| (switch, Some(db)))?,
            Who::NetVhost => (ready(who, &testpmd(far, place, &sockets), place, &sockets)?, None),
            Who::RteVhost => (ready(who, &rte_vhost_io(far, place, &sockets), place, &sockets)?, None),
            Who::Reflect => (ready(who, &reflect(far, place, &sockets), place, &sockets)?, None),
        };
        let mut backend = Backend { who, sockets, process, _helper: helper };
        backend.process.pause()?;
        Ok(backend)
    }

    /// Starts all of `whos` that can have that at their other end. Open vSwitch, of several programs that have to find
    /// each other, is left out where it does not start.
    pub fn start_all(whos: &[Who], far: Far, place: &Place) -> Result<Vec<Backend>, Failure> {
        let mut backends = Vec::new();
        for who in whos.iter().filter(|who| who.has(far)) {
            match Backend::start(*who, far, place) {
                Ok(backend) => backends.push(backend),
                Err(Failure(why)) if *who == Who::OpenVswitch => eprintln!("skipped: {who}: {why}"),
                Err(failure) => return Err(failure),
            }
        }
        Ok(backends)
    }

    /// `ringwire-pktgen` as its guest. All of them poll, and need no kicks.
    pub fn pktgen(&self, what: &str, rings: Rings, place: &Place) -> Command {
        let mut command = frontend::pktgen(what, &self.sockets, rings, place);
        command.args(["--kick", "never"]);
        if !self.who.listens() {
            command.arg("--server");
        }
        command
    }
}

impl Player for Backend {
    fn name(&self) -> String {
        self.who.name().into()
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Starts one that makes its sockets last, or says when it is ready.
fn ready(who: Who, arguments: &[String], place: &Place, sockets: &[PathBuf]) -> Result<Process, Failure> {
    let says = match who {
        Who::NetVhost => "Press enter to exit",
        Who::RteVhost => "ready",
        _ => "",
    };
    let mut process = Process::start(who.name(), arguments, place)?;
    process.wait_until(|said| said.contains(says) && sockets.iter().all(|socket| socket.exists()))?;
    Ok(process)
}

/// The arguments in `text`, of which none has a blank in it.
pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn ringwired(far: Far, place: &Place, sockets: &[PathBuf]) -> Result<Process, Failure> {
    let (nics, backends) = match far {
        Far::Nic(nic) => {
            (vec![daemon::Nic { device: nic.devargs(0, &place.directory), mtu: nic.mtu() }], ["nic0", ""])
        }
        Far::Guest => (Vec::new(), ["vm1", "vm0"]),
    };
    let guests: Vec<daemon::Guest> = sockets
        .iter()
        .zip(backends)
        .map(|(socket, backend)| daemon::Guest { socket: socket.clone(), backend: backend.into() })
        .collect();
    let text = daemon::config(place, &place.directory.join("api.sock"), &nics, &guests);
    daemon::start(place, Who::Ringwire.name(), &text, sockets)
}

/// Memory of DPDK's own programs, and what they leave alone.
pub fn dpdk_memory(place: &Place, name: &str) -> Vec<String> {
    let mut arguments = words("--no-pci --no-telemetry -m 256");
    if place.hugepages {
        arguments.push("--in-memory".into());
    } else {
        arguments.extend(["--no-huge".into(), format!("--file-prefix={name}-{}", std::process::id())]);
    }
    arguments
}

/// What DPDK's own backends have in common. The main lcore only waits.
fn eal(far: Far, place: &Place, name: &str) -> Vec<String> {
    let mut arguments = dpdk_memory(place, name);
    arguments.push(format!("--lcores=0@{},1@{}", place.front, place.back));
    if let Far::Nic(nic) = far {
        arguments.push(format!("--vdev={}", nic.devargs(0, &place.directory)));
    }
    arguments
}

fn testpmd(far: Far, place: &Place, sockets: &[PathBuf]) -> Vec<String> {
    // Line by line, or what it says would stay in its buffer.
    let mut arguments = words("stdbuf -oL dpdk-testpmd");
    for (at, socket) in sockets.iter().enumerate() {
        arguments.push(format!("--vdev=net_vhost{at},iface={}", socket.display()));
    }
    arguments.extend(eal(far, place, "testpmd"));
    arguments.extend(words("-- --forward-mode=io --auto-start --no-flush-rx --total-num-mbufs=8192"));
    arguments
}

fn rte_vhost_io(far: Far, place: &Place, sockets: &[PathBuf]) -> Vec<String> {
    let mut arguments = vec![place.program("rte-vhost-io")];
    arguments.extend(eal(far, place, "rte-vhost-io"));
    arguments.extend(["--log-level=*:warning".into(), "--".into(), sockets[0].display().to_string()]);
    arguments
}

/// Where the guest is to get its packets back, it does; where they would come from elsewhere, it gets blank ones.
fn reflect(far: Far, place: &Place, sockets: &[PathBuf]) -> Vec<String> {
    let mut arguments = vec![place.program("ringwire-pktgen")];
    arguments.extend(words(&format!("reflect --core {} --socket", place.back)));
    arguments.push(sockets[0].display().to_string());
    arguments.extend(match far {
        Far::Nic(Nic::Returns) => words("--rx copy"),
        Far::Guest => words("--rx blank"),
        Far::Nic(nic) if nic.gives() > 0 => words(&format!("--rx blank --length {}", nic.gives() + HEADER)),
        Far::Nic(_) => Vec::new(),
    });
    arguments
}
