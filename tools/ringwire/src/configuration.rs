//! `config dump`, `reload` and `log`: what ringwired was told, and is told now.

use std::path::Path;

use snapshot::{Log, Reload, Reloaded};

use crate::args::Output;
use crate::client::{self, ClientError};
use crate::view_answer;

/// The file that would bring back what runs now.
pub fn dump(api: &Path, output: &Output) -> Result<String, ClientError> {
    let kind = if output.json { "application/json" } else { "text/toml" };
    client::get_as(api, "/v1/config", kind)
}

/// What has changed, or would.
pub fn reload(api: &Path, dry_run: bool, output: &Output) -> Result<String, ClientError> {
    let answer = client::post(api, "/v1/reload", &Reload { dry_run })?;
    view_answer(api, answer, output, |reloaded: &Reloaded| match reloaded.changes.as_slice() {
        [] => "nothing to change: what runs is what the file says\n".to_owned(),
        changes => changes.iter().map(|change| format!("{change}\n")).collect(),
    })
}

/// The filter in force.
pub fn log(api: &Path, filter: Option<&str>, output: &Output) -> Result<String, ClientError> {
    let answer = match filter {
        None => client::get(api, "/v1/log")?,
        Some(level) => client::put(api, "/v1/log", &Log { level: level.to_owned() }, Vec::new())?,
    };
    view_answer(api, answer, output, |log: &Log| format!("{}\n", log.level))
}
