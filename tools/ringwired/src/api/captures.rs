//! `/v1/captures`: what passes a port, as a stream of pcapng.
//!
//! A capture is one answer that lasts: until so many frames or seconds are over, it is deleted, or the client goes. A
//! thread of its own reads what the datapath has put into memory, and hands it to the connection as fast as the client
//! takes it. There are [`MAX_CAPTURES`] at most, each of which takes one connection; a client that does not read costs
//! nobody but itself: what finds no room is counted, and not captured.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::{CaptureError, Capturing, Direction, Instruction, Program, Wanted};
use hyper::body::Frame;
use snapshot::{NewCapture, Way};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Api;
use super::answer::{Refusal, content};
use super::server::{Lasting, Lasts};
use crate::pcapng::{Blocks, Statistics};

/// Captures at a time.
pub const MAX_CAPTURES: usize = 4;
/// The body of a request may be this long: the longest filter is in it.
pub const BODY_BYTES: usize = 256 * 1024;
/// Bytes handed to the connection at a time, and how often that before the client has taken them.
const CHUNK: usize = 128 * 1024;
const CHUNKS: usize = 4;
/// How long to wait for more.
const PAUSE: Duration = Duration::from_millis(5);
/// The type of what is answered.
pub const PCAPNG: &str = "application/x-pcapng";
/// No frame is longer.
const LONGEST: u32 = 0x4_0000;

/// Captures under way.
#[derive(Clone)]
pub struct Captures {
    places: Arc<Semaphore>,
    next: Arc<AtomicU64>,
    /// By number: set, it ends.
    running: Arc<Mutex<BTreeMap<u64, Arc<AtomicBool>>>>,
}

impl Default for Captures {
    fn default() -> Captures {
        let places = Arc::new(Semaphore::new(MAX_CAPTURES));
        Captures { places, next: Arc::default(), running: Arc::default() }
    }
}

impl Captures {
    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<AtomicBool>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts one: the answer is what it captures.
pub async fn start(
    State(api): State<Api>,
    Extension(lasting): Extension<Lasting>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let shape = "{\"port\": \"NAME\", ...}";
    let new: NewCapture = content(body, shape)?;
    let wanted = wanted(&new).map_err(|problem| Refusal(StatusCode::UNPROCESSABLE_ENTITY, problem))?;
    let place = api.captures.places.clone().try_acquire_owned().map_err(|_| {
        let text = format!("{MAX_CAPTURES} captures run already: end one first");
        Refusal(StatusCode::TOO_MANY_REQUESTS, text)
    })?;
    let capturing = api.ask(move |source| source.capture(wanted)).await?.map_err(refuse)?;
    let number = api.captures.next.fetch_add(1, Ordering::Relaxed);
    let stop = Arc::new(AtomicBool::new(false));
    let (frames, stream) = mpsc::channel(CHUNKS);
    let reader = Reader::new(capturing, &new, frames, stop.clone());
    std::thread::Builder::new().name("capture".to_owned()).spawn(move || reader.run()).map_err(|error| {
        let text = format!("the thread for the capture cannot be started: {error}");
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, text)
    })?;
    api.captures.running().insert(number, stop);
    let stream =
        Stream { frames: stream, number, captures: api.captures, _place: place, _lasts: lasting.begin() };
    let headers = [
        (header::CONTENT_TYPE, PCAPNG.to_owned()),
        (header::LOCATION, format!("/v1/captures/{number}")),
        (header::TRAILER, TRAILERS.join(", ")),
    ];
    Ok((headers, Body::new(stream)).into_response())
}

