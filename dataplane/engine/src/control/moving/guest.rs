//! The guest: a thread that sends numbered frames, receives them again, and takes nothing on trust.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use virtqueue::RingConfig;
use virtqueue::testing::{
    Buf, DATA, F_INDIRECT, Format, Guest as Memory, Poster, WRITE, out, pattern, poster,
};

use super::arrivals::Arrivals;

/// Feature bit MRG_RXBUF.
pub const F_MERGEABLE: u64 = 1 << 15;
/// Bytes of a virtio-net header (with VERSION_1).
const HEADER: usize = 12;
/// Room for one chain's buffers, and a table of its descriptors behind them.
const STRIDE: u64 = 512;
const TABLE: u64 = STRIDE - 64;
/// As many as the guest's memory has room for.
const MOST_CHAINS: u64 = 256;
/// Where a frame's number is; its pair is in front of it.
const NUMBER: usize = 14;

/// What a guest is like.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub format: Format,
    pub size: u16,
    pub features: u64,
    pub pairs: u16,
    /// How many fifos lead from a ring to another.
    pub paths: usize,
}

/// What the guest shows meanwhile, and what it is asked for.
#[derive(Default)]
pub struct Signals {
    /// Chains that came back.
    pub moved: AtomicU64,
    /// Frames that are known to be lost.
    pub lost: AtomicU64,
    /// It is to send no more, and to end when all it has sent is there.
    pub stop_sending: AtomicBool,
    /// It is to say what is missing.
    pub give_up: AtomicBool,
}

/// What it has counted at the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets and bytes of frames that have arrived: all that were sent and not lost.
    pub frames: (u64, u64),
    /// Chains that came back, by virtqueue index.
    pub chains: Vec<u64>,
}

/// A running guest.
pub struct Guest {
    /// Of its rings, as they were when it started, by virtqueue index.
    pub configs: Vec<RingConfig>,
    pub signals: Arc<Signals>,
    thread: Option<JoinHandle<Tally>>,
}

impl Guest {
    pub fn start(setup: Setup) -> Guest {
        let (sender, configs) = crossbeam_channel::bounded(1);
        let signals = Arc::new(Signals::default());
        let heard = signals.clone();
        let thread = std::thread::spawn(move || {
            let mut pairs: Vec<Pair> = (0..setup.pairs).map(|index| Pair::new(index, setup)).collect();
            let configs = pairs.iter().flat_map(|pair| [&pair.rx, &pair.tx].map(|side| side.config.clone()));
            sender.send(configs.collect()).unwrap();
            live(&mut pairs, setup, &heard)
        });
        Guest { configs: configs.recv().unwrap(), signals, thread: Some(thread) }
    }

    /// Whether it has all, or found something wrong.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// What it counted, or what was wrong.
    pub fn join(&mut self) -> Result<Tally, String> {
        self.signals.stop_sending.store(true, Ordering::Relaxed);
        self.signals.give_up.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().map_err(|cause| text_of(&*cause))
    }
}

impl Drop for Guest {
    /// So that a thread that nobody waits for ends as well.
    fn drop(&mut self) {
        self.signals.give_up.store(true, Ordering::Relaxed);
    }
}

