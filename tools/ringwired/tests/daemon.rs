//! The real `ringwired`: exit statuses, its one line of error, readiness, signals, and what it leaves.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const RINGWIRED: &str = env!("CARGO_BIN_EXE_ringwired");
/// EAL takes a while on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a configuration for a NIC that needs no hardware.
struct Bench {
    directory: TempDir,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { directory: tempfile::tempdir().unwrap() };
        let core = ringwired::config::allowed_cores()[0];
        let (api, guest) = (bench.path("run/api.sock"), bench.path("vm1.sock"));
        bench.configure(&format!(
            "[api]\nsocket = {api:?}\n[eal]\nhugepages = \"never\"\n[datapath]\ncores = [{core}]\n\
             [[nic]]\nname = \"wire0\"\ndevice = \"net_null0\"\n\
             [[guest]]\nname = \"vm1\"\nsocket = {guest:?}\nbackend = \"wire0\"\n"
        ));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.path("rw.toml"), text).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(RINGWIRED);
        command.args(["--config", "rw.toml"]).current_dir(self.directory.path()).env_remove("RUST_LOG");
        command
    }

    /// Runs it to its end.
    fn output(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// Exit status and stderr.
    fn refusal(&self) -> (Option<i32>, String) {
        let output = self.output(&[]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

/// A daemon that has said READY=1; killed when dropped.
struct Daemon {
    child: Child,
    log: std::sync::mpsc::Receiver<String>,
    notified: UnixDatagram,
}

impl Daemon {
    fn start(bench: &Bench) -> Daemon {
        let notify = bench.path("notify");
        let notified = UnixDatagram::bind(&notify).unwrap();
        notified.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = bench.command();
        command.env("NOTIFY_SOCKET", &notify).stderr(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (sender, log) = std::sync::mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
        let daemon = Daemon { child, log, notified };
        daemon.notification("READY=1");
        daemon
    }

    fn notification(&self, expected: &str) {
        let mut text = [0; 256];
        let length = self.notified.recv(&mut text).expect("no notification");
        assert_eq!(std::str::from_utf8(&text[..length]).unwrap().trim(), expected);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for a line of log that has `part`.
    fn logged(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left).unwrap_or_else(|_| panic!("{part:?} is not logged"));
            if line.contains(part) {
                return line;
            }
        }
    }

    fn exit_status(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not exit");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn status(socket: &Path) -> snapshot::Status {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).expect(&answer)
}

#[test]
fn check_says_whether_a_configuration_is_valid() {
    let bench = Bench::new();
    let output = bench.output(&["--check"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"rw.toml: valid: workers 1, nics 1, guests 1, taps and raw sockets 0\n");
    assert!(!bench.path("run").exists(), "nothing is started");
    bench.configure("[datapath]\ncores = [0]\n\n[[nic]]\nname = \"a\"\n");
    let output = bench.output(&["--check"]);
    assert_eq!(output.status.code(), Some(2));
    let line = "rw.toml:4: nic[0].device: missing (a PCI address or vdev devargs)\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), line);
}

#[test]
fn a_bad_configuration_is_one_line_and_2() {
    let bench = Bench::new();
    bench.configure("[datapath]\ncores = [99999]\n");
    let (code, line) = bench.refusal();
    assert_eq!(code, Some(2));
    assert!(line.starts_with("rw.toml:2: datapath.cores[0]: expected an integer from 0"), "{line}");
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    std::fs::remove_file(bench.path("rw.toml")).unwrap();
    let line = "rw.toml: cannot be read: No such file or directory (os error 2)\n";
    assert_eq!(bench.refusal(), (Some(2), line.to_owned()));
}

#[test]
fn a_wrong_command_line_is_2() {
    assert_eq!(Command::new(RINGWIRED).output().unwrap().status.code(), Some(2));
    assert_eq!(Bench::new().output(&["--log", "loud"]).status.code(), Some(2));
}

#[test]
fn an_api_socket_in_use_is_one_line_and_1() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("run")).unwrap();
    let socket = bench.path("run/api.sock");
    let _live = UnixListener::bind(&socket).unwrap();
    let (code, line) = bench.refusal();
    let expected = "in use, another ringwired answers there";
    let expected = format!("ringwired: cannot start: API socket {}: {expected}\n", socket.display());
    assert_eq!((code, line), (Some(1), expected));
    assert!(socket.exists());
}

#[test]
fn a_nic_that_does_not_exist_is_1_and_leaves_nothing() {
    let bench = Bench::new();
    let config = std::fs::read_to_string(bench.path("rw.toml")).unwrap();
    bench.configure(&config.replace("net_null0", "net_af_packet0,iface=ringwire-no"));
    let (code, log) = bench.refusal();
    assert_eq!(code, Some(1), "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("ringwired: cannot start: ") && last.contains("wire0"), "{log}");
    assert!(!bench.path("run/api.sock").exists());
    assert!(!bench.path("vm1.sock").exists());
}

#[test]
fn it_runs_until_a_signal_and_leaves_nothing() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let bench = Bench::new();
        let mut daemon = Daemon::start(&bench);
        let socket = bench.path("run/api.sock");
        let shown = status(&socket);
        assert_eq!(shown.pid, daemon.child.id());
        let names: Vec<&str> = shown.ports.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(names, ["wire0", "vm1"]);
        assert!(UnixStream::connect(bench.path("vm1.sock")).is_ok(), "ready means that it listens");
        daemon.signal(Signal::SIGHUP);
        let line = daemon.logged("SIGHUP");
        assert!(line.contains("WARN") && line.contains("reloading is not supported"), "{line}");
        assert_eq!(status(&socket).pid, daemon.child.id(), "SIGHUP is survived");
        daemon.signal(signal);
        daemon.notification("STOPPING=1");
        daemon.logged(&format!("{signal}: stopping"));
        let line = daemon.logged("stopped after");
        assert!(line.contains("2 ports: rx ") && line.contains("drops "), "{line}");
        assert_eq!(daemon.exit_status(), Some(0));
        assert!(!socket.exists() && !bench.path("vm1.sock").exists());
    }
}
