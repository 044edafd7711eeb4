//! `ringwire top` in panes of tmux: at any number of ports nothing overlaps, and no line wraps.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tests::bare_guest::BareGuest;
use tests::daemon::{Daemon, program};
use tests::scene::Scene;
use tests::wait;

/// The titles, and whether their columns are numbers: those end where the title ends, others begin where it begins.
const COLUMNS: [(&str, bool); 8] = [
    ("PORT", false),
    ("KIND", false),
    ("STATE", false),
    ("RX PPS", true),
    ("RX BIT/S", true),
    ("TX PPS", true),
    ("TX BIT/S", true),
    ("DROPS/S", true),
];

/// A tmux server of its own, with one pane.
struct Pane {
    socket: PathBuf,
}

impl Pane {
    fn tmux(socket: &Path, arguments: &[&str]) -> std::io::Result<Output> {
        let mut command = Command::new("tmux");
        command.args(["-u", "-f", "/dev/null", "-S"]).arg(socket).args(arguments);
        command.env_remove("TMUX").env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color").output()
    }

    /// Runs `command` in a pane; `None` where there is no tmux.
    fn start(socket: PathBuf, (width, height): (usize, usize), command: &str) -> Option<Pane> {
        let (width, height) = (width.to_string(), height.to_string());
        let arguments = ["new-session", "-d", "-x", &width, "-y", &height, command];
        let Ok(output) = Pane::tmux(&socket, &arguments) else {
            println!("skipped: tmux is not installed");
            return None;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // The last line of the session is not tmux' own.
        let pane = Pane { socket };
        pane.run(&["set", "-g", "status", "off"]);
        Some(pane)
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Pane::tmux(&self.socket, arguments).expect("tmux");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// What is on the screen, without colours.
    fn lines(&self) -> Vec<String> {
        self.run(&["capture-pane", "-p"]).lines().map(str::to_owned).collect()
    }
}

impl Drop for Pane {
    fn drop(&mut self) {
        let _ = Pane::tmux(&self.socket, &["kill-server"]);
    }
}

/// A NIC, and guests.
fn scene(ports: usize) -> Scene {
    let mut scene = Scene::new();
    scene.nic("wire0", "net_null0,size=1200,copy=1", 1, "");
    for guest in 1..ports {
        scene.guest(&format!("vm{guest}"), if guest == 1 { "wire0" } else { "none" }, 1);
    }
    scene
}

/// One character a column.
fn letters(line: &str) -> Vec<char> {
    line.chars().collect()
}

fn assert_aligned(titles: &str, row: &str) {
    let row = letters(row);
    let at = |place: usize| row.get(place).copied().unwrap_or(' ');
    for (title, number) in COLUMNS {
        let begin = titles.find(title).unwrap_or_else(|| panic!("no {title} in {titles:?}"));
        let end = begin + title.len();
        assert!(begin == 0 || at(begin - 1) == ' ' || number, "{title}: {}", row.iter().collect::<String>());
        let (inside, outside) = if number { (at(end - 1), at(end)) } else { (at(begin), ' ') };
        assert!(inside != ' ' && outside == ' ', "{title}: {}", row.iter().collect::<String>());
    }
}

/// The screen once it shows rates, and is drawn as a whole: it is the same a moment later.
fn screen(daemon: &Daemon, pane: &Pane, busy: bool) -> Vec<String> {
    wait::until("top shows rates", 20, || {
        let lines = pane.lines();
        let row = lines.iter().find(|line| line.starts_with("wire0 "));
        let moves = row.is_some_and(|row| row.contains(" M ") || row.contains(" k "));
        std::thread::sleep(Duration::from_millis(200));
        let complete = row.is_some() && (moves || !busy) && pane.lines() == lines;
        if complete { Ok(lines) } else { Err(format!("{}\n{}", lines.join("\n"), daemon.summary())) }
    })
}

#[test]
fn top_fits_its_pane() {
    for ports in [1, 6, 40] {
        let scene = scene(ports);
        let mut daemon = scene.start();
        let load = (ports > 1).then(|| BareGuest::connect(&scene.socket("vm1"), 60).load([0, 0]));
        for (width, height) in [(80, 24), (200, 50)] {
            let api = scene.path("api.sock");
            let command = format!("{} --api {} top", program("ringwire").display(), api.display());
            let socket = scene.path(&format!("tmux{width}"));
            let Some(pane) = Pane::start(socket, (width, height), &command) else { return };
            let lines = screen(&daemon, &pane, load.is_some());
            println!("{ports} ports in {width}x{height}:\n{}", lines.join("\n").trim_end());
            assert!(lines.len() <= height, "{} lines", lines.len());
            for line in &lines {
                assert!(letters(line).len() <= width && !line.contains('\u{1b}'), "{line:?}");
            }
            let at = lines.iter().position(|line| line.starts_with("PORT ")).expect("titles");
            // Behind the titles there is a row a port, in the order of the configuration, and nothing else.
            let rows: Vec<&String> = lines[at + 1..].iter().take_while(|line| !line.is_empty()).collect();
            assert_eq!(rows.len(), ports.min(height - at - 1), "{ports} in {width}x{height}");
            for (number, row) in rows.iter().enumerate() {
                let name = if number == 0 { "wire0".to_owned() } else { format!("vm{number}") };
                assert_eq!(row.split(' ').next(), Some(name.as_str()), "{row:?}");
                assert_aligned(&lines[at], row);
            }
            assert!(lines[at + 1 + rows.len()..].iter().all(String::is_empty), "{lines:#?}");
            assert!(lines[1].starts_with("worker:") && lines[1].contains("cyc/pkt"), "{:?}", lines[1]);
            // The end of a line wraps to nowhere: what tmux joins is what it shows.
            assert_eq!(pane.run(&["capture-pane", "-p", "-J"]).lines().count(), lines.len());
            // The last row of many comes up when it is scrolled to.
            pane.run(&["send-keys", "s"]);
            wait::until("another order", 10, || {
                let first = pane.lines().remove(0);
                if first.contains("sort (rx)") { Ok(()) } else { Err(first) }
            });
            pane.run(&["send-keys", "q"]);
        }
        drop(load.map(|load| load.end()));
        assert!(daemon.stop(Duration::from_secs(5)).success());
    }
}
