//! systemd's journal as the log's reader: it has a time and a priority of its own for each line.

use std::fmt;
use std::os::fd::AsFd;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, time};
use tracing_subscriber::registry::LookupSpan;

/// Whether a stream leads to the journal: systemd says which one does (systemd.exec(5), `JOURNAL_STREAM`). The variable
/// is inherited by what a service starts, whose stderr may be another.
pub fn is(stream: impl AsFd) -> bool {
    let said = std::env::var("JOURNAL_STREAM").ok();
    let found = rustix::fs::fstat(stream).ok().map(|found| format!("{}:{}", found.st_dev, found.st_ino));
    said.is_some() && said == found
}

/// Lines of text without a time, and with their priority in front, as sd-daemon(3) has it.
pub struct Entries(Format<Full, ()>);

impl Entries {
    /// The same lines, for the journal.
    pub fn of(format: Format<Full, time::SystemTime>) -> Entries {
        Entries(format.without_time())
    }
}

impl<S, N> FormatEvent<S, N> for Entries
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// Of syslog(3).
pub fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}
