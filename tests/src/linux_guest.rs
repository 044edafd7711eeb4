//! The rig's Linux guest in QEMU (tests/rig): whether there can be one, its run, and what its script says.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::child::Child;
use crate::scene::Scene;
use crate::wait;

/// More than any test allows its guest (`run-guest --timeout`).
const LONGEST: Duration = Duration::from_secs(300);

/// A program of the rig.
pub fn rig(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rig").join(name)
}

/// Why there can be no guest here; nothing if there can.
fn missing() -> Option<String> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rig");
    let made = Command::new(rig("make-guest")).arg(cache).output().expect("bash");
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    (!made.status.success()).then(|| said.lines().last().unwrap_or("make-guest failed").to_owned())
}

/// Whether the test has to be skipped, which is said.
///
/// # Panics
/// If `RINGWIRE_REQUIRE_VM` is set: then there has to be a guest.
pub fn skipped() -> bool {
    let why = missing();
    if let Some(why) = &why {
        assert!(std::env::var_os("RINGWIRE_REQUIRE_VM").is_none(), "there can be no guest: {why}");
        println!("skipped: no QEMU guest can be had here: {why}");
    }
    why.is_some()
}

/// A guest that runs a script.
pub struct LinuxGuest {
    rig: Child,
    console: PathBuf,
}

impl LinuxGuest {
    /// Starts a guest on the socket of `name`, which runs `script`. `more` is arguments of `run-guest`.
    pub fn start(scene: &Scene, name: &str, script: &str, more: &[&str]) -> LinuxGuest {
        let [file, console, log] =
            ["script", "console", "qemu.log"].map(|what| scene.path(&format!("{name}.{what}")));
        std::fs::write(&file, script).expect("a script");
        let mut command = Command::new(rig("run-guest"));
        command.arg("--socket").arg(scene.socket(name)).arg("--script").arg(file);
        command.arg("--console").arg(&console).args(more);
        LinuxGuest { rig: Child::start("run-guest", command, &log), console }
    }

    /// All that is on its console, so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.rig.ended()
    }

    /// Waits until its script has given its mark `name`.
    ///
    /// # Panics
    /// If the guest ends before.
    pub fn wait_mark(&mut self, name: &str, seconds: u64) {
        wait::until(&format!("the guest's mark {name}"), seconds, || {
            let (ended, said) = (self.ended(), self.said());
            assert!(ended.is_none(), "the guest has ended ({ended:?}): {}\n{said}", self.rig.log());
            find_mark(&said, name).map(drop).ok_or(said)
        });
    }

    /// Waits for its end: what it said.
    ///
    /// # Errors
    /// That, and why, if its script fails or takes longer than `run-guest` lets it.
    pub fn end(mut self) -> Result<String, String> {
        let status = self.rig.wait(LONGEST).expect("run-guest ends its guest before");
        let said = self.said();
        if status.success() { Ok(said) } else { Err(format!("{status:?}: {}\n{said}", self.rig.log())) }
    }
}

/// Boots a guest as [`LinuxGuest::start`] does, and waits for its end. What it has said.
///
/// # Panics
/// If the script fails.
pub fn boot(scene: &Scene, name: &str, script: &str, more: &[&str]) -> String {
    LinuxGuest::start(scene, name, script, more).end().unwrap_or_else(|why| panic!("{why}"))
}

/// All that the guest's script has said under `name`.
pub fn marks<'t>(said: &'t str, name: &str) -> Vec<&'t str> {
    let marks = said.lines().filter_map(|line| line.trim().strip_prefix("RW-GUEST: "));
    marks
        .map(|mark| mark.split_once(' ').unwrap_or((mark, "")))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value)
        .collect()
}

/// What the guest's script has said under `name`, if it has.
pub fn find_mark<'t>(said: &'t str, name: &str) -> Option<&'t str> {
    marks(said, name).first().copied()
}

/// The number that the guest's script gave under `name`.
pub fn mark(said: &str, name: &str) -> f64 {
    find_mark(said, name)
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no mark {name} in {said}"))
}
