//! A guest that sends and one that receives, each with one busy ring and one that is never used.

use std::collections::VecDeque;

use virtqueue::testing::{Buf, DATA, F_INDIRECT, Format, Guest, HOLE, Poster, into, out, poster};
use virtqueue::{Ring, RingConfig};

use crate::guest::{GuestCounters, GuestPair};

/// Feature bit MRG_RXBUF.
pub const F_MERGEABLE: u64 = 1 << 15;
/// Feature bit VERSION_1.
pub const F_VERSION_1: u64 = 1 << 32;

/// Bytes of a table, and where all of them are: behind the buffers, and none over the seam of two memory regions.
const TABLE: u64 = 16 * 8;
const TABLES: u64 = HOLE - 256 * TABLE;

/// What a guest is like.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub format: Format,
    pub size: u16,
    pub features: u64,
}

impl Setup {
    fn header(self) -> usize {
        if self.features & (F_MERGEABLE | F_VERSION_1) != 0 { 12 } else { 10 }
    }
}

/// One virtqueue, and memory for its buffers.
struct Side {
    poster: Box<dyn Poster>,
    /// Chains posted and not back yet, with their buffers.
    posted: VecDeque<(u16, Vec<Buf>)>,
    /// Where the next buffer goes, and the place of each chain's first one.
    next: u64,
    starts: VecDeque<u64>,
    /// Chains posted at all times.
    count: u64,
    indirect: bool,
}

impl Side {
    fn new(setup: Setup) -> Side {
        let indirect = setup.features & F_INDIRECT != 0;
        let poster = poster(setup.format, setup.size, setup.features);
        Side { poster, posted: VecDeque::new(), next: DATA, starts: VecDeque::new(), count: 0, indirect }
    }

    /// Memory that no posted chain has, in one piece of the guest's address space.
    fn place(&self, len: u64) -> Option<u64> {
        let Some(first) = self.starts.front().copied() else { return Some(DATA) };
        let wrapped = self.next <= first;
        match self.next + len {
            end if end <= if wrapped { first } else { TABLES } => Some(self.next),
            _ if !wrapped && DATA + len <= first => Some(DATA),
            _ => None,
        }
    }

    /// Posts a chain of buffers of these lengths, behind a table if it may be; where it is.
    fn post(&mut self, lens: &[u32], buf: fn(u64, u32) -> Buf, table: bool) -> Option<u64> {
        let len: u64 = lens.iter().map(|len| u64::from(*len)).sum();
        let table = (table && self.indirect).then_some(TABLES + TABLE * (self.count % 256));
        let at = self.place(len)?;
        let mut next = at;
        let bufs: Vec<Buf> = lens
            .iter()
            .map(|len| {
                next += u64::from(*len);
                buf(next - u64::from(*len), *len)
            })
            .collect();
        let id = self.poster.post(&bufs, table)?;
        self.posted.push_back((id, bufs));
        self.starts.push_back(at);
        self.next = next;
        self.count += 1;
        Some(at)
    }

    /// Posts a chain of just these buffers.
    fn post_as(&mut self, bufs: &[Buf]) {
        let id = self.poster.post(bufs, None).unwrap();
        self.posted.push_back((id, bufs.to_vec()));
        self.starts.push_back(self.starts.back().copied().unwrap_or(DATA));
    }

    /// What is in the chains that came back: each once, and in the order in which they were posted.
    fn collect(&mut self) -> Vec<Vec<u8>> {
        let back = self.poster.collect();
        let content = |(id, len): (u16, u32)| {
            let (due, bufs) = self.posted.pop_front().expect("no chain is out");
            self.starts.pop_front();
            assert_eq!(id, due, "a chain came back where another was due");
            let bytes = bufs.iter().flat_map(|buf| self.poster.guest().read(buf.addr, buf.len as usize));
            let bytes: Vec<u8> = bytes.take(len as usize).collect();
            assert_eq!(bytes.len(), len as usize, "more was written than there is room for");
            bytes
        };
        back.into_iter().map(content).collect()
    }

    fn ring(&self, index: u16) -> Ring {
        Ring::start(RingConfig { index, ..self.poster.config() }).unwrap()
    }
}

/// A guest that sends.
pub struct Sender {
    pub pair: GuestPair,
    pub counters: GuestCounters,
    /// Chains that came back.
    pub returned: u64,
    side: Side,
    header: usize,
}

