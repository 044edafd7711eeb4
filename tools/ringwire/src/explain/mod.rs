//! `ringwire explain NAME`: why does this port carry traffic, or not?
//!
//! Two looks at the datapath, a moment apart, tell what it is and what moves. Each precondition is one function over
//! them, which says what it found and what to do about it; [`walk`] is the order in which they are asked, from the
//! daemon to the packets. The first that fails is the verdict: what comes later may well be its consequence.

mod backend;
mod daemon;
mod drops;
mod features;
mod flow;
mod frontend;
mod link;
mod rings;
mod sight;
#[cfg(test)]
mod tests;
mod view;
mod walk;
mod worker;

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use snapshot::Status;

use crate::client::{self, ClientError};
use crate::host::Host;
use flow::Passing;
use sight::Sight;

/// Time between the two looks: long enough for a guest that sends now and then, and for the kernel's scheduler.
const BETWEEN: Duration = Duration::from_millis(300);
/// More time for what seems to stand still: on a busy machine it may only have had to wait.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Checks that fail because something stands still.
const STANDSTILL: [&str; 3] = ["worker", rings::BUFFERS, "held"];

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// As it should be.
    Ok,
    /// Traffic passes, but less, or slower, or elsewhere than meant.
    Note,
    /// No traffic can pass.
    Fail,
}

/// One precondition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which precondition: a name that scripts may rely on.
    pub check: &'static str,
    /// The port, worker or daemon that it is about.
    pub of: String,
    /// Whether it is met.
    pub mark: Mark,
    /// What was found, in one line.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    fn ok(check: &'static str, of: &str, found: impl Into<String>) -> Check {
        Check { check, of: of.to_owned(), mark: Mark::Ok, found: found.into(), advice: None }
    }

    fn note(check: &'static str, of: &str, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { mark: Mark::Note, advice: Some(advice.into()), ..Check::ok(check, of, found) }
    }

    fn fail(check: &'static str, of: &str, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { mark: Mark::Fail, ..Check::note(check, of, found, advice) }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The port asked about.
    pub port: String,
    /// Every check made, in order.
    pub checks: Vec<Check>,
    /// `fail` if no traffic can pass, `note` if something hinders it.
    pub mark: Mark,
    /// Name of the first check with that mark; absent if all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// All in one line.
    pub verdict: String,
}

/// The report about port `name`, and the exit status: 0 it carries or can carry traffic, 1 a precondition fails,
/// 3 ringwired cannot be reached.
pub fn run(api: &Path, name: &str, json: bool) -> Result<(String, u8), ClientError> {
    let host = Host::real();
    let (report, status) = match examine(api, name, &host) {
        Err(ClientError::Unreachable { socket, problem }) => {
            (report(name, vec![daemon::unreachable(&socket, &problem, &host)], &Passing::default()), 3)
        }
        Err(refused) => return Err(refused),
        Ok(report) => {
            let status = if report.mark == Mark::Fail { 1 } else { 0 };
            (report, status)
        }
    };
    let text = if json { view::json(&report) } else { view::text(&report) };
    Ok((text, status))
}

/// Looks twice, or once more after a while.
fn examine(api: &Path, name: &str, host: &Host) -> Result<Report, ClientError> {
    let look = || -> Result<Status, ClientError> {
        let body = client::get(api, "/v1/status")?;
        serde_json::from_str(&body).map_err(|error| ClientError::not_understood(api, &error))
    };
    let (before, asked) = (look()?, Instant::now());
    let look_again = |pause| {
        std::thread::sleep(pause);
        let now = look()?;
        let sight = Sight::new(&before, &now, asked.elapsed());
        let port = sight.port(name).ok_or_else(|| no_such_port(name, &now))?;
        Ok(report(name, walk::walk(&sight, port, host), &flow::passing(&sight, port)))
    };
    let found: Report = look_again(BETWEEN)?;
    let stands_still = found.cause.is_some_and(|cause| STANDSTILL.contains(&cause));
    if found.mark == Mark::Fail && stands_still { look_again(PATIENCE) } else { Ok(found) }
}

/// As ringwired itself says it.
fn no_such_port(name: &str, status: &Status) -> ClientError {
    let names: Vec<&str> = status.ports.iter().map(|port| port.name.as_str()).collect();
    ClientError::Refused(format!("no port is called {name:?} (there are: {})", names.join(", ")))
}

/// Draws the conclusion.
fn report(name: &str, checks: Vec<Check>, passing: &Passing) -> Report {
    let passes = &passing.text;
    // A worker that shares its core makes everything slow, and explains nothing else.
    let mut telling = checks.iter().filter(|check| check.check != "worker").chain(&checks);
    let note = telling.find(|check| check.mark == Mark::Note);
    let fail = checks.iter().find(|check| check.mark == Mark::Fail);
    let count = |mark| checks.iter().filter(|check| check.mark == mark).count();
    let more = |mark| match count(mark) {
        0 | 1 => String::new(),
        more => format!(" (and {} more, above)", more - 1),
    };
    let (mark, cause, verdict) = match (fail, note) {
        (Some(fail), _) => {
            let carries = match fail.check == rings::BUFFERS && passing.any {
                true => format!("{passes}, and one way only"),
                false => "carries no traffic".to_owned(),
            };
            let verdict = format!("{name} {carries}: {}: {}{}", fail.of, fail.found, more(Mark::Fail));
            (Mark::Fail, Some(fail.check), verdict)
        }
        (None, Some(note)) => {
            let verdict = format!("{name} {passes}, but {}: {}{}", note.of, note.found, more(Mark::Note));
            (Mark::Note, Some(note.check), verdict)
        }
        (None, None) => (Mark::Ok, None, format!("{name} {passes}, and nothing is in the way")),
    };
    Report { port: name.to_owned(), mark, cause, verdict, checks }
}
