//! Open vSwitch with DPDK, in directories of its own: whatever Open vSwitch the host runs is left alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::far::Far;
use crate::place::Place;
use crate::process::Process;

/// Programs that may be built with DPDK: Debian's lies beside the one without.
const SWITCHES: [&str; 2] = ["/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk", "ovs-vswitchd"];
/// What else is run.
const TOOLS: [&str; 4] = ["ovsdb-tool", "ovsdb-server", "ovs-vsctl", "ovs-ofctl"];
/// The database's schema.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// The bridge.
const BRIDGE: &str = "br0";

fn switch() -> Option<&'static str> {
    let has_dpdk = |program: &&&str| {
        let output = Command::new(program).arg("--version").output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("DPDK"))
    };
    SWITCHES.iter().find(has_dpdk).copied()
}

/// Why it cannot take part.
pub fn missing() -> Option<String> {
    let runs = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let is_complete = switch().is_some() && TOOLS.into_iter().all(runs) && Path::new(SCHEMA).exists();
    (!is_complete).then(|| {
        "Open vSwitch with DPDK is not installed (apt-get install openvswitch-switch-dpdk)".to_owned()
    })
}

/// The switch and its database, with a port that connects to each of `sockets`, and all packets that come in by one
/// port sent to the other.
pub fn start(far: Far, place: &Place, sockets: &[PathBuf]) -> Result<(Process, Process), Failure> {
    let program = switch().ok_or_else(|| Failure(missing().unwrap_or_default()))?;
    let at = |name: &str| place.directory.join(name).display().to_string();
    let (file, remote) = (at("conf.db"), at("db.sock"));
    let _ = std::fs::remove_file(&file);
    run("ovsdb-tool", &["create", &file, SCHEMA], place)?;
    let remote_option = format!("--remote=punix:{remote}");
    let arguments = ["ovsdb-server", &file, &remote_option, "--unixctl", &at("db.ctl"), "-vconsole:warn"];
    let mut database = Process::start("ovsdb", &arguments.map(str::to_owned), place)?;
    database.wait_until(|_| Path::new(&remote).exists())?;

    let db = format!("--db=unix:{remote}");
    // The socket is there before the server listens on it.
    run("ovs-vsctl", &[&db, "--retry", "--timeout=10", "--no-wait", "init"], place)?;
    let mut configure = vec![db.clone(), "--no-wait".into(), "set".into(), "Open_vSwitch".into(), ".".into()];
    configure.extend(options(place).map(|(key, value)| format!("other_config:{key}=\"{value}\"")));
    run("ovs-vsctl", &configure.iter().map(String::as_str).collect::<Vec<_>>(), place)?;

    let server = format!("unix:{remote}");
    let arguments = [program, &server, "--unixctl", &at("switch.ctl"), "-vconsole:warn"];
    let mut switch = Process::start("ovs", &arguments.map(str::to_owned), place)?;
    // Answers as soon as the switch has taken the configuration over, DPDK's start included.
    let added = run("ovs-vsctl", &ports(&db, far, place, sockets), place);
    if let Err(Failure(why)) = added.and_then(|()| connect_ports(place)) {
        return Err(switch.failure(&format!("cannot be configured ({why})")));
    }
    switch.wait_until(|_| true)?;
    Ok((switch, database))
}

/// The frontend's core for whatever is not polling, the backend's for what is.
fn options(place: &Place) -> impl Iterator<Item = (&'static str, String)> {
    let mask = |core: usize| format!("{:#x}", 1u128 << core);
    let memory = if place.hugepages { "" } else { " --no-huge --legacy-mem -m 2048" };
    [
        ("dpdk-init", "true".into()),
        ("dpdk-lcore-mask", mask(place.front)),
        ("pmd-cpu-mask", mask(place.back)),
        ("dpdk-extra", format!("--no-pci --no-telemetry --file-prefix=ovs-{}{memory}", std::process::id())),
    ]
    .into_iter()
}

/// Arguments of ovs-vsctl: the bridge, and ports 1 and 2.
fn ports(db: &str, far: Far, place: &Place, sockets: &[PathBuf]) -> Vec<String> {
    let mut words = format!(
        "{db} --timeout=30 add-br {BRIDGE} -- set bridge {BRIDGE} datapath_type=netdev fail_mode=secure"
    );
    for (at, socket) in sockets.iter().enumerate() {
        let (name, number, path) = (format!("vhost{at}"), at + 1, socket.display());
        words += &format!(
            " -- add-port {BRIDGE} {name} -- set Interface {name} type=dpdkvhostuserclient \
             ofport_request={number} options:vhost-server-path={path}"
        );
    }
    if let Far::Nic(nic) = far {
        let devargs = nic.devargs(0, &place.directory);
        words += &format!(
            " -- add-port {BRIDGE} nic -- set Interface nic type=dpdk ofport_request=2 \
             options:dpdk-devargs=\"{devargs}\""
        );
    }
    words.split_whitespace().map(str::to_owned).collect()
}

fn connect_ports(place: &Place) -> Result<(), Failure> {
    let bridge = format!("unix:{}", place.directory.join(format!("{BRIDGE}.mgmt")).display());
    for (from, to) in [(1, 2), (2, 1)] {
        let flow = format!("in_port={from},actions=output:{to}");
        run("ovs-ofctl", &["add-flow", &bridge, &flow], place)?;
    }
    Ok(())
}

fn run(program: &str, arguments: &[impl AsRef<std::ffi::OsStr>], place: &Place) -> Result<(), Failure> {
    let mut command = Command::new(program);
    let output = command.args(arguments).env("OVS_RUNDIR", &place.directory).output();
    let output = output.map_err(|error| Failure(format!("{program}: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // ovs-vsctl says so, and succeeds, if the switch could not add a port.
    if output.status.success() && !said.contains("Error detected") {
        return Ok(());
    }
    Err(Failure(format!("{program}: {}: {said}", output.status)))
}
