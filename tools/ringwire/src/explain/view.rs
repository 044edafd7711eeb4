//! A report as text, and as JSON.

use super::{Mark, Report};
use crate::table::Table;

fn sign(mark: Mark) -> &'static str {
    match mark {
        Mark::Ok => "✓",
        Mark::Note => "!",
        Mark::Fail => "✗",
    }
}

/// A line for each check, what to do about those that are not met, and the verdict.
pub fn text(report: &Report) -> String {
    let mut table = Table::new(0).words(&["", "", "", ""]);
    for check in &report.checks {
        let name = check.check.to_owned();
        table.row(vec![sign(check.mark).to_owned(), check.of.clone(), name, check.found.clone()]);
    }
    let mut text = String::new();
    for (line, check) in table.to_string().lines().zip(&report.checks) {
        text.push_str(&format!("{line}\n"));
        if let Some(advice) = &check.advice {
            text.push_str(&format!("   -> {advice}\n"));
        }
    }
    format!("{text}\n{} {}\n", sign(report.mark), report.verdict)
}

/// The same for programs.
pub fn json(report: &Report) -> String {
    let text =
        serde_json::to_string_pretty(report).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"));
    format!("{text}\n")
}
