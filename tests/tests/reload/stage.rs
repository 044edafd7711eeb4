//! A running daemon and its file, to be edited.

use std::path::PathBuf;
use std::process::Output;

use tests::daemon::Daemon;
use tests::scene::Scene;

pub struct Stage {
    pub daemon: Daemon,
    pub scene: Scene,
    /// What the daemon was started with.
    text: String,
}

/// How the daemon is asked.
#[derive(Clone, Copy, Debug)]
pub enum By {
    Hangup,
    Client,
}

impl Stage {
    pub fn start(scene: Scene) -> Stage {
        let daemon = scene.start();
        let text = std::fs::read_to_string(scene.path("ringwired.toml")).expect("the file");
        Stage { daemon, scene, text }
    }

    pub fn file(&self) -> PathBuf {
        self.scene.path("ringwired.toml")
    }

    /// Puts the first text with `edits` into the file.
    pub fn edit(&self, edits: &[(&str, &str)]) {
        let text = edits.iter().fold(self.text.clone(), |text, (from, to)| {
            assert!(text.contains(from), "{from} in {text}");
            text.replacen(from, to, 1)
        });
        std::fs::write(self.file(), text).expect("the file");
    }

    /// Puts the first text, and `more`, into the file.
    pub fn append(&self, more: &str) {
        std::fs::write(self.file(), format!("{}\n{more}", self.text)).expect("the file");
    }

    /// Has the file read again. What is said to have changed.
    pub fn reload(&self, by: By) -> Vec<String> {
        match by {
            By::Client => {
                let output = self.daemon.client(&["reload"]);
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                lines(&output)
            }
            By::Hangup => self.daemon.hang_up(),
        }
    }

    /// Likewise, where it is refused. Why.
    pub fn refused(&self, by: By) -> String {
        match by {
            By::Client => {
                let output = self.daemon.client(&["reload"]);
                assert_eq!(output.status.code(), Some(1), "{output:?}");
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!((said.lines().count(), output.stdout.len()), (1, 0), "{output:?}");
                said
            }
            By::Hangup => {
                let said = self.daemon.hang_up();
                assert_eq!(said.len(), 1, "{said:?}");
                said[0].clone()
            }
        }
    }

    /// The configuration that runs.
    pub fn dump(&self) -> String {
        let output = self.daemon.client(&["config", "dump"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }
}

fn lines(output: &Output) -> Vec<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.lines().filter(|line| !line.starts_with("nothing to change")).map(str::to_owned).collect()
}
