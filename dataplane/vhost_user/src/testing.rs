//! A frontend and an engine for tests: raw messages on one side, a record of what happened on the other.

use std::collections::HashMap;
use std::fs::File;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use virtqueue::Ring;

use crate::{Channel, DeviceOptions, FrontendState, Link, Queues, SessionError, serve};

pub(crate) const NEED_REPLY: u32 = 8;
pub(crate) const ALL_PROTOCOL: u64 =
    1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 16;
/// VERSION_1, PROTOCOL_FEATURES.
pub(crate) const FEATURES: u64 = 1 << 32 | 1 << 30;
/// Where test memory is, for the guest and for the frontend.
pub(crate) const GUEST: u64 = 0x4000_0000;
pub(crate) const USER: u64 = 0x7000_0000_0000;

/// Tests that count the process's descriptors or mappings run one at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Descriptors this process has open.
pub(crate) fn open_fds() -> usize {
    // The first signal of all opens a file for those that follow.
    virtqueue::prepare_to_signal().unwrap();
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Mappings of files whose name contains `name`.
pub(crate) fn mappings(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(name)).count()
}

pub(crate) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

/// A memfd under a name of its own.
pub(crate) struct Guest {
    pub name: String,
    pub file: File,
    pub len: u64,
}

impl Guest {
    pub fn new(len: u64) -> Guest {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("vhost-user-test-{:05}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let file = File::from(memfd_create(&name, MemfdFlags::CLOEXEC).unwrap());
        file.set_len(len).unwrap();
        Guest { name, file, len }
    }

    pub fn mapped(&self) -> usize {
        mappings(&self.name)
    }

    /// Region `number` of as many as one likes, all backed by this file.
    pub fn region(&self, number: u64) -> [u64; 4] {
        [GUEST + number * self.len, self.len, USER + number * self.len, 0]
    }

    /// Publishes `chains` one-descriptor chains on the ring laid out by [`Client::set_up`].
    pub fn publish(&self, ring: u32, chains: u16) {
        let base = u64::from(ring) * RING_SPACE;
        let mut desc = GUEST.to_le_bytes().to_vec();
        desc.extend(64u32.to_le_bytes());
        desc.extend([0; 4]);
        self.file.write_all_at(&desc, base).unwrap();
        self.file.write_all_at(&chains.to_le_bytes(), base + AVAIL + 2).unwrap();
    }
}

/// Room each ring has in test memory; its areas lie at 0, AVAIL and USED.
pub(crate) const RING_SPACE: u64 = 0x1000;
const AVAIL: u64 = 0x200;
const USED: u64 = 0x400;
pub(crate) const SIZE: u32 = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Ring, base.
    Out(u16, u32),
    /// Ring, and whether test memory was still mapped.
    Back(u16, bool),
}

#[derive(Default)]
pub(crate) struct Record {
    pub events: Vec<Event>,
    pub states: Vec<FrontendState>,
    pub out: HashMap<u16, Ring>,
    pub link: Link,
    pub max_mtu: Option<u16>,
    pub announced: Vec<[u8; 6]>,
    pub channel: Option<Channel>,
    watched: String,
}

/// An engine that keeps rings and takes everything out of them when it gives them back.
#[derive(Clone, Default)]
pub(crate) struct Engine(Arc<Mutex<Record>>);

impl Engine {
    pub fn look(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap()
    }

    pub fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.look().events)
    }

    pub fn state(&self) -> FrontendState {
        self.look().states.last().cloned().unwrap_or_default()
    }
}

impl Queues for Engine {
    fn give_out(&mut self, ring: Ring) {
        let mut record = self.look();
        record.events.push(Event::Out(ring.index(), ring.base()));
        assert!(record.out.insert(ring.index(), ring).is_none(), "given out twice");
    }

    fn take_back(&mut self, index: u16) -> Option<Ring> {
        let mut record = self.look();
        let mapped = mappings(&record.watched) > 0;
        record.events.push(Event::Back(index, mapped));
        let mut ring = record.out.remove(&index).expect("taken back, but not out");
        let queue = ring.as_dyn();
        while queue.available(1).is_ok_and(|chains| chains > 0) && queue.take().is_ok() {}
        Some(ring)
    }

    fn observe(&mut self, state: &FrontendState) {
        self.look().states.push(state.clone());
    }