fn text_of(cause: &dyn Any) -> String {
    let text = cause.downcast_ref::<String>().cloned();
    text.or(cause.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn live(pairs: &mut [Pair], setup: Setup, signals: &Signals) -> Tally {
    let mut arrivals: Vec<_> = pairs.iter().map(|_| Arrivals::new(pairs.len(), setup.paths)).collect();
    let mut tally = Tally { chains: vec![0; 2 * pairs.len()], ..Tally::default() };
    loop {
        // Looked at first: what it orders is then done with a whole round more.
        let given_up = signals.give_up.load(Ordering::Relaxed);
        let sending = !signals.stop_sending.load(Ordering::Relaxed);
        let mut moved = 0;
        for (at, pair) in pairs.iter_mut().enumerate() {
            let sent = pair.tx.collect();
            let (chains, frames) = pair.receive();
            for frame in frames {
                let (from, number) = check(&frame);
                arrivals[from].add(at, number);
                tally.frames.0 += 1;
                tally.frames.1 += frame.len() as u64;
            }
            pair.post(sending);
            tally.chains[2 * at] += chains;
            tally.chains[2 * at + 1] += sent.len() as u64;
            moved += chains + sent.len() as u64;
        }
        signals.moved.fetch_add(moved, Ordering::Relaxed);
        let kept: usize = pairs.iter().map(|pair| pair.tx.posted.len()).sum();
        let missing: u64 =
            pairs.iter().zip(&arrivals).map(|(pair, arrivals)| pair.next - arrivals.count()).sum();
        let lost = signals.lost.load(Ordering::Relaxed);
        if !sending && kept == 0 && missing == lost {
            return tally;
        }
        assert!(
            !given_up,
            "{kept} chains were not returned, {missing} packets are missing, {lost} of them lost"
        );
        if moved == 0 {
            std::thread::yield_now();
        }
    }
}

/// A queue pair.
struct Pair {
    index: u16,
    rx: Side,
    tx: Side,
    /// Number of the next frame.
    next: u64,
    mergeable: bool,
}

impl Pair {
    fn new(index: u16, setup: Setup) -> Pair {
        let side = |ring| Side::new(poster(setup.format, setup.size, setup.features), ring);
        let mergeable = setup.features & F_MERGEABLE != 0;
        Pair { index, rx: side(2 * index), tx: side(2 * index + 1), next: 0, mergeable }
    }

    /// Posts what fits: buffers to receive in, and, if `sending`, frames.
    fn post(&mut self, sending: bool) {
        let room = if self.mergeable { 160 } else { TABLE as u32 };
        while self.rx.post(|_, at| vec![Buf { addr: at, len: room, flags: WRITE }]) {}
        while sending && self.tx.post(|guest, at| write(guest, at, &frame(self.index, self.next))) {
            self.next += 1;
        }
    }

    /// How many chains came back, and the frames in them.
    fn receive(&mut self) -> (u64, Vec<Vec<u8>>) {
        let back = self.rx.collect();
        let chains = back.len() as u64;
        let mut back = back.into_iter();
        let mut frames = Vec::new();
        while let Some(first) = back.next() {
            let spans = u16::from_le_bytes([first[10], first[11]]);
            let mut frame = first[HEADER..].to_vec();
            for _ in 1..spans {
                frame.extend(back.next().expect("a packet is shown as a whole"));
            }
            frames.push(frame);
        }
        (chains, frames)
    }
}

/// One virtqueue.
struct Side {
    poster: Box<dyn Poster>,
    config: RingConfig,
    /// Chains posted and not back yet: what they are called, and where they are.
    posted: VecDeque<(u16, u64)>,
    /// Chains posted at all times.
    count: u64,
}

impl Side {
    fn new(poster: Box<dyn Poster>, index: u16) -> Side {
        let config = RingConfig { index, ..poster.config() };
        Side { poster, config, posted: VecDeque::new(), count: 0 }
    }

    /// Posts a chain that `layout` makes at some place; whether there was room for it.
    fn post(&mut self, layout: impl Fn(&Memory, u64) -> Vec<Buf>) -> bool {
        if self.posted.len() == usize::from(self.config.size) {
            return false;
        }
        let at = DATA + STRIDE * (self.count % MOST_CHAINS);
        let bufs = layout(self.poster.guest(), at);
        // Every third that has several buffers is behind a table, if that may be.
        let table = self.config.features & F_INDIRECT != 0 && bufs.len() > 1 && self.count.is_multiple_of(3);
        let Some(id) = self.poster.post(&bufs, table.then_some(at + TABLE)) else { return false };
        self.posted.push_back((id, at));
        self.count += 1;
        true
    }

    /// What is in the chains that came back: each once, and in the order in which they were posted.
    fn collect(&mut self) -> Vec<Vec<u8>> {
        let back = self.poster.collect();
        let content = |(id, len): (u16, u32)| {
            let (due, at) = self.posted.pop_front().expect("no chain is out");
            assert_eq!(id, due, "ring {}: a chain came back where another was due", self.config.index);
            self.poster.guest().read(at, len as usize)
        };
        back.into_iter().map(content).collect()
    }
}

/// Writes a header and a frame at `at`, in one buffer or two.
fn write(guest: &Memory, at: u64, frame: &[u8]) -> Vec<Buf> {
    guest.write(at, &[0; HEADER]);
    guest.write(at + HEADER as u64, frame);
    let len = frame.len() as u32;
    match len % 2 {
        0 => vec![out(at, HEADER as u32 + len)],
        _ => vec![out(at, HEADER as u32), out(at + HEADER as u64, len)],
    }
}

/// What frame `number` of a pair is, from its length to its last byte.
fn frame(pair: u16, number: u64) -> Vec<u8> {
    let mut frame = pattern(number * 2 + u64::from(pair), 60 + (number * 7 % 340) as usize);
    frame[NUMBER - 2..NUMBER].copy_from_slice(&pair.to_le_bytes());
    frame[NUMBER..NUMBER + 8].copy_from_slice(&number.to_le_bytes());
    frame
}

/// Pair and number of a frame, all of which must be as it was sent.
fn check(bytes: &[u8]) -> (usize, u64) {
    let pair = u16::from_le_bytes(bytes[NUMBER - 2..NUMBER].try_into().unwrap());
    let number = u64::from_le_bytes(bytes[NUMBER..NUMBER + 8].try_into().unwrap());
    assert_eq!(bytes, frame(pair, number), "frame {number} of pair {pair} has changed");
    (pair.into(), number)
}
