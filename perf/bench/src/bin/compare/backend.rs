//! The backends: programs that run one at a time on the same core. The others are stopped meanwhile (SIGSTOP), so
//! that starting up is part of no measurement.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use crate::Failure;
use crate::cell::Nic;

/// How long one may take to start.
const START: Duration = Duration::from_secs(30);
/// Bytes of the virtio-net header.
const HEADER: u16 = 12;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// ringwired.
    Ringwire,
    /// testpmd, io forwarding between net_vhost and the NIC.
    NetVhost,
    /// rte_vhost called directly: `rte-vhost-io`.
    RteVhost,
    /// `ringwire-pktgen reflect`: returns descriptors, and does nothing else. The frontend's own limit.
    Reflect,
}

impl Who {
    /// All, in the order in which they take turns.
    pub const ALL: [Who; 4] = [Who::Ringwire, Who::NetVhost, Who::RteVhost, Who::Reflect];

    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Who::Ringwire => "ringwire",
            Who::NetVhost => "net_vhost",
            Who::RteVhost => "rte_vhost",
            Who::Reflect => "limit",
        }
    }
}

/// What is the same for all of them.
pub struct Place {
    /// For sockets, logs and the like.
    pub directory: PathBuf,
    /// Where ringwire's programs are.
    pub programs: PathBuf,
    /// The frontend's core.
    pub front: usize,
    /// The backend's core.
    pub back: usize,
    /// Huge pages, or none at all.
    pub hugepages: bool,
}

/// A running backend, stopped unless it is its turn; killed when dropped.
pub struct Backend {
    /// Which.
    pub who: Who,
    /// Where frontends connect.
    pub socket: PathBuf,
    child: Child,
    log: PathBuf,
}

impl Backend {
    /// Starts one, with a stand-in for its NIC, and stops it again once it is ready.
    pub fn start(who: Who, nic: Nic, place: &Place) -> Result<Backend, Failure> {
        let file = |suffix: &str| place.directory.join(format!("{}.{suffix}", who.name()));
        let (socket, log) = (file("sock"), file("log"));
        let _ = std::fs::remove_file(&socket);
        let arguments = match who {
            Who::Ringwire => ringwired(nic, place, &socket, &file("toml"))?,
            Who::NetVhost => testpmd(nic, place, &socket),
            Who::RteVhost => rte_vhost_io(nic, place, &socket),
            Who::Reflect => reflect(nic, place, &socket),
        };
        // Should this program be killed, they must not stay behind, and less so stopped.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(&arguments);
        // DPDK leaves run-time files behind: they go with the directory.
        command.env("RUNTIME_DIRECTORY", &place.directory).env_remove("RUST_LOG");
        let out = File::create(&log)?;
        command.stdin(Stdio::piped()).stderr(out.try_clone()?).stdout(out);
        let child = command.spawn().map_err(|error| Failure(format!("setpriv: {error}")))?;
        let mut backend = Backend { who, socket, child, log };
        backend.wait_until_ready()?;
        backend.pause()?;
        Ok(backend)
    }

    fn wait_until_ready(&mut self) -> Result<(), Failure> {
        // What it says when it is ready; the other two make their sockets last.
        let says = match self.who {
            Who::NetVhost => "Press enter to exit",
            Who::RteVhost => "ready",
            Who::Ringwire | Who::Reflect => "",
        };
        let started = Instant::now();
        while !(self.socket.exists() && self.said().contains(says)) {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failure(&format!("ended while starting ({status})")));
            }
            if started.elapsed() > START {
                return Err(self.failure("is not ready"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn failure(&self, what: &str) -> Failure {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let end = lines[lines.len().saturating_sub(10)..].join("\n");
        Failure(format!("{} {what}; the end of what it said:\n{end}", self.who.name()))
    }

    /// It is its turn.
    pub fn resume(&mut self) -> Result<(), Failure> {
        self.signal(Signal::SIGCONT)
    }

    /// It is not any more.
    pub fn pause(&mut self) -> Result<(), Failure> {
        self.signal(Signal::SIGSTOP)
    }

    fn signal(&mut self, signal: Signal) -> Result<(), Failure> {
        if let Some(status) = self.child.try_wait()? {
            return Err(self.failure(&format!("ended ({status})")));
        }
        // Not waited for, so the number is still this child's.
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn ringwired(nic: Nic, place: &Place, socket: &Path, config: &Path) -> Result<Vec<String>, Failure> {
    let (api, program) = (place.directory.join("api.sock"), place.programs.join("ringwired"));
    let mtu = nic.mtu().map_or(String::new(), |mtu| format!("mtu = {mtu}\n"));
    let text = format!(
        "[api]\nsocket = {api:?}\n[eal]\nhugepages = \"{}\"\n[datapath]\ncores = [{}]\n\
         [[nic]]\nname = \"nic\"\ndevice = {:?}\n{mtu}\
         [[guest]]\nname = \"guest\"\nsocket = {socket:?}\nbackend = \"nic\"\n",
        if place.hugepages { "require" } else { "never" },
        place.back,
        nic.devargs(&place.directory),
    );
    std::fs::write(config, text)?;
    Ok(vec![program.display().to_string(), "--config".into(), config.display().to_string()])
}

/// What DPDK's own programs have in common. The main lcore only waits.
fn eal(nic: Nic, place: &Place, name: &str) -> Vec<String> {
    let mut arguments = words("--no-pci --no-telemetry -m 256");
    if place.hugepages {
        arguments.push("--in-memory".into());
    } else {
        arguments.extend(["--no-huge".into(), format!("--file-prefix={name}-{}", std::process::id())]);
    }
    arguments.push(format!("--lcores=0@{},1@{}", place.front, place.back));
    arguments.push(format!("--vdev={}", nic.devargs(&place.directory)));
    arguments
}

fn testpmd(nic: Nic, place: &Place, socket: &Path) -> Vec<String> {
    // Line by line, or what it says would stay in its buffer.
    let mut arguments = words("stdbuf -oL dpdk-testpmd");
    arguments.push(format!("--vdev=net_vhost0,iface={}", socket.display()));
    arguments.extend(eal(nic, place, "testpmd"));
    arguments.extend(words("-- --forward-mode=io --auto-start --no-flush-rx --total-num-mbufs=8192"));
    arguments
}

fn rte_vhost_io(nic: Nic, place: &Place, socket: &Path) -> Vec<String> {
    let mut arguments = vec![place.programs.join("rte-vhost-io").display().to_string()];
    arguments.extend(eal(nic, place, "rte-vhost-io"));
    arguments.extend(["--log-level=*:warning".into(), "--".into(), socket.display().to_string()]);
    arguments
}

fn reflect(nic: Nic, place: &Place, socket: &Path) -> Vec<String> {
    let mut arguments = vec![place.programs.join("ringwire-pktgen").display().to_string()];
    arguments.extend(words(&format!("reflect --core {} --socket", place.back)));
    arguments.push(socket.display().to_string());
    if nic.gives() > 0 {
        arguments.extend(words(&format!("--rx blank --length {}", nic.gives() + HEADER)));
    }
    arguments
}