    fn link(&self) -> Link {
        self.look().link
    }

    fn max_mtu(&self) -> Option<u16> {
        self.look().max_mtu
    }

    fn announce(&mut self, mac: [u8; 6]) {
        let mut record = self.look();
        assert_eq!(record.states.last().unwrap().mac, Some(mac), "its address was not shown before");
        record.announced.push(mac);
    }

    fn set_channel(&mut self, channel: Option<Channel>) {
        self.look().channel = channel;
    }
}

/// A reply: its code and payload.
pub(crate) type Reply = (u32, Vec<u8>);

/// The frontend's side of a session that runs on a thread.
pub(crate) struct Client {
    pub stream: UnixStream,
    pub engine: Engine,
    pub stop: Arc<OwnedFd>,
    session: JoinHandle<Result<(), SessionError>>,
}

pub(crate) fn options(queue_pairs: u16) -> DeviceOptions {
    DeviceOptions { name: "vm1".into(), queue_pairs, mac: [2, 0, 0, 0, 0, 7], mtu: None, offloads: 0 }
}

impl Client {
    pub fn connect(queue_pairs: u16) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        Client::over(ours, theirs, options(queue_pairs))
    }

    pub fn over(stream: UnixStream, theirs: UnixStream, options: DeviceOptions) -> Client {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let engine = Engine::default();
        engine.look().watched = "vhost-user-test".into();
        let stop = Arc::new(event());
        let session = std::thread::spawn({
            let (mut engine, stop) = (engine.clone(), stop.clone());
            move || serve(theirs, &options, &mut engine, stop.as_fd())
        });
        Client { stream, engine, stop, session }
    }

    /// Sends bytes as they are, in one piece.
    pub fn raw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        assert_eq!(try_send(&self.stream, bytes, fds).unwrap(), bytes.len());
    }

    pub fn send(&self, code: u32, flags: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        self.raw(&message(code, flags, payload), fds);
    }

    /// The next reply; `None` when the connection is closed.
    pub fn reply(&mut self) -> Option<Reply> {
        let mut header = [0; 12];
        self.stream.read_exact(&mut header).ok()?;
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!(word(4), 5, "version 1, reply");
        let mut payload = vec![0; word(8) as usize];
        self.stream.read_exact(&mut payload).ok()?;
        Some((word(0), payload))
    }

    /// Sends a message whose reply the protocol fixes, and returns that.
    pub fn ask(&mut self, code: u32, payload: &[u8]) -> Vec<u8> {
        self.send(code, 0, payload, &[]);
        let (answered, payload) = self.reply().expect("a reply");
        assert_eq!(answered, code);
        payload
    }

    pub fn ask_u64(&mut self, code: u32) -> u64 {
        u64::from_ne_bytes(self.ask(code, &[]).try_into().unwrap())
    }

    /// Sends a message with NEED_REPLY; whether it was carried out.
    pub fn tell(&mut self, code: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        self.send(code, NEED_REPLY, payload, fds);
        let (answered, payload) = self.reply().expect("an ack");
        assert_eq!(answered, code);
        u64::from_ne_bytes(payload.try_into().unwrap()) == 0
    }

    pub fn tell_u64(&mut self, code: u32, value: u64) -> bool {
        self.tell(code, &value.to_ne_bytes(), &[])
    }

    /// A message about a ring, with a number.
    pub fn tell_ring(&mut self, code: u32, ring: u32, num: u32) -> bool {
        self.tell(code, &state(ring, num), &[])
    }

    /// A message about a ring, with or without an eventfd.
    pub fn tell_fd(&mut self, code: u32, ring: u64, fd: Option<BorrowedFd<'_>>) -> bool {
        let flag = if fd.is_some() { 0 } else { 0x100 };
        self.tell(code, &(ring | flag).to_ne_bytes(), fd.as_slice())
    }

    /// Everything up to SET_FEATURES.
    pub fn negotiate(&mut self) {
        self.negotiate_only(ALL_PROTOCOL);
    }

    /// The same with some protocol features.
    pub fn negotiate_only(&mut self, protocol: u64) {
        self.ask_u64(1);
        self.ask_u64(15);
        self.send(16, 0, &protocol.to_ne_bytes(), &[]);
        assert!(self.tell(3, &[], &[]));
        assert!(self.tell_u64(2, FEATURES));
    }

    pub fn set_table(&mut self, regions: &[(&Guest, [u64; 4])]) -> bool {
        let fds: Vec<_> = regions.iter().map(|(guest, _)| guest.file.as_fd()).collect();
        let regions: Vec<_> = regions.iter().map(|(_, region)| *region).collect();
        self.tell(5, &table(&regions), &fds)
    }

    pub fn set_areas(&mut self, ring: u32, user: u64) -> bool {
        self.tell(9, &areas(ring, user), &[])
    }

    /// Everything a ring needs, in QEMU's order; the last word says whether it was enabled.
    pub fn set_up(&mut self, ring: u32) -> bool {
        assert!(self.tell_ring(8, ring, SIZE));
        assert!(self.tell_ring(10, ring, 0));
        assert!(self.set_areas(ring, USER + u64::from(ring) * RING_SPACE));
        assert!(self.tell_fd(12, ring.into(), Some(event().as_fd())));
        assert!(self.tell_fd(13, ring.into(), Some(event().as_fd())));
        self.tell_ring(18, ring, 1)
    }

    /// A connected frontend with memory and both rings of the first pair running.
    pub fn running(guest: &Guest) -> Client {
        let mut client = Client::connect(1);
        client.negotiate();
        assert!(client.set_table(&[(guest, guest.region(0))]));
        assert!(client.set_up(0) && client.set_up(1));
        assert_eq!(client.engine.look().out.len(), 2);
        client.engine.events();
        client
    }

    pub fn get_base(&mut self, ring: u32) -> u32 {
        let reply = self.ask(11, &state(ring, 0));
        assert_eq!(reply[..4], ring.to_ne_bytes());
        u32::from_ne_bytes(reply[4..8].try_into().unwrap())
    }

    /// Whether the session still serves.
    pub fn alive(&mut self) -> bool {
        self.send(1, 0, &[], &[]);
        matches!(self.reply(), Some((1, payload)) if payload.len() == 8)
    }

    /// Closes the connection, and waits for the session.
    pub fn close(self) -> (Result<(), SessionError>, Engine) {
        drop(self.stream);
        (self.session.join().expect("no panic"), self.engine)
    }

    /// Waits for the session to end by itself.
    pub fn ended(self) -> (Result<(), SessionError>, Engine) {
        let ended = self.session.join().expect("no panic");
        (ended, self.engine)
    }

    /// As `ended`, without a look at the engine.
    pub fn session_end(self) -> Result<(), SessionError> {
        self.ended().0
    }

    pub fn is_over(&self) -> bool {
        self.session.is_finished()
    }
}

