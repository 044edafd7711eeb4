//! One command, from a vdev and a guest to packets counted on both sides.

use std::path::Path;
use std::process::Command;

use tests::daemon;

fn quickstart(arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/quickstart");
    let programs = daemon::program("ringwired");
    let mut command = Command::new(script);
    command
        .arg("--bin")
        .arg(programs.parent().expect("a directory"))
        .args(["--seconds", "1"])
        .args(arguments);
    let output = command.output().expect("bash");
    let said = String::from_utf8_lossy(&output.stdout);
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}\n{progress}\n{said}", output.status);
    assert!(said.contains("out of the guest") && said.contains("into the guest"), "no summary:\n{said}");
}

#[test]
fn quickstart_with_a_linux_guest() {
    quickstart(&[]);
}

#[test]
fn quickstart_without_a_vm() {
    quickstart(&["--no-vm"]);
}
