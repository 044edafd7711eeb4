//! The real `ringwired`: exit statuses, its one line of error, readiness, signals, and what it leaves.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
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

    /// With a NIC over an interface that does not exist.
    fn without_interface() -> Bench {
        let bench = Bench::new();
        let config = std::fs::read_to_string(bench.path("rw.toml")).unwrap();
        bench.configure(&config.replace("net_null0", "net_af_packet0,iface=ringwire-no"));
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
        Daemon::start_as(bench, bench.command())
    }

    fn start_as(bench: &Bench, mut command: Command) -> Daemon {
        let notify = bench.path("notify");
        let notified = UnixDatagram::bind(&notify).unwrap();
        notified.set_read_timeout(Some(PATIENCE)).unwrap();
        command.env("NOTIFY_SOCKET", &notify).stderr(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (sender, log) = std::sync::mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
        let daemon = Daemon { child, log, notified };
        let api = bench.path("run/api.sock");
        let status = format!("serving; control API on {}", api.display());
        assert_eq!(daemon.notification(), Some(format!("READY=1\nSTATUS={status}")));
        daemon
    }

    /// What it tells systemd next; `None` if nothing within what the socket waits.
    fn notification(&self) -> Option<String> {
        let mut text = [0; 256];
        let length = self.notified.recv(&mut text).ok()?;
        Some(std::str::from_utf8(&text[..length]).unwrap().trim().to_owned())
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
fn a_configuration_without_end_is_one_line_and_2() {
    let bench = Bench::new();
    std::fs::remove_file(bench.path("rw.toml")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", bench.path("rw.toml")).unwrap();
    // It would read until there is no memory left.
    let mut command = Command::new("timeout");
    command.args(["20", "prlimit", "--as=4000000000", RINGWIRED, "--check", "--config", "rw.toml"]);
    let output = command.current_dir(bench.directory.path()).output().unwrap();
    let line = "rw.toml: cannot be read: it is longer than 4 MiB\n";
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(2), line));
}

/// A mistake in the environment is said, and does not silence the log.
#[test]
fn a_filter_that_is_none_is_told() {
    let bench = Bench::new();
    let mut command = bench.command();
    command.env("RUST_LOG", "debgu");
    let daemon = Daemon::start_as(&bench, command);
    let line = daemon.logged("RUST_LOG");
    assert!(line.contains(" WARN ") && line.contains("\"debgu\" is no level"), "{line}");
    daemon.logged("ready, control API on");
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
    let bench = Bench::without_interface();
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
        let began = daemon.notification().unwrap();
        assert!(began.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{began}");
        daemon.logged("nothing has changed: rw.toml is what runs");
        assert_eq!(daemon.notification().as_deref(), Some("READY=1"));
        assert_eq!(status(&socket).pid, daemon.child.id(), "SIGHUP is survived");
        daemon.signal(signal);
        let stopping = "STOPPING=1\nSTATUS=giving the rings back";
        assert_eq!(daemon.notification().as_deref(), Some(stopping));
        daemon.logged(&format!("{signal}: stopping"));
        let line = daemon.logged("stopped after");
        assert!(line.contains("2 ports: rx ") && line.contains("drops "), "{line}");
        assert_eq!(daemon.exit_status(), Some(0));
        assert!(!socket.exists() && !bench.path("vm1.sock").exists());
    }
}

/// A quarter of it is how long anybody may take to answer.
const WATCHDOG: Duration = Duration::from_secs(2);

/// systemd's watchdog is told for as long as a worker and the slow path run, and no longer: a debugger stops either,
/// which is how a thread hangs of which nobody knows why.
#[test]
fn the_watchdog_is_told_while_everybody_answers() {
    let bench = Bench::new();
    let core = ringwired::config::allowed_cores()[0];
    let mut command = bench.command();
    command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    let daemon = Daemon::start_as(&bench, command);
    for name in [format!("worker:{core}"), "slow-path".to_owned()] {
        for _ in 0..3 {
            assert_eq!(daemon.notification().as_deref(), Some("WATCHDOG=1"));
        }
        let stopped = Stopped::stop(thread(daemon.child.id(), &name));
        // One may have been under way.
        let said = std::iter::from_fn(|| daemon.notification()).find(|text| text != "WATCHDOG=1");
        assert_eq!(said, Some(format!("STATUS={name} does not answer")));
        let line = daemon.logged(&format!("{name} has not answered"));
        assert!(line.contains("ERROR"), "{line}");
        daemon.notified.set_read_timeout(Some(2 * WATCHDOG)).unwrap();
        assert_eq!(daemon.notification(), None, "systemd is told that all is well");
        daemon.notified.set_read_timeout(Some(PATIENCE)).unwrap();
        drop(stopped);
        assert_eq!(daemon.notification().as_deref(), Some("WATCHDOG=1"), "{name} answers again");
        assert!(daemon.notification().is_some_and(|text| text.starts_with("STATUS=serving;")));
    }
}

/// A thread that does not run, until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn stop(thread: Pid) -> Stopped {
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Stopped(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

fn thread(process: u32, name: &str) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut tasks = tasks.map(|task| task.unwrap());
    let found = tasks.find(|task| std::fs::read_to_string(task.path().join("comm")).unwrap().trim() == name);
    Pid::from_raw(found.expect(name).file_name().to_str().unwrap().parse().unwrap())
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        return println!("skipped: no systemd-analyze (systemd)");
    }
    let bench = Bench::new();
    let unit = include_str!("../../systemd/ringwired.service");
    // It looks whether each program can be executed, and none need be installed here.
    let mut commands = Vec::new();
    let unit: String = unit.lines().fold(String::new(), |unit, line| {
        let Some((key, command)) = line.split_once('=').filter(|(key, _)| key.starts_with("Exec")) else {
            return unit + line + "\n";
        };
        let (program, arguments) = command.split_once(' ').expect(line);
        commands.push((key, program));
        format!("{unit}{key}={RINGWIRED} {arguments}\n")
    });
    assert_eq!(commands, [("ExecStart", "/usr/bin/ringwired"), ("ExecReload", "/usr/bin/ringwire")]);
    std::fs::write(bench.path("ringwired.service"), unit).unwrap();
    let mut verify = Command::new("systemd-analyze");
    let output = verify
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(bench.path("ringwired.service"))
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// systemd says in the environment which file the journal is (systemd.exec(5)).
#[test]
fn a_log_that_the_journal_reads_has_priorities() {
    let bench = Bench::without_interface();
    let logged = |journal: bool| {
        let log = File::create(bench.path("log")).unwrap();
        let found = log.metadata().unwrap();
        let inode = if journal { found.ino() } else { found.ino() + 1 };
        let mut command = bench.command();
        command.env("JOURNAL_STREAM", format!("{}:{inode}", found.dev())).stderr(log);
        assert_eq!(command.status().unwrap().code(), Some(1));
        std::fs::read_to_string(bench.path("log")).unwrap()
    };
    let (journal, file) = (logged(true), logged(false));
    let (said, last) = journal.trim_end().rsplit_once('\n').expect(&journal);
    assert!(said.lines().any(|line| line.starts_with("<6> INFO engine: DPDK runs")), "{journal}");
    assert!(last.starts_with("<3>ringwired: cannot start: "), "{journal}");
    assert!(!file.contains("<6>") && file.contains("\nringwired: cannot start: "), "{file}");
}

#[test]
fn a_log_of_json_is_nothing_else() {
    let bench = Bench::new();
    let mut command = bench.command();
    command.args(["--log-format", "json"]);
    let mut daemon = Daemon::start_as(&bench, command);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_status(), Some(0));
    let lines: Vec<String> = daemon.log.iter().collect();
    let lines: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    for line in &lines {
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {line}");
        }
    }
    let stopped = lines.iter().filter(|line| line["port"] == "vm1").count();
    assert!(stopped > 0, "the line about vm1's counters: {lines:#?}");
}