pub(crate) fn try_send(
    stream: &UnixStream,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> rustix::io::Result<usize> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
}

/// What is logged while its subscriber is the thread's.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn subscriber(&self) -> impl tracing::Subscriber + use<> {
        let log = self.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish()
    }

    pub fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().map(str::to_owned).collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) fn message(code: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let words = [code, 1 | flags, payload.len() as u32];
    let mut message: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    message.extend(payload);
    message
}

pub(crate) fn state(ring: u32, num: u32) -> Vec<u8> {
    [ring, num].into_iter().flat_map(u32::to_ne_bytes).collect()
}

pub(crate) fn areas(ring: u32, user: u64) -> Vec<u8> {
    let mut payload = state(ring, 0);
    payload.extend([user, user + USED, user + AVAIL, 0].into_iter().flat_map(u64::to_ne_bytes));
    payload
}

/// SET_MEM_TABLE's payload: guest address, size, user address, offset each.
pub(crate) fn table(regions: &[[u64; 4]]) -> Vec<u8> {
    let mut payload = state(regions.len() as u32, 0);
    payload.extend(regions.iter().flatten().flat_map(|word| word.to_ne_bytes()));
    payload
}

/// ADD_MEM_REG's and REM_MEM_REG's payload.
pub(crate) fn single(region: [u64; 4]) -> Vec<u8> {
    [0].into_iter().chain(region).flat_map(u64::to_ne_bytes).collect()
}

pub(crate) fn config(offset: u32, bytes: &[u8]) -> Vec<u8> {
    let mut payload = state(offset, bytes.len() as u32);
    payload.extend([0; 4]);
    payload.extend(bytes);
    payload
}
