//! ringwired itself: not started, dead, out of bounds, unable to start.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tests::daemon::program;
use tests::scene::Scene;

use crate::frontends::scene;
use crate::table::Answer::Unreachable;
use crate::table::Table;

/// `ringwire explain vm1`, as `wrapper` runs it.
fn explain(wrapper: &[&str], ringwire: &Path, scene: &Scene) -> Output {
    let mut command = Command::new("timeout");
    command.arg("20").args(wrapper).arg(ringwire).arg("--api").arg(scene.path("api.sock"));
    command.args(["explain", "vm1", "--json"]).output().expect("timeout, of coreutils")
}

#[test]
fn a_daemon_that_cannot_be_asked() {
    let mut table = Table::start("a daemon that cannot be asked");
    let ringwire = program("ringwire");
    let scene = scene();
    table.add(
        "daemon not running",
        explain(&[], &ringwire, &scene),
        Unreachable,
        "the socket does not exist",
    );

    let mut daemon = scene.start();
    // Where anybody may look, and the socket alone is shut.
    let public = scene.path("ringwire");
    std::fs::copy(&ringwire, &public).expect("a copy");
    let directory = public.parent().expect("a directory");
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).expect("a mode");
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let said = explain(&nobody, &public, &scene);
    table.add("API socket not permitted", said, Unreachable, "permission denied");

    daemon.child.kill();
    table.add("daemon killed", explain(&[], &ringwire, &scene), Unreachable, "nobody listens");

    no_hugepages(&mut table, &ringwire);
    table.end();
}

/// A daemon that wants hugepages does not start without.
fn no_hugepages(table: &mut Table, ringwire: &Path) {
    let reserved = std::fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap_or_default();
    if reserved.trim() != "0" {
        println!("no hugepages: skipped: this host has some");
        return;
    }
    let mut scene = scene();
    scene.add("\n[eal]\nhugepages = \"require\"\n");
    let mut command = Command::new(program("ringwired"));
    command.arg("--config").arg(scene.config_file());
    let mut child = tests::child::Child::start("ringwired", command, &scene.path("ringwired.log"));
    let ended = child.wait(Duration::from_secs(20)).expect("it ends by itself");
    assert!(!ended.success(), "{}", child.log());
    let said = explain(&[], ringwire, &scene);
    table.add("no hugepages, and they are required", said, Unreachable, "no hugepages are reserved");
}
