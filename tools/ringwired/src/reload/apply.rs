//! All of the changes, or none.

use std::fmt;

use super::Running;
use super::change::Change;

/// A change failed. Those before it are undone.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// What could not be done.
    pub change: String,
    /// Why.
    pub reason: String,
    /// What could not be undone either, and why.
    pub left: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.change, self.reason)?;
        match self.left.is_empty() {
            true => write!(f, " (nothing has changed)"),
            false => write!(f, " (what was done is undone, but for this: {})", self.left.join("; ")),
        }
    }
}

/// Makes `changes` in order. Should one fail, those before it are undone, the last first.
pub fn apply(running: &dyn Running, changes: &[Change]) -> Result<(), Failure> {
    for (at, change) in changes.iter().enumerate() {
        if let Err(reason) = running.change(change) {
            let done = changes[..at].iter().rev().map(Change::inverse);
            let left = done
                .filter_map(|change| Some(format!("cannot {change}: {}", running.change(&change).err()?)));
            return Err(Failure { change: change.to_string(), reason, left: left.collect() });
        }
    }
    Ok(())
}