/// Ends one, as if its time were over.
pub async fn end(
    State(api): State<Api>,
    number: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, Refusal> {
    let Path(number) = number.map_err(|error| Refusal(error.status(), error.body_text()))?;
    match api.captures.running().get(&number) {
        Some(stop) => {
            stop.store(true, Ordering::Relaxed);
            Ok(StatusCode::NO_CONTENT)
        }
        None => Err(Refusal(StatusCode::NOT_FOUND, format!("no capture has number {number}"))),
    }
}

/// What a request means, or what is wrong with it.
fn wanted(new: &NewCapture) -> Result<Wanted, String> {
    let filter = match &*new.filter {
        [] => None,
        program => {
            let instructions: Vec<_> =
                program.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
            Some(Program::new(&instructions).map_err(|error| error.to_string())?)
        }
    };
    for (name, number) in [("count", new.count), ("snaplen", new.snaplen.map(u64::from))] {
        if number == Some(0) {
            return Err(format!("{name} is 0: there would be nothing to capture"));
        }
    }
    let direction = new.direction.map(|way| match way {
        Way::Rx => Direction::Rx,
        Way::Tx => Direction::Tx,
    });
    let snaplen = new.snaplen.unwrap_or(LONGEST);
    Ok(Wanted { port: new.port.clone(), queue: new.queue, direction, filter, snaplen })
}

fn refuse(error: CaptureError) -> Refusal {
    let code = match error {
        CaptureError::NoSuchPort(_) => StatusCode::NOT_FOUND,
        CaptureError::NoSuchQueue { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        CaptureError::Punt { .. } => StatusCode::CONFLICT,
    };
    Refusal(code, error.to_string())
}

/// The answer. It is dropped when it is all written, or the client has gone.
struct Stream {
    frames: mpsc::Receiver<Frame<Bytes>>,
    number: u64,
    captures: Captures,
    _place: OwnedSemaphorePermit,
    _lasts: Lasts,
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.frames.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.captures.running().remove(&self.number);
    }
}

/// What is said behind the capture: frames in it, those there was no room for, those that passed.
const TRAILERS: [&str; 3] = ["ringwire-captured", "ringwire-dropped", "ringwire-seen"];

/// A capture's thread.
struct Reader {
    capturing: Capturing,
    blocks: Blocks,
    /// Numbers of the port's pairs, in the order of the file's interfaces.
    pairs: Vec<u16>,
    /// Frames written, by interface.
    written: Vec<u64>,
    left: u64,
    until: Option<Instant>,
    frames: mpsc::Sender<Frame<Bytes>>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    fn new(
        capturing: Capturing,
        new: &NewCapture,
        frames: mpsc::Sender<Frame<Bytes>>,
        stop: Arc<AtomicBool>,
    ) -> Reader {
        let all = 0..capturing.counts().len() as u16;
        let pairs: Vec<u16> = all.filter(|pair| new.queue.is_none_or(|queue| queue == *pair)).collect();
        let names = pairs.iter().map(|pair| format!("{}:{pair}", new.port));
        let blocks = Blocks::start(names, capturing.wanted().snaplen);
        let until = new.seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        let (written, left) = (vec![0; pairs.len()], new.count.unwrap_or(u64::MAX));
        Reader { capturing, blocks, pairs, written, left, until, frames, stop }
    }

    /// Until the capture is over, or the client has gone.
    fn run(mut self) {
        let mut ended = false;
        loop {
            let over = self.left == 0
                || self.stop.load(Ordering::Relaxed)
                || self.until.is_some_and(|until| Instant::now() >= until);
            if over && !ended {
                // What was captured before is still read.
                self.capturing.end();
                ended = true;
            }
            let mut more = false;
            if self.frames.capacity() > 0 {
                more = self.read();
                self.hand_over();
                if ended && !more {
                    break;
                }
            }
            if self.frames.is_closed() {
                break;
            }
            if !more {
                std::thread::sleep(PAUSE);
            }
        }
        self.finish();
    }

    /// Puts what was captured into blocks. Whether there may be more.
    fn read(&mut self) -> bool {
        let Reader { capturing, blocks, pairs, written, left, .. } = self;
        while blocks.len() < CHUNK {
            let any = capturing.read(&mut |record| {
                if let Some(interface) = pairs.iter().position(|pair| *pair == record.pair)
                    && *left > 0
                {
                    *left -= 1;
                    written[interface] += 1;
                    blocks.packet(interface as u32, &record);
                }
            });
            if !any || *left == 0 {
                return false;
            }
        }
        true
    }

    fn hand_over(&mut self) {
        if !self.blocks.is_empty() {
            // There is room, or nobody there.
            let _ = self.frames.try_send(Frame::data(self.blocks.take().into()));
        }
    }

    /// The end: what became of all.
    fn finish(mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let mut sum = Statistics::default();
        for (interface, (pair, written)) in self.pairs.iter().zip(&self.written).enumerate() {
            let counts = &self.capturing.counts()[usize::from(*pair)];
            let statistics = Statistics {
                seen: counts.seen.get(),
                matched: counts.matched.get(),
                dropped: counts.dropped.get(),
                written: *written,
            };
            self.blocks.statistics(interface as u32, now, &statistics);
            sum.seen += statistics.seen;
            sum.dropped += statistics.dropped;
            sum.written += written;
        }
        let port = &self.capturing.wanted().port;
        tracing::info!(port, captured = sum.written, dropped = sum.dropped, seen = sum.seen, "capture ended");
        let counts = TRAILERS.map(axum::http::HeaderName::from_static).into_iter();
        let counts = counts.zip([sum.written, sum.dropped, sum.seen].map(HeaderValue::from));
        let trailers = counts.collect::<HeaderMap>();
        let last = [Frame::data(self.blocks.take().into()), Frame::trailers(trailers)];
        // If the client has gone, there is nobody to tell.
        let _ = last.into_iter().try_for_each(|frame| self.frames.blocking_send(frame));
    }
}
