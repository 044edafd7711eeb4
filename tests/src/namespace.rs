//! A network of our own: a namespace with one end of a veth pair in it, the other end out here.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A namespace; gone, with its veth pair, when dropped.
pub struct Namespace {
    name: String,
    /// The end out here, for a NIC.
    pub near: String,
    /// The end in the namespace.
    pub far: String,
}

impl Namespace {
    /// Makes one whose end has `address`, such as "10.0.0.1/24".
    pub fn new(address: &str) -> Namespace {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // An interface's name may have 15 characters.
        let name = format!("rwt{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let namespace = Namespace { near: format!("{name}a"), far: format!("{name}b"), name };
        let Namespace { name, near, far } = &namespace;
        run(&["ip", "netns", "add", name]);
        run(&["ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name]);
        // No checksums and segments left to hardware that is not there; no IPv6 housekeeping in the counts.
        let quiet = |interface: &str| {
            format!(
                "ethtool -K {interface} tx off tso off gso off gro off >/dev/null && \
                 echo 1 >/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"
            )
        };
        run(&["sh", "-c", &quiet(near)]);
        namespace.run(&["sh", "-c", &quiet(far)]);
        run(&["ip", "link", "set", near, "up"]);
        namespace.run(&["ip", "addr", "add", address, "dev", far]);
        namespace.run(&["ip", "link", "set", far, "up"]);
        namespace
    }

    /// `command`, in the namespace.
    pub fn command(&self, command: &[&str]) -> Command {
        let mut wrapped = Command::new("ip");
        wrapped.args(["netns", "exec", &self.name]).args(command);
        wrapped
    }

    /// Runs `command` in the namespace, and gives what it says.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, command: &[&str]) -> String {
        succeed(self.command(command))
    }

    /// A counter of its end: rx_packets, tx_bytes, ...
    pub fn count(&self, counter: &str) -> u64 {
        let path = format!("/sys/class/net/{}/statistics/{counter}", self.far);
        self.run(&["cat", &path]).trim().parse().expect("a number")
    }

    /// Starts `command` in the namespace.
    pub fn spawn(&self, command: &[&str]) -> Background {
        let mut command = self.command(command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Background(command.spawn().expect("ip, of iproute2"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for command in [["ip", "link", "del", &self.near], ["ip", "netns", "del", &self.name]] {
            let _ = Command::new(command[0]).args(&command[1..]).status();
        }
    }
}

/// A program beside the test; killed when dropped. (`ip netns exec` becomes the program.)
pub struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program, and gives what it says.
///
/// # Panics
/// If it fails.
pub fn run(command: &[&str]) -> String {
    let mut program = Command::new(command[0]);
    program.args(&command[1..]);
    succeed(program)
}

fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
