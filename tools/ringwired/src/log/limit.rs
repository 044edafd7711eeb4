//! How often one cause is spoken of: a guest that breaks the rules all the time must not fill the disk.
//!
//! A cause is a place in the code, a port, and what is said of it but for numbers. Of each, some lines ([`MOST_LINES`]) pass in
//! [`WINDOW`]; the rest is counted, and the count is said when the time is over. Who asks for debug and trace lines wants
//! all of them.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

/// Lines of one cause that pass in a [`WINDOW`], unless told otherwise.
pub const MOST_LINES: u32 = 10;
/// How long lines are counted for.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Target of the lines about lines, which always pass.
pub const TARGET: &str = "ringwired::log";
/// Target of what a reload has changed: somebody asked for it, once.
const RELOAD: &str = "ringwired::reload";
/// Causes known at a time; beyond that, all that a place in the code says is one.
const MOST_CAUSES: usize = 1024;

/// The causes that were spoken of lately.
pub struct Limit {
    /// Lines of each that pass.
    most: u32,
    causes: Mutex<HashMap<Cause, Seen>>,
}

#[derive(PartialEq, Eq, Hash)]
struct Cause {
    place: Identifier,
    port: Option<String>,
    /// Without digits.
    text: String,
}

struct Seen {
    since: Instant,
    passed: u32,
    suppressed: Suppressed,
}

/// Lines that did not pass.
pub struct Suppressed {
    count: u64,
    level: Level,
    /// The last of them.
    line: Line,
}

/// What a line says.
#[derive(Default)]
struct Line {
    message: String,
    port: Option<String>,
    /// The values of all other fields.
    fields: String,
}

impl Limit {
    /// Has so many lines of a cause pass in a [`WINDOW`].
    pub fn new(most: u32) -> Limit {
        Limit { most, causes: Mutex::default() }
    }

    /// Whether a line from `place` passes.
    fn passes(&self, place: Identifier, level: Level, line: Line, now: Instant) -> bool {
        let text = line.message.chars().chain(line.fields.chars()).filter(|c| !c.is_ascii_digit()).collect();
        let mut cause = Cause { place, port: line.port.clone(), text };
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        if causes.len() >= MOST_CAUSES && !causes.contains_key(&cause) {
            cause = Cause { port: None, text: String::new(), ..cause };
        }
        let new = || Seen {
            since: now,
            passed: 0,
            suppressed: Suppressed { count: 0, level, line: Line::default() },
        };
        let seen = causes.entry(cause).or_insert_with(new);
        if seen.passed < self.most {
            seen.passed += 1;
            return true;
        }
        seen.suppressed.count += 1;
        seen.suppressed.line = line;
        false
    }

    /// Forgets the causes whose time is over at `now`, and gives what did not pass of them.
    pub fn over(&self, now: Instant) -> Vec<Suppressed> {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let over = causes.extract_if(|_, seen| now.duration_since(seen.since) >= WINDOW);
        over.map(|(_, seen)| seen.suppressed).filter(|suppressed| suppressed.count > 0).collect()
    }
}

impl Suppressed {
    /// Says it, as loudly as the lines themselves would have.
    pub fn say(&self) {
        let Suppressed { count, level, line: Line { message, port, .. } } = self;
        let port = port.as_deref();
        match *level {
            Level::ERROR => {
                tracing::error!(target: TARGET, port, "{count} more lines like this suppressed: {message}")
            }
            Level::WARN => {
                tracing::warn!(target: TARGET, port, "{count} more lines like this suppressed: {message}")
            }
            _ => tracing::info!(target: TARGET, port, "{count} more lines like this suppressed: {message}"),
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            "port" => self.port = Some(value.to_owned()),
            _ => self.fields.push_str(value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A string takes all.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            _ => write!(self.fields, "{value:?}"),
        };
    }
}

/// Lets the lines pass that the limit lets pass.
pub struct Passing(pub Arc<Limit>);

impl<S: Subscriber> Filter<S> for Passing {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // The verbose levels are the greater ones.
        if *metadata.level() > Level::INFO || [TARGET, RELOAD].contains(&metadata.target()) {
            return true;
        }
        let mut line = Line::default();
        event.record(&mut line);
        self.0.passes(metadata.callsite(), *metadata.level(), line, Instant::now())
    }
}