impl Sender {
    pub fn new(setup: Setup) -> Sender {
        let (side, counters) = (Side::new(setup), GuestCounters::default());
        let pair = GuestPair::new("sender", side.ring(1), Side::new(setup).ring(0), &counters);
        Sender { pair, counters, returned: 0, side, header: setup.header() }
    }

    pub fn guest(&self) -> &Guest {
        self.side.poster.guest()
    }

    /// Sends a frame behind a header of no meaning, in buffers that end at `cuts`; whether there was room for it.
    pub fn send(&mut self, frame: &[u8], cuts: &[usize], table: bool) -> bool {
        let mut bytes = vec![0xa5; self.header];
        bytes.extend(frame);
        let mut ends: Vec<usize> = cuts.iter().copied().filter(|cut| *cut < bytes.len()).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        ends.dedup();
        let starts = [0].into_iter().chain(ends.iter().copied());
        let lens: Vec<u32> = ends.iter().zip(starts).map(|(end, start)| (end - start) as u32).collect();
        // Too many for this ring, and no table to put them in.
        let most = self.side.poster.config().size;
        let lens = if lens.len() > most.into() { vec![bytes.len() as u32] } else { lens };
        let Some(at) = self.side.post(&lens, out, table) else { return false };
        self.guest().write(at, &bytes);
        true
    }

    /// Sends a chain of just these buffers.
    pub fn post(&mut self, bufs: &[Buf]) {
        self.side.post_as(bufs);
    }

    /// Counts what came back.
    pub fn collect(&mut self) {
        self.returned += self.side.collect().len() as u64;
    }
}

/// A guest that receives.
pub struct Receiver {
    pub pair: GuestPair,
    pub counters: GuestCounters,
    /// Frames received.
    pub frames: Vec<Vec<u8>>,
    /// Chains that came back.
    pub used: u64,
    side: Side,
    setup: Setup,
    buffers: Vec<u32>,
    indirect: bool,
    /// Chains posted at most.
    most: usize,
}

impl Receiver {
    /// It posts chains of such buffers.
    pub fn new(setup: Setup, buffers: &[u32], indirect: bool) -> Receiver {
        let (side, counters) = (Side::new(setup), GuestCounters::default());
        let pair = GuestPair::new("receiver", Side::new(setup).ring(1), side.ring(0), &counters);
        let descs = if indirect && side.indirect { 1 } else { buffers.len() };
        let room: u32 = buffers.iter().sum();
        let memory = (TABLES - DATA) as usize / room as usize;
        let most = (usize::from(setup.size) / descs).min(memory);
        let buffers = buffers.to_vec();
        Receiver { pair, counters, frames: Vec::new(), used: 0, side, setup, buffers, indirect, most }
    }

    pub fn guest(&self) -> &Guest {
        self.side.poster.guest()
    }

    pub fn is_mergeable(&self) -> bool {
        self.setup.features & F_MERGEABLE != 0
    }

    /// Longest frame that it can ever take.
    pub fn longest(&self) -> usize {
        let chains = if self.is_mergeable() { self.most } else { 1 };
        chains * self.buffers.iter().sum::<u32>() as usize - self.setup.header()
    }

    /// Posts a chain; whether there was room for it.
    pub fn post(&mut self) -> bool {
        self.side.posted.len() < self.most && self.side.post(&self.buffers, into, self.indirect).is_some()
    }

    /// Posts a chain of just these buffers.
    pub fn post_as(&mut self, bufs: &[Buf]) {
        self.side.post_as(bufs);
    }

    /// Takes what came back, each packet as a whole.
    pub fn collect(&mut self) {
        let back = self.side.collect();
        self.used += back.len() as u64;
        let (header, mut back) = (self.setup.header(), back.into_iter());
        while let Some(mut bytes) = back.next() {
            assert_eq!(bytes[..10], [0; 10]);
            let spans = bytes[..header].get(10..12).map_or(1, |n| u16::from_le_bytes([n[0], n[1]]));
            assert!(spans == 1 || self.is_mergeable());
            for _ in 1..spans {
                bytes.extend(back.next().expect("a packet is shown as a whole"));
            }
            self.frames.push(bytes.split_off(header));
        }
    }
}
