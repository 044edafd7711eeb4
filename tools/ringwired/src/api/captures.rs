//! `/v1/captures`: what passes a port, as a stream of pcapng.
//!
//! A capture is one answer that lasts: until so many frames or seconds are over, it is deleted, or the client goes, or
//! takes nothing of it for [`CONNECTION_TIME`]. A thread of its own reads what the datapath has put into memory, and hands
//! it to the connection as fast as the client takes it. There are [`MAX_CAPTURES`] at most, each of which takes one
//! connection; a client that does not read costs nobody but itself: what finds no room is counted, and not captured.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::{CaptureError, Capturing, Direction, Instruction, Program, Wanted};
use hyper::body::Frame;
use snapshot::{NewCapture, Way};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Api;
use super::answer::{Named, Refusal, content};
use super::server::{CONNECTION_TIME, Lasting, Lasts};
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
    let place = Place::take(api.captures, place, lasting.begin());
    let number = place.number;
    let (frames, stream) = mpsc::channel(CHUNKS);
    let reader = Reader::new(capturing, &new, Outlet::new(frames), place);
    std::thread::Builder::new().name("capture".to_owned()).spawn(move || reader.run()).map_err(|error| {
        let text = format!("the thread for the capture cannot be started: {error}");
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, text)
    })?;
    let headers = [
        (header::CONTENT_TYPE, PCAPNG.to_owned()),
        (header::LOCATION, format!("/v1/captures/{number}")),
        (header::TRAILER, TRAILERS.join(", ")),
    ];
    Ok((headers, Body::new(Stream(stream))).into_response())
}

