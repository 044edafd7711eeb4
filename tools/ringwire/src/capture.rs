//! `ringwire capture`: what passes a port, into a file, or a program that reads pcapng.

mod filter;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{HeaderMap, Response, header};
use snapshot::{NewCapture, Way};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{Capture, Passing};
use crate::client::{self, ClientError};

/// Signals that come within this time are one.
const PAIR: Duration = Duration::from_millis(500);
/// What a capture is.
const PCAPNG: &str = "application/x-pcapng";

/// Captures until it is over, or a signal ends it. What is said of it then.
pub fn run(api: &Path, arguments: &Capture) -> Result<String, ClientError> {
    let wanted = wanted(arguments)?;
    let unreachable = |problem| ClientError::Unreachable { socket: api.to_owned(), problem };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable(format!("no event loop: {error}")))?;
    runtime.block_on(async {
        let answer = client::ask(api, "/v1/captures", PCAPNG, &wanted).await?;
        let counts = copy(api, answer, &arguments.file).await?;
        Ok(counts.map(|counts| said(&counts)).unwrap_or_default())
    })
}

/// The request.
fn wanted(arguments: &Capture) -> Result<NewCapture, ClientError> {
    let Capture { name, direction, snaplen, count, seconds, filter, .. } = arguments;
    // Names of ports have no colon.
    let (port, queue) = match name.split_once(':') {
        None => (name.as_str(), None),
        Some((port, queue)) => {
            let number = queue.parse().map_err(|_| {
                ClientError::Refused(format!(
                    "{name}: {queue:?} is not the number of a queue pair, 0 or more"
                ))
            })?;
            (port, Some(number))
        }
    };
    let direction = match direction {
        Passing::Both => None,
        Passing::Rx => Some(Way::Rx),
        Passing::Tx => Some(Way::Tx),
    };
    let filter = filter::compile(&filter.join(" "))
        .map_err(|problem| ClientError::Refused(format!("the filter is not understood: {problem}")))?;
    let (snaplen, count, seconds) = (*snaplen, *count, *seconds);
    Ok(NewCapture { port: port.to_owned(), queue, direction, filter, snaplen, count, seconds })
}

/// Writes the stream into `file`. What was counted, unless whoever reads it has seen enough.
async fn copy(api: &Path, answer: Response<Incoming>, file: &Path) -> Result<Option<HeaderMap>, ClientError> {
    let refused = |error: io::Error| ClientError::Refused(format!("{}: {error}", file.display()));
    let place =
        answer.headers().get(header::LOCATION).and_then(|place| place.to_str().ok()).map(str::to_owned);
    let mut file: Box<dyn Write> = match file.to_str() {
        Some("-") => Box::new(io::stdout()),
        _ => Box::new(File::create(file).map_err(refused)?),
    };
    let broken = |problem: String| ClientError::Unreachable { socket: api.to_owned(), problem };
    let mut signals = Signals::install().map_err(refused)?;
    let mut stream = answer.into_body();
    loop {
        let frame = tokio::select! {
            frame = stream.frame() => frame,
            first = signals.next() => {
                // What was captured until now still comes. A second signal does not wait for it.
                if let Some(place) = place.as_ref().filter(|_| first) {
                    client::delete_beside(api, place).await?;
                    continue;
                }
                return Ok(None);
            }
        };
        let frame = frame
            .ok_or_else(|| broken("the capture broke off: has ringwired stopped?".to_owned()))?
            .map_err(|error| broken(format!("the capture broke off: {error}")))?;
        match frame.into_data() {
            Ok(data) => match file.write_all(&data).and_then(|()| file.flush()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
                written => written.map_err(refused)?,
            },
            Err(last) => return Ok(last.into_trailers().ok()),
        }
    }
}

/// One line.
fn said(counts: &HeaderMap) -> String {
    let names = ["ringwire-captured", "ringwire-dropped", "ringwire-seen"];
    let [captured, dropped, seen] =
        names.map(|name| counts.get(name).and_then(|count| count.to_str().ok()).unwrap_or("?"));
    format!(
        "{captured} packets captured of {seen} that passed; {dropped} found no room and are not in the capture\n"
    )
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// When the first one came.
    first: Option<Instant>,
}

impl Signals {
    fn install() -> io::Result<Signals> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Signals { interrupt, terminate, first: None })
    }

    /// The next one: whether it is the first. Both of a pair are one, as timeout(1) sends them, to us and to our group.
    async fn next(&mut self) -> bool {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            match self.first {
                None => {
                    self.first = Some(Instant::now());
                    return true;
                }
                Some(first) if first.elapsed() > PAIR => return false,
                Some(_) => {}
            }
        }
    }
}
