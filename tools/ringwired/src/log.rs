//! The daemon's log: to stderr, as text or JSON, each cause a bounded number of times.
//!
//! It is written by a thread of its own: a reader of the log that is slow, or stopped, must not stop a worker that has
//! something to say. Nothing is left out silently: a second thread says now and then how much was.

mod journal;
mod limit;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tracing::{Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use limit::Limit;
pub use limit::MOST_LINES;

/// Lines that wait to be written; more are lost, and counted.
const LINES: usize = 16 * 1024;
/// How often it is looked whether something was left out.
const LOOK: Duration = Duration::from_secs(1);

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object a line: timestamp, level, target, message, and the fields: port, queue, ...
    Json,
}

/// Where the lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Terminal,
    /// systemd's.
    Journal,
    /// Or a pipe, ...
    File,
}

/// The log while it is open. Dropped, it says what was left out, and writes the rest.
pub struct Log {
    /// Dropped, to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Last: what the thread says at the end is written as well.
    _writer: WorkerGuard,
}

/// Opens the log on stderr for all that this process says from now on.
///
/// # Errors
/// If there can be no thread for it.
pub fn init(filter: impl Layer<Registry> + Send + Sync, format: Format, lines: u32) -> io::Result<Log> {
    let place = match io::stderr() {
        stderr if stderr.is_terminal() => Place::Terminal,
        stderr if journal::is(&stderr) => Place::Journal,
        _ => Place::File,
    };
    let (writer, guard) = NonBlockingBuilder::default().buffered_lines_limit(LINES).finish(io::stderr());
    let left_out = LeftOut { limit: Arc::new(Limit::new(lines)), lost: writer.error_counter(), said: 0 };
    subscriber(filter, format, writer, place, left_out.limit.clone()).init();
    let (stop, stopped) = channel::<()>();
    let thread = std::thread::Builder::new().name("log".into()).spawn(move || {
        let mut left_out = left_out;
        while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            left_out.say(Instant::now());
        }
        left_out.say_all();
    })?;
    Ok(Log { stop: Some(stop), thread: Some(thread), _writer: guard })
}

/// Says on stderr why the daemon ends: one line, and nothing else.
pub fn last_words(failure: &impl fmt::Display) {
    match journal::is(io::stderr()) {
        true => eprintln!("<{}>{failure}", journal::priority(Level::ERROR)),
        false => eprintln!("{failure}"),
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn subscriber(
    filter: impl Layer<Registry> + Send + Sync,
    format: Format,
    writer: NonBlocking,
    place: Place,
    limit: Arc<Limit>,
) -> impl Subscriber + Send + Sync {
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match (format, place) {
        (Format::Text, Place::Journal) => {
            lines.with_ansi(false).map_event_format(journal::Entries::of).boxed()
        }
        (Format::Text, _) => lines.with_ansi(place == Place::Terminal).boxed(),
        (Format::Json, _) => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(lines.with_filter(limit::Passing(limit)))
}

/// What the log does not have.
struct LeftOut {
    limit: Arc<Limit>,
    /// Lines for which there was no room.
    lost: ErrorCounter,
    /// As many of these were spoken of.
    said: usize,
}

impl LeftOut {
    /// Says what was left out of the causes whose time is over at `now`, and what was lost.
    fn say(&mut self, now: Instant) {
        self.limit.over(now).iter().for_each(limit::Suppressed::say);
        let lost = self.lost.dropped_lines();
        if lost > self.said {
            let count = lost - self.said;
            tracing::warn!(target: limit::TARGET, "{count} lines of log were lost: their reader is too slow");
            self.said = lost;
        }
    }

    /// Likewise, of all causes.
    fn say_all(&mut self) {
        self.say(Instant::now() + limit::WINDOW);
    }
}
