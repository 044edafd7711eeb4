//! Who may do what: the API asks the kernel who is there.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tests::daemon::{self, Daemon};
use tests::scene::Scene;

/// Nobody that this host knows.
const GROUP: &str = "54321";
const USER: &str = "54322";

/// Exit status and words of `ringwire backend set vm1 none`, and of `ringwire status`, called by somebody with these
/// arguments of setpriv(1).
fn as_somebody(scene: &Scene, who: &[&str]) -> [(Option<i32>, String); 2] {
    // Programs are where only we may look.
    let client = scene.path("ringwire");
    if !client.exists() {
        std::fs::copy(daemon::program("ringwire"), &client).expect("a copy of ringwire");
    }
    [&["backend", "set", "vm1", "none"][..], &["status"]].map(|what| {
        let mut command = Command::new("setpriv");
        command.args(who).arg(&client).arg("--api").arg(scene.path("api.sock")).args(what);
        let output = command.output().expect("setpriv, of util-linux");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    })
}

fn start(access: &str) -> (Scene, Daemon) {
    let mut scene = Scene::new();
    scene.guest("vm1", "none", 1);
    std::fs::set_permissions(scene.path(""), std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let config = std::fs::read_to_string(scene.config_file()).expect("a configuration");
    let config = config.replace("\n\n[datapath]", &format!("\n{access}\n\n[datapath]"));
    let file = scene.path("access.toml");
    std::fs::write(&file, config).expect("a configuration");
    let daemon = Daemon::start(&file, &scene.path("api.sock"), &scene.path("ringwired.log"));
    (scene, daemon)
}

fn is_root() -> bool {
    let root =
        Path::new("/proc/self").metadata().is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        println!("skipped: only root can be somebody else");
    }
    root
}

#[test]
fn who_may_look_may_not_always_change() {
    if !is_root() {
        return;
    }
    let (scene, daemon) = start(&format!("mode = \"0666\"\nowner = {USER:?}\ngroup = {GROUP:?}"));
    let other = ["--reuid=54323", "--regid=54323"];
    let group = format!("--groups={GROUP}");
    for who in [
        vec!["--reuid", USER, "--regid=54323", "--clear-groups"],
        vec!["--reuid=54323", "--regid", GROUP, "--clear-groups"],
        [&other[..], &[&group]].concat(),
        vec!["--no-new-privs"],
    ] {
        let [(changed, said), (looked, _)] = as_somebody(&scene, &who);
        assert_eq!((changed, looked), (Some(0), Some(0)), "{who:?}: {said}");
    }
    let [(changed, said), (looked, _)] = as_somebody(&scene, &[&other[..], &["--clear-groups"]].concat());
    assert_eq!((changed, looked), (Some(1), Some(0)), "{said}");
    assert!(
        said.contains("only root, the user of ringwired, and the owner and the group of its API socket"),
        "{said}"
    );

    // The log says who it was.
    let log = daemon.child.log();
    let line =
        |part: &str| log.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {log}"));
    let changed = line("uid=54322");
    for part in
        [" INFO ", "PUT /v1/guests/vm1/backend: 200 OK", "port=\"vm1\"", "program=\"ringwire\"", "pid="]
    {
        assert!(changed.contains(part), "{part}: {changed}");
    }
    let refused = line("403 Forbidden");
    assert!(refused.contains(" WARN ") && refused.contains("uid=54323"), "{refused}");
    assert!(!log.contains("/v1/status"), "who looks is not noted: {log}");
}

#[test]
fn a_mode_keeps_others_out() {
    if !is_root() {
        return;
    }
    let (scene, _daemon) = start(&format!("mode = \"0660\"\ngroup = {GROUP:?}"));
    let [(changed, _), (looked, _)] =
        as_somebody(&scene, &["--reuid=54323", "--regid", GROUP, "--clear-groups"]);
    assert_eq!((changed, looked), (Some(0), Some(0)));
    let [(changed, _), (looked, said)] =
        as_somebody(&scene, &["--reuid=54323", "--regid=54323", "--clear-groups"]);
    assert_eq!((changed, looked), (Some(3), Some(3)), "{said}");
    assert!(said.to_lowercase().contains("permission"), "{said}");
}
