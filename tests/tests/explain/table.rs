//! What `ringwire explain` answered, row by row, and whether it should have.

use std::process::Output;

use serde_json::Value;
use tests::daemon::Daemon;

/// What the answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A precondition fails: this one.
    Fail(&'static str),
    /// Traffic passes, and this hinders it.
    Note(&'static str),
    /// This hinders it, or keeps it from passing: which of the two depends on the machine.
    Hindered(&'static str),
    /// ringwired cannot be asked.
    Unreachable,
    /// All is well. On a machine where other things run, a worker may have to share its core, and the kernel drop
    /// what the slow path did not read in time.
    Well,
}

/// A group of situations.
pub struct Table {
    situations: usize,
    wrong: Vec<String>,
}

impl Table {
    /// An empty one under `title`.
    pub fn start(title: &str) -> Table {
        println!("{title}\nsituation | exit status | cause | verdict");
        Table { situations: 0, wrong: Vec::new() }
    }

    /// Asks `daemon` about `port`.
    pub fn ask(&mut self, situation: &str, daemon: &Daemon, port: &str, answer: Answer, words: &str) {
        self.add(situation, daemon.client(&["explain", port, "--json"]), answer, words);
    }

    /// Adds what `ringwire explain --json` said; its verdict must have `words` in it.
    pub fn add(&mut self, situation: &str, said: Output, answer: Answer, words: &str) {
        self.situations += 1;
        let text = String::from_utf8_lossy(&said.stdout);
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{situation}: {error} in {text}{}", String::from_utf8_lossy(&said.stderr))
        });
        let field = |name: &str| report[name].as_str().unwrap_or("").to_owned();
        let (mark, cause, verdict) = (field("mark"), field("cause"), field("verdict"));
        let code = said.status.code().unwrap_or(-1);
        println!("{situation} | {code} | {cause} | {verdict}");
        let found = (code, mark.as_str(), cause.as_str());
        let right = match answer {
            Answer::Fail(cause) => found == (1, "fail", cause),
            Answer::Note(cause) => found == (0, "note", cause),
            Answer::Hindered(cause) => found == (1, "fail", cause) || found == (0, "note", cause),
            Answer::Unreachable => found == (3, "fail", "daemon"),
            Answer::Well => {
                code == 0 && [("ok", ""), ("note", "worker"), ("note", "device")].contains(&(&mark, &cause))
            }
        };
        if !right || !verdict.contains(words) {
            let expected = format!("expected {answer:?} with {words:?}");
            self.wrong.push(format!("{situation}: {expected}: {text}"));
        }
    }

    /// Prints how many there were.
    ///
    /// # Panics
    /// If one was answered wrongly.
    pub fn end(self) {
        let right = self.situations - self.wrong.len();
        println!("named rightly: {right} of {}\n", self.situations);
        assert_eq!(self.wrong, [""; 0], "{}", self.wrong.join("\n"));
    }
}
