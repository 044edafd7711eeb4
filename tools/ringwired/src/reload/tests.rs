//! Reloads of a made-up datapath.

mod arbitrary;
mod made_up;

use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use made_up::MadeUp;

/// The cores of the host.
const CORES: [usize; 3] = [1, 2, 3];

/// A directory with a file.
struct Stage(TempDir);

impl Stage {
    fn set(text: &str) -> Stage {
        let stage = Stage(tempfile::tempdir().unwrap());
        stage.write(text);
        stage
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("rw.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    fn reloader(&self, running: Arc<dyn Running>) -> Reloader {
        Reloader::new(self.file(), CORES.to_vec(), ApiConfig::default(), running)
    }
}

const FILE: &str = r#"
datapath.cores = [1]

[[nic]]
name = "wire0"
device = "net_null0"

[[nic]]
name = "wire1"
device = "net_null1"

[[tap]]
name = "tap0"
interface = "rw-tap0"

[[tap]]
name = "tap1"
interface = "rw-tap1"

[[guest]]
name = "vm1"
socket = "/vm1"
backend = "wire0"

[[guest]]
name = "vm2"
socket = "/vm2"
backend = "wire1"
fallback = "tap0"
punt = "tap1"
"#;

/// [`FILE`] runs.
fn running(failing: &[usize]) -> Arc<MadeUp> {
    let config = Config::parse("rw.toml", FILE, &CORES).unwrap().canonical();
    Arc::new(MadeUp::new(config.datapath, failing.to_vec()))
}

/// What is said, and done, when [`FILE`] is edited.
fn reload(edits: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let text = edits.iter().fold(FILE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    });
    let running = running(&[]);
    let said = Stage::set(&text).reloader(running.clone()).reload(false).unwrap();
    let asked = running.asked.lock().unwrap();
    (said, asked.iter().map(Change::to_string).collect())
}

#[test]
fn a_backend_changes_in_one_step() {
    let (said, done) = reload(&[("backend = \"wire0\"", "backend = \"tap0\"")]);
    assert_eq!(said, ["guest vm1: backend wire0 -> tap0"]);
    assert_eq!(done, ["connect guest vm1 to tap0"]);
}

#[test]
fn two_guests_exchange_their_backends() {
    let (said, done) = reload(&[("\"wire1\"\nfall", "\"wire0\"\nfall"), ("d = \"wire0\"", "d = \"wire1\"")]);
    assert_eq!(said, ["guest vm1: backend wire0 -> wire1", "guest vm2: backend wire1 -> wire0"]);
    assert_eq!(
        done,
        ["connect guest vm1 to none", "connect guest vm2 to wire0", "connect guest vm1 to wire1"]
    );
}

#[test]
fn a_nic_is_made_anew_under_its_guest() {
    let (said, done) = reload(&[("\"net_null0\"", "\"net_null0\"\nqueues = 4\nmtu = 9000")]);
    assert_eq!(said, ["nic wire0: mtu none -> 9000, queues 1 -> 4 (made anew)"]);
    assert_eq!(
        done,
        ["connect guest vm1 to none", "remove nic wire0", "add nic wire0", "connect guest vm1 to wire0"]
    );
}

#[test]
fn a_new_port_comes_before_an_old_one_goes() {
    let (said, done) = reload(&[
        (
            "[[tap]]\nname = \"tap0\"\ninterface = \"rw-tap0\"",
            "[[raw]]\nname = \"raw0\"\ninterface = \"eth2\"",
        ),
        ("fallback = \"tap0\"", "fallback = \"raw0\"\nfallback_hold = 1"),
    ]);
    assert_eq!(
        said,
        ["tap tap0: removed", "raw raw0: added", "guest vm2: fallback tap0 -> raw0, fallback_hold 3 -> 1"]
    );
    assert_eq!(
        done,
        [
            "add raw raw0",
            "give guest vm2 the fallback none",
            "remove tap tap0",
            "give guest vm2 the fallback raw0"
        ]
    );
}

#[test]
fn a_guest_is_made_anew_with_its_exception_path() {
    let (said, done) = reload(&[("\"rw-tap1\"", "\"rw-tap1\"\nuser = \"54321\"")]);
    assert_eq!(
        said,
        [
            "tap tap1: user none -> 54321 (made anew)",
            "guest vm2: its exception path tap1 (made anew: its frontend must connect again)"
        ]
    );
    assert_eq!(
        done,
        [
            "give guest vm2 the fallback none",
            "connect guest vm2 to none",
            "remove guest vm2",
            "remove tap tap1",
            "add tap tap1",
            "add guest vm2",
            "give guest vm2 the fallback tap0",
            "connect guest vm2 to wire1"
        ]
    );
}

#[test]
fn workers_come_before_others_go() {
    let (said, done) = reload(&[
        ("cores = [1]", "cores = [3]\ndatapath.idle = \"adaptive\"\ndatapath.burst = 32"),
        ("\"/vm1\"", "\"/vm1\"\noffloads = []"),
    ]);
    assert_eq!(
        said,
        [
            "worker:1: removed",
            "worker:3: added",
            "workers: idle poll -> adaptive",
            "workers: burst 64 -> 32",
            "guest vm1: offloads auto -> off"
        ]
    );
    assert_eq!(
        done,
        [
            "start a worker on core 3",
            "set idle to adaptive and burst to 32",
            "offer guest vm1 other offloads",
            "end the worker on core 1"
        ]
    );
}

