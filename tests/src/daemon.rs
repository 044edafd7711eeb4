//! `ringwired` as a child, and what its API says.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use snapshot::{Guest, Nic, Port, Status};

use crate::child::Child;
use crate::wait;

/// Seconds within which the daemon gets ready.
const START: u64 = 20;
/// An API request has this long.
const REQUEST: Duration = Duration::from_secs(5);

/// A running daemon; killed when dropped.
pub struct Daemon {
    /// The process.
    pub child: Child,
    api: PathBuf,
}

/// Where `ringwired` and `ringwire` are: `$RINGWIRE_BIN_DIR`, or beside the tests' own target directory,
/// the release build before the debug one.
///
/// # Panics
/// If they are in neither.
pub fn program(name: &str) -> PathBuf {
    if let Some(directory) = std::env::var_os("RINGWIRE_BIN_DIR") {
        return PathBuf::from(directory).join(name);
    }
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let release = profile.with_file_name("release");
    [release.as_path(), profile]
        .map(|directory| directory.join(name))
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not built: cargo build --release -p ringwired -p ringwire"))
}

impl Daemon {
    /// Starts it, and waits until its API answers.
    pub fn start(config: &Path, api: &Path, log: &Path) -> Daemon {
        Daemon::start_as(Command::new(program("ringwired")), config, api, log, START)
    }

    /// The same with `command`, which runs it, and so many seconds for that.
    pub fn start_as(mut command: Command, config: &Path, api: &Path, log: &Path, seconds: u64) -> Daemon {
        // All lines: a guest that breaks every rule there is does so within seconds.
        command.arg("--config").arg(config).args(["--log-lines", "1000000"]).env_remove("RUST_LOG");
        let child = Child::start("ringwired", command, log);
        let mut daemon = Daemon { child, api: api.to_owned() };
        wait::until("ringwired gets ready", seconds, || {
            let ended = daemon.child.ended();
            assert!(ended.is_none(), "ringwired ended while starting: {ended:?}");
            daemon.get("/v1/status")
        });
        daemon
    }

    /// The API's answer to `GET PATH`.
    pub fn get(&self, path: &str) -> Result<String, String> {
        match self.request("GET", path, "")? {
            (200, body) => Ok(body),
            (code, body) => Err(format!("{code}: {body}")),
        }
    }

    /// The API's answer to a request: status code and body.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Result<(u16, String), String> {
        let answer = self.exchange(method, path, body).map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no HTTP: {answer:?}"))?;
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((code.ok_or_else(|| format!("no HTTP: {answer:?}"))?, body.to_owned()))
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.api)?;
        stream.set_read_timeout(Some(REQUEST))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: ringwire\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Connects a guest to another port, or to `none`, and gives the guest as it is then.
    pub fn set_backend(&self, guest: &str, backend: &str) -> Port {
        let body = format!("{{\"backend\": {backend:?}}}");
        let (code, answer) =
            self.request("PUT", &format!("/v1/guests/{guest}/backend"), &body).expect("the API's answer");
        assert_eq!(code, 200, "{guest} -> {backend}: {answer}");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error} in {answer}"))
    }

    /// `ringwire ARGUMENTS`, a client of this daemon.
    pub fn client(&self, arguments: &[&str]) -> Output {
        self.client_command(arguments).output().expect("ringwire")
    }

    /// The same, to be started.
    pub fn client_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("ringwire"));
        command.arg("--api").arg(&self.api).args(arguments);
        command
    }

    /// Sends SIGHUP, and waits for what comes of it: the lines that are logged, but for the last if it went well.
    pub fn hang_up(&self) -> Vec<String> {
        let before = self.child.log().lines().count();
        self.child.signal(Signal::SIGHUP);
        let said = wait::until("SIGHUP is answered", 20, || {
            let said = self.child.log();
            let lines: Vec<String> = said.lines().skip(before).map(str::to_owned).collect();
            let answers = |line: &String| line.ends_with(" is what runs") || line.contains(" ERROR ");
            // A line may be half written.
            if said.ends_with('\n') && lines.iter().any(answers) { Ok(lines) } else { Err(said) }
        });
        let lines = said.iter().filter_map(|line| line.split_once(" ringwired::reload: "));
        lines.map(|(_, line)| line.to_owned()).filter(|line| !line.ends_with(" is what runs")).collect()
    }

    /// Everything, now.
    pub fn status(&self) -> Status {
        let body = self.get("/v1/status").expect("the API's status");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {body}"))
    }

    /// The port called `name`, now.
    pub fn port(&self, name: &str) -> Port {
        let ports = self.status().ports;
        ports.into_iter().find(|port| port.name == name).unwrap_or_else(|| panic!("a port called {name}"))
    }

    /// Waits until guest `name` is connected, or not.
    pub fn wait_connected(&self, name: &str, connected: bool) {
        wait::until(&format!("guest {name} is connected: {connected}"), 10, || {
            let port = self.port(name);
            let as_wanted = guest(&port).connected == connected;
            if as_wanted { Ok(()) } else { Err(port.state) }
        });
    }

    /// Waits until `count` says at least what is wanted of port `name`.
    pub fn wait_count(
        &self,
        name: &str,
        what: &str,
        seconds: u64,
        wanted: u64,
        count: impl Fn(&Port) -> u64,
    ) {
        wait::until(&format!("{name}: {what} = {wanted}"), seconds, || {
            let found = count(&self.port(name));
            if found >= wanted { Ok(()) } else { Err(format!("{found}: {}", self.summary())) }
        });
    }

    /// One line of counters a port, for messages.
    pub fn summary(&self) -> String {
        let ports = self.status().ports;
        let lines = ports.iter().map(|port| {
            let Port { name, state, rx_packets, tx_packets, held, drops, .. } = port;
            format!("{name} {state} rx {rx_packets} tx {tx_packets} held {held} drops {drops:?}")
        });
        lines.collect::<Vec<_>>().join("; ")
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self, limit: Duration) -> ExitStatus {
        self.child.signal(Signal::SIGTERM);
        self.child.wait(limit).unwrap_or_else(|| panic!("ringwired did not end within {limit:?} of SIGTERM"))
    }

    /// Lines of its log at WARN and above, but for what DPDK says.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.child.log();
        let bad = |line: &&str| [" WARN ", " ERROR ", "panicked"].iter().any(|mark| line.contains(mark));
        // Drivers call errors what costs nothing, such as a missing qdisc.
        let dpdk = |line: &&str| line.contains(" dpdk: ");
        log.lines().filter(|line| bad(line) && !dpdk(line)).map(str::to_owned).collect()
    }
}

/// The part of a port that only a guest has.
pub fn guest(port: &Port) -> &Guest {
    port.guest.as_ref().unwrap_or_else(|| panic!("{} is a guest", port.name))
}

/// The part of a port that only a nic has.
pub fn nic(port: &Port) -> &Nic {
    port.nic.as_ref().unwrap_or_else(|| panic!("{} is a nic", port.name))
}

/// All that were dropped after they entered at `port`.
pub fn drops(port: &Port) -> u64 {
    port.drops.values().sum()
}

/// What went in at one end of a wire came out of the other, is held, or was counted as dropped.
pub fn assert_balanced(daemon: &Daemon, guest: &str, nic: &str) {
    let (guest, nic) = (daemon.port(guest), daemon.port(nic));
    for (from, to) in [(&guest, &nic), (&nic, &guest)] {
        let accounted = to.tx_packets + from.held + drops(from);
        assert_eq!(from.rx_packets, accounted, "{} -> {}: {}", from.name, to.name, daemon.summary());
    }
}
