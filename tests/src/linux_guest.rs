//! The rig's Linux guest in QEMU (tests/rig): whether there can be one, and what its script says.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scene::Scene;

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

/// Boots a guest on the socket of `name`, and runs `script` in it until its end. What it has said. `more` is arguments of
/// `run-guest`.
///
/// # Panics
/// If the script fails.
pub fn boot(scene: &Scene, name: &str, script: &str, more: &[&str]) -> String {
    let [file, console] = ["script", "console"].map(|what| scene.path(&format!("{name}.{what}")));
    std::fs::write(&file, script).expect("a script");
    let mut command = Command::new(rig("run-guest"));
    command.arg("--socket").arg(scene.socket(name)).arg("--script").arg(file);
    let output = command.arg("--console").arg(&console).args(more).output().expect("bash");
    let said = String::from_utf8_lossy(&std::fs::read(&console).unwrap_or_default()).into_owned();
    assert!(output.status.success(), "{}\n{said}", String::from_utf8_lossy(&output.stderr));
    said
}

/// All that the guest's script has said under `name`.
pub fn marks<'t>(said: &'t str, name: &str) -> Vec<&'t str> {
    let marks = said.lines().filter_map(|line| line.trim().strip_prefix("RW-GUEST: "));
    marks
        .filter_map(|mark| mark.split_once(' '))
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