/// Ends one, as if its time were over.
pub async fn end(State(api): State<Api>, Named(number): Named<u64>) -> Result<StatusCode, Refusal> {
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
    let numbers = [("count", new.count), ("seconds", new.seconds), ("snaplen", new.snaplen.map(u64::from))];
    for (name, number) in numbers {
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

/// A capture's place among those that run, and the time that its connection gets by it.
struct Place {
    number: u64,
    captures: Captures,
    stop: Arc<AtomicBool>,
    _permit: OwnedSemaphorePermit,
    _lasts: Lasts,
}

impl Place {
    fn take(captures: Captures, permit: OwnedSemaphorePermit, lasts: Lasts) -> Place {
        let number = captures.next.fetch_add(1, Ordering::Relaxed);
        let stop = Arc::new(AtomicBool::new(false));
        captures.running().insert(number, stop.clone());
        Place { number, captures, stop, _permit: permit, _lasts: lasts }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.captures.running().remove(&self.number);
    }
}

/// The answer's body.
struct Stream(mpsc::Receiver<Frame<Bytes>>);

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

/// Where the stream goes to the connection.
struct Outlet {
    frames: mpsc::Sender<Frame<Bytes>>,
    /// Pieces that waited for the client when last looked at,
    waiting: usize,
    /// and since when it has taken none of them.
    since: Instant,
}

/// Nobody takes more of the stream.
enum Lost {
    /// The client has gone.
    Gone,
    /// It is there, and has taken nothing for [`CONNECTION_TIME`].
    Stalled,
}

impl Outlet {
    fn new(frames: mpsc::Sender<Frame<Bytes>>) -> Outlet {
        Outlet { frames, waiting: 0, since: Instant::now() }
    }

    /// How many pieces wait for the client; [`CHUNKS`] at most.
    fn waiting(&mut self) -> Result<usize, Lost> {
        if self.frames.is_closed() {
            return Err(Lost::Gone);
        }
        let waiting = CHUNKS - self.frames.capacity();
        if waiting == 0 || waiting < self.waiting {
            self.since = Instant::now();
        }
        self.waiting = waiting;
        if self.since.elapsed() < CONNECTION_TIME { Ok(waiting) } else { Err(Lost::Stalled) }
    }

    /// Waits until no more than so many pieces wait.
    fn wait(&mut self, most: usize) -> Result<(), Lost> {
        while self.waiting()? > most {
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Hands over one more, when there is room for it.
    fn put(&mut self, frame: Frame<Bytes>) -> Result<(), Lost> {
        self.wait(CHUNKS - 1)?;
        self.waiting += 1;
        self.frames.try_send(frame).map_err(|_| Lost::Gone)
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
    /// Those that nobody took any more.
    unread: Vec<u64>,
    left: u64,
    until: Option<Instant>,
    outlet: Outlet,
    place: Place,
}

impl Reader {
    fn new(capturing: Capturing, new: &NewCapture, outlet: Outlet, place: Place) -> Reader {
        let all = 0..capturing.counts().len() as u16;
        let pairs: Vec<u16> = all.filter(|pair| new.queue.is_none_or(|queue| queue == *pair)).collect();
        let names = pairs.iter().map(|pair| format!("{}:{pair}", new.port));
        let blocks = Blocks::start(names, capturing.wanted().snaplen);
        let until = new.seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        let (written, unread) = (vec![0; pairs.len()], vec![0; pairs.len()]);
        let left = new.count.unwrap_or(u64::MAX);
        Reader { capturing, blocks, pairs, written, unread, left, until, outlet, place }
    }

    /// Until the capture is over and the client has all of it, or takes no more.
    fn run(mut self) {
        let lost = self.copy().err();
        if lost.is_some() {
            self.abandon();
        }
        let [data, trailers] = self.last(lost);
        // Where nobody takes it, there is nobody to tell.
        let _ =
            self.outlet.put(data).and_then(|()| self.outlet.put(trailers)).and_then(|()| self.outlet.wait(0));
    }

    /// Hands over what is captured, to the end.
    fn copy(&mut self) -> Result<(), Lost> {
        let mut ended = false;
        loop {
            let over = self.left == 0
                || self.place.stop.load(Ordering::Relaxed)
                || self.until.is_some_and(|until| Instant::now() >= until);
            if over && !ended {
                // What was captured before is still read.
                self.capturing.end();
                ended = true;
            }
            let mut more = false;
            if self.outlet.waiting()? < CHUNKS {
                more = self.read();
                if !self.blocks.is_empty() {
                    self.outlet.put(Frame::data(self.blocks.take().into()))?;
                }
                if ended && !more {
                    return Ok(());
                }
            }
            if !more {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Puts what was captured into blocks. Whether there may be more.
    fn read(&mut self) -> bool {
        while self.blocks.len() < CHUNK {
            if !self.take(true) {
                return false;
            }
        }
        true
    }

    /// Takes some of what was captured out of its memory, to `keep` it or not. Whether there may be more.
    fn take(&mut self, keep: bool) -> bool {
        let Reader { capturing, blocks, pairs, written, unread, left, .. } = self;
        let any = capturing.read(&mut |record| {
            if let Some(interface) = pairs.iter().position(|pair| *pair == record.pair)
                && *left > 0
            {
                *left -= 1;
                if keep {
                    written[interface] += 1;
                    blocks.packet(interface as u32, &record);
                } else {
                    unread[interface] += 1;
                }
            }
        });
        any && *left > 0
    }

    /// Ends it. What is in memory still is dropped, like what found no room there.
    fn abandon(&mut self) {
        self.capturing.end();
        while self.take(false) {}
    }

    /// The end of the stream: what became of all.
    fn last(&mut self, lost: Option<Lost>) -> [Frame<Bytes>; 2] {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let mut sum = Statistics::default();
        let numbers = self.pairs.iter().zip(&self.written).zip(&self.unread);
        for (interface, ((pair, written), unread)) in numbers.enumerate() {
            let counts = &self.capturing.counts()[usize::from(*pair)];
            let statistics = Statistics {
                seen: counts.seen.get(),
                matched: counts.matched.get(),
                dropped: counts.dropped.get() + unread,
                written: *written,
            };
            self.blocks.statistics(interface as u32, now, &statistics);
            sum.seen += statistics.seen;
            sum.dropped += statistics.dropped;
            sum.written += written;
        }
        let port = &self.capturing.wanted().port;
        let Statistics { seen, dropped, written: captured, .. } = sum;
        match lost {
            Some(Lost::Stalled) => {
                let time = CONNECTION_TIME.as_secs();
                let what = format!("capture ended: its client has taken nothing of it for {time} s");
                tracing::warn!(port, captured, dropped, seen, "{what}");
            }
            Some(Lost::Gone) | None => tracing::info!(port, captured, dropped, seen, "capture ended"),
        }
        let counts = TRAILERS.map(axum::http::HeaderName::from_static).into_iter();
        let trailers = counts.zip([captured, dropped, seen].map(HeaderValue::from)).collect::<HeaderMap>();
        [Frame::data(self.blocks.take().into()), Frame::trailers(trailers)]
    }
}