#[test]
fn queue_pairs_are_assigned_once_the_worker_is_there_and_before_the_other_goes() {
    let (said, done) = reload(&[
        ("cores = [1]", "cores = [2, 3]"),
        ("\"/vm1\"", "\"/vm1\"\nassign = { 0 = 3 }"),
        ("\"/vm2\"", "\"/vm2\"\nmtu = 1500\nassign = { 0 = 2 }"),
    ]);
    assert_eq!(
        said,
        [
            "worker:1: removed",
            "worker:2: added",
            "worker:3: added",
            "guest vm1: assign none -> { 0 = 3 }",
            "guest vm2: assign none -> { 0 = 2 }, mtu none -> 1500 (made anew: its frontend must connect again)",
        ]
    );
    assert_eq!(done[..2], ["start a worker on core 2", "start a worker on core 3"]);
    assert_eq!(
        done.iter().filter(|change| change.starts_with("assign")).count(),
        1,
        "vm2 comes with its own"
    );
    assert!(done.contains(&"assign queue pairs of guest vm1 to other workers".to_owned()), "{done:?}");
    assert_eq!(done.last().unwrap(), "end the worker on core 1");
}

#[test]
fn what_needs_a_restart_is_refused_before_anything_changes() {
    let running = running(&[]);
    let text = FILE.replace(
        "datapath.cores = [1]",
        "datapath.cores = [1]\napi.mode = \"0600\"\neal.args = [\"-m\", \"64\"]\neal.hugepages = \"never\"",
    );
    let stage = Stage::set(&text.replace("\"wire0\"\n\n[[guest", "\"none\"\n\n[[guest"));
    let refused = stage.reloader(running.clone()).reload(false).unwrap_err();
    let expected = format!(
        "{}: needs a restart of ringwired (nothing has changed): api.mode: 0660 -> 0600, eal.args: [] -> \
         [\"-m\", \"64\"], eal.hugepages: auto -> never",
        stage.file().display()
    );
    assert_eq!(refused.to_string(), expected);
    assert!(running.asked.lock().unwrap().is_empty());
}

#[test]
fn a_broken_file_is_answered_with_its_line_and_key() {
    let running = running(&[]);
    let stage = Stage::set(&FILE.replace("backend = \"wire0\"", "backend = \"wire9\""));
    let refused = stage.reloader(running.clone()).reload(false).unwrap_err().to_string();
    let begins = format!("{}:23: guest[0].backend: no port has the name \"wire9\"", stage.file().display());
    assert!(refused.starts_with(&begins), "{refused}");
    // The process may not run on core 9, but on core 2, which was not left to a worker at the start.
    stage.write(&FILE.replace("[1]", "[9]"));
    let refused = stage.reloader(running.clone()).reload(false).unwrap_err().to_string();
    assert!(refused.contains(":2: datapath.cores[0]: this process may not run on core 9"), "{refused}");
    std::fs::remove_file(stage.file()).unwrap();
    let refused = stage.reloader(running.clone()).reload(false).unwrap_err().to_string();
    assert!(refused.contains("cannot be read: No such file"), "{refused}");
    assert!(running.asked.lock().unwrap().is_empty());
}

#[test]
fn what_cannot_be_undone_is_named() {
    let stage = Stage::set(&FILE.replace("\"net_null0\"", "\"net_null0\"\nlro = true"));
    // The nic cannot be opened, and the old one neither.
    let reloader = stage.reloader(running(&[2, 3, 4]));
    let refused = reloader.reload(false).unwrap_err().to_string();
    let expected = format!(
        "{}: cannot add nic wire0: it fails (what was done is undone, but for this: cannot add nic wire0: it fails; \
         cannot connect guest vm1 to wire0: it fails)",
        stage.file().display()
    );
    assert_eq!(refused, expected);
}

#[test]
fn nothing_changes_while_ringwired_stops() {
    let stage = Stage::set(&FILE.replace("backend = \"wire0\"", "backend = \"tap0\""));
    let running = running(&[]);
    let reloader = stage.reloader(running.clone());
    reloader.stop();
    assert!(matches!(reloader.reload(false), Err(ReloadError::Stopping)));
    assert!(running.asked.lock().unwrap().is_empty());
}

/// Tries to change something in the middle of a reload.
#[derive(Default)]
struct Meddling {
    reloader: std::sync::OnceLock<std::sync::Weak<Reloader>>,
    meddled: std::sync::Mutex<Vec<bool>>,
}

impl Running for Meddling {
    fn config(&self) -> DatapathConfig {
        running(&[]).config()
    }

    fn change(&self, _: &Change) -> Result<(), String> {
        let reloader = self.reloader.get().unwrap().upgrade().unwrap();
        self.meddled.lock().unwrap().push(reloader.between(|| ()).is_some());
        Ok(())
    }
}

#[test]
fn nobody_else_changes_anything_during_a_reload() {
    let stage = Stage::set(&FILE.replace("backend = \"wire0\"", "backend = \"tap0\""));
    let meddling = Arc::new(Meddling::default());
    let reloader = Arc::new(stage.reloader(meddling.clone()));
    meddling.reloader.set(Arc::downgrade(&reloader)).unwrap();
    assert_eq!(reloader.between(|| 1), Some(1));
    reloader.reload(false).unwrap();
    assert_eq!(*meddling.meddled.lock().unwrap(), [false]);
    assert_eq!(reloader.between(|| 2), Some(2));
}
