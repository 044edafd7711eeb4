//! A vhost-user session, fed with messages that were all sent before it starts, by a frontend that has
//! closed its half of the connection (or all of it): so it ends by itself, on this thread.
//!
//! The rings that come of it are given to a datapath that works on them a little.

use std::collections::HashMap;
use std::fs::File;
use std::io::{IoSlice, Read};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Once;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use vhost_user::features::all_offloads;
use vhost_user::{Channel, DeviceOptions, FrontendState, Link, Queues, SessionError, serve};
use virtqueue::{Cursor, Reservation, Ring};

use crate::input::Input;

/// Where the guest's memory is, for the guest and for the frontend.
const GUEST: u64 = 0x4000_0000;
const USER: u64 = 0x7000_0000_0000;
const PAGE: u64 = 0x1000;
/// Bytes of the file that backs it.
const MEMORY: u64 = 16 * PAGE;
/// Messages in one session: their replies fit the socket without anybody reading them.
const MESSAGES: usize = 56;
/// Version 1.
const VERSION: u32 = 1;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;
/// MQ, RARP, REPLY_ACK, NET_MTU, BACKEND_REQ, CONFIG, RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS.
const PROTOCOL: u64 = 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 16;
/// VERSION_1, PROTOCOL_FEATURES.
const FEATURES: u64 = 1 << 32 | 1 << 30;

/// Plays `data`.
pub fn run(data: &[u8]) {
    log_to_nowhere();
    let before = open_files();
    let mut input = Input::new(data);
    {
        let how = input.u8();
        let kit = Kit::new();
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let mut frontend = Frontend { stream: ours, kit, sent: 0 };
        // Many take their time.
        let pairs = if how > 0xf0 { 128 } else { [1, 2, 3, 0][usize::from(how & 3)] };
        if how & 4 != 0 {
            frontend.set_up(how & 8 != 0);
        }
        let leave = if how & 16 != 0 { input.u8() } else { 0 };
        frontend.play(&mut input);
        let Frontend { stream, kit, sent } = frontend;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).expect("an eventfd");
        let mut datapath = Datapath {
            out: HashMap::new(),
            state: None,
            channel: None,
            link: Link::default(),
            stop: &stop,
            leave,
        };
        let stream = if how & 32 != 0 {
            drop(stream);
            None
        } else {
            stream.shutdown(Shutdown::Write).expect("a socket");
            Some(stream)
        };
        let name = "vm1".to_owned();
        let mtu = (how & 64 != 0).then_some(1500);
        let options = DeviceOptions {
            name,
            queue_pairs: pairs,
            mac: [2, 0, 0, 0, 0, 7],
            mtu,
            offloads: all_offloads(),
        };
        let ended = serve(theirs, &options, &mut datapath, std::os::fd::AsFd::as_fd(&stop));
        check_end(ended);
        datapath.check();
        if let Some(stream) = stream {
            check_replies(stream, sent);
        }
        kit.check_unmapped();
    }
    assert_eq!(open_files(), before, "open file descriptors");
}

/// What is logged is formatted, too.
fn log_to_nowhere() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::sink).try_init();
    });
}

fn open_files() -> usize {
    // The first signal of all opens a file for those that follow.
    virtqueue::prepare_to_signal().expect("asynchronous requests");
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}

/// Nobody had to wait for anything.
fn check_end(ended: Result<(), SessionError>) {
    match ended {
        Ok(()) => {}
        Err(error @ (SessionError::Unfinished | SessionError::NotReading)) => panic!("it waited: {error}"),
        Err(error @ SessionError::Io(_)) => panic!("{error}"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Every reply is whole, and there are no more of them than messages.
fn check_replies(mut stream: UnixStream, sent: usize) {
    let mut bytes = Vec::new();
    // Reset: the session has left something unread.
    let _ = stream.read_to_end(&mut bytes);
    let mut rest = &bytes[..];
    for _ in 0..sent {
        if rest.is_empty() {
            return;
        }
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        assert!(rest.len() >= 12, "half a reply");
        assert_eq!(word(4), VERSION | REPLY, "flags of the reply to {}", word(0));
        let len = 12 + word(8) as usize;
        assert!(len <= rest.len(), "half a reply to {}", word(0));
        rest = &rest[len..];
    }
    assert!(rest.is_empty(), "more replies than messages");
}

/// What a frontend can attach to a message.
struct Kit {
    memory: OwnedFd,
    event: EventFd,
    null: File,
    pipe: (OwnedFd, OwnedFd),
    /// Not the session's own: with half a message, that would keep the connection open.
    socket: UnixStream,
}

impl Kit {
    fn new() -> Kit {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let memory = memfd_create(c"guest", flags).expect("a memfd");
        nix::unistd::ftruncate(&memory, MEMORY as i64).expect("room");
        Kit {
            memory,
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC).expect("an eventfd"),
            null: File::open("/dev/null").expect("/dev/null"),
            pipe: nix::unistd::pipe().expect("a pipe"),
            socket: UnixStream::pair().expect("a socket pair").0,
        }
    }

    fn pick(&self, number: u8) -> RawFd {
        match number & 7 {
            0..=2 => self.memory.as_raw_fd(),
            3 | 4 => self.event.as_raw_fd(),
            5 => self.null.as_raw_fd(),
            6 => self.pipe.1.as_raw_fd(),
            _ => self.socket.as_raw_fd(),
        }
    }

    /// A file that is mapped writable anywhere cannot be sealed against writing.
    fn check_unmapped(&self) {
        let sealed = fcntl(&self.memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE));
        assert_eq!(sealed, Ok(0), "guest memory is still mapped");
    }
}

struct Frontend {
    stream: UnixStream,
    kit: Kit,
    sent: usize,
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn state(ring: u32, num: u32) -> Vec<u8> {
    [ring, num].into_iter().flat_map(u32::to_ne_bytes).collect()
}

impl Frontend {
    /// Sends bytes as they are.
    fn raw(&self, bytes: &[u8], fds: &[RawFd]) {
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let sent = sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None);
        // Full: the session does not get to see it.
        assert!(matches!(sent, Ok(_) | Err(Errno::EAGAIN)), "{sent:?}");
    }

    fn send(&mut self, code: u32, flags: u32, payload: &[u8], fds: &[RawFd]) {
        let header = [code, VERSION ^ flags, payload.len() as u32];
        let mut message: Vec<u8> = header.into_iter().flat_map(u32::to_ne_bytes).collect();
        message.extend(payload);
        self.sent += 1;
        self.raw(&message, fds);
    }

    /// Everything up to two running rings, which find buffers if `busy`.
    fn set_up(&mut self, busy: bool) {
        let (memory, event) = (self.kit.memory.as_raw_fd(), self.kit.event.as_raw_fd());
        self.send(1, 0, &[], &[]);
        self.send(16, 0, &words(&[PROTOCOL]), &[]);
        self.send(3, NEED_REPLY, &[], &[]);
        self.send(2, NEED_REPLY, &words(&[FEATURES]), &[]);
        let mut table = state(1, 0);
        table.extend(words(&[GUEST, MEMORY, USER, 0]));
        self.send(5, NEED_REPLY, &table, &[memory]);
        for ring in 0..2 {
            self.send(8, 0, &state(ring, 16), &[]);
            self.send(9, 0, &areas(ring, ring.into()), &[]);
            self.send(12, 0, &words(&[ring.into()]), &[event]);
            self.send(13, 0, &words(&[ring.into()]), &[event]);
            self.send(18, NEED_REPLY, &state(ring, 1), &[]);
            if busy {
                self.post(ring.into());
            }
        }
    }

    /// Four buffers on the ring that [`areas`] puts into page `page`.
    fn post(&self, page: u64) {
        let file = File::from(self.kit.memory.try_clone().expect("a descriptor"));
        for desc in 0..4 {
            let flags = if page & 1 == 0 { 2 } else { 0 };
            let mut bytes = words(&[GUEST + 8 * PAGE + 256 * desc]);
            bytes.extend(state(200, flags));
            file.write_all_at(&bytes, page * PAGE + 16 * desc).expect("memory");
        }
        let avail: Vec<u8> = [0u16, 4, 0, 1, 2, 3].into_iter().flat_map(u16::to_ne_bytes).collect();
        file.write_all_at(&avail, page * PAGE + 0x200).expect("memory");
    }

    fn play(&mut self, input: &mut Input<'_>) {
        let file = File::from(self.kit.memory.try_clone().expect("a descriptor"));
        while !input.is_empty() && self.sent < MESSAGES {
            match input.u8() {
                kind @ 0..=199 => self.message(kind % 50, input),
                // What the guest wrote.
                200..=219 => {
                    let at = u64::from(input.u16()) % MEMORY;
                    let len = u64::from(input.u8() & 31).min(MEMORY - at);
                    file.write_all_at(input.bytes(len as usize), at).expect("memory");
                }
                220..=224 => self.post(u64::from(input.u8()) % 8),
                // Anything, in one piece or in several.
                kind => {
                    let len = input.u8();
                    let fds = self.fds(kind & 3, input);
                    let bytes = input.bytes(len.into());
                    if !bytes.is_empty() {
                        self.sent += 1;
                        self.raw(bytes, &fds);
                    }
                }
            }
        }
    }

    fn fds(&self, count: u8, input: &mut Input<'_>) -> Vec<RawFd> {
        (0..count).map(|_| self.kit.pick(input.u8())).collect()
    }

    /// A message that looks as it should, but for what the input wants otherwise.
    fn message(&mut self, code: u8, input: &mut Input<'_>) {
        let tweak = input.u8();
        let mut payload = match code {
            2 => words(&[FEATURES | u64::from(input.u16()) << 15 | u64::from(input.u8() & 7) << 32]),
            5 => {
                let count = 1 + input.u8() % 9;
                let mut table = state(count.into(), 0);
                (0..count.min(8)).for_each(|number| table.extend(words(&region(number, input))));
                table
            }
            16 => words(&[PROTOCOL ^ u64::from(input.u16())]),
            19 => words(&[u64::from(input.u16()) << 1 | u64::from(input.u8() & 1) << 40]),
            20 => words(&[input.u16().into()]),
            39 => words(&[input.u8().into()]),
            9 => areas(ring(input).into(), input.u8().into()),
            12..=14 => words(&[u64::from(ring(input)) | u64::from(tweak & 4) << 6]),
            8 | 10 | 11 | 18 => state(ring(input).into(), number(input)),
            24 | 25 => {
                let (offset, len) = (u32::from(input.u8()), input.u8());
                let mut config = state(offset, len.into());
                config.extend([0; 4]);
                config.extend(input.bytes(len.into()));
                config
            }
            37 | 38 => {
                let number = input.u8();
                words(&[&[0][..], &region(number, input)].concat())
            }
            1 | 3 | 4 | 15 | 17 | 21 | 34 | 36 | 40 => Vec::new(),
            _ => {
                let len = input.u8();
                input.bytes(len.into()).to_vec()
            }
        };
        let mut fds = match code {
            5 => vec![self.kit.memory.as_raw_fd(); payload[0].into()],
            37 => vec![self.kit.memory.as_raw_fd()],
            21 => vec![self.kit.socket.as_raw_fd()],
            12..=14 if tweak & 4 == 0 => vec![self.kit.event.as_raw_fd()],
            _ => Vec::new(),
        };
        if tweak & 16 != 0 {
            let at = usize::from(input.u8());
            if let Some(byte) = payload.get_mut(at) {
                *byte = input.u8();
            }
        }
        if tweak & 32 != 0 {
            fds = self.fds(input.u8() % 12, input);
        }
        if tweak & 64 != 0 {
            payload.resize(input.u8().into(), 0);
        }
        let flags = u32::from(tweak & 1) * NEED_REPLY;
        let odd = if tweak & 128 != 0 { u32::from(input.u8()) } else { 0 };
        self.send(code.into(), flags ^ odd, &payload, &fds);
    }
}

fn ring(input: &mut Input<'_>) -> u8 {
    let ring = input.u8();
    if ring < 240 { ring & 3 } else { ring }
}

fn number(input: &mut Input<'_>) -> u32 {
    match input.u8() {
        kind @ 0..=31 => [0, 1, 2, 16, 3, 256, 4, 1 << 15][usize::from(kind & 7)],
        32..=63 => 1 << 15 | u32::from(input.u8()),
        64..=95 => input.u32(),
        number => u32::from(number & 31),
    }
}

/// SET_VRING_ADDR, all areas in page `page`.
fn areas(ring: u32, page: u64) -> Vec<u8> {
    let at = USER + (page & 15) * PAGE + if page > 127 { page & 0x70 } else { 0 };
    let mut payload = state(ring, 0);
    payload.extend(words(&[at, at + 0x400, at + 0x200, 0]));
    payload
}

/// Guest address, size, user address, offset: region `number`, mostly.
fn region(number: u8, input: &mut Input<'_>) -> [u64; 4] {
    let number = u64::from(number & 7);
    let mut region = [GUEST + number * MEMORY, MEMORY, USER + number * MEMORY, 0];
    let kind = input.u8();
    if kind & 1 != 0 {
        // Half of the file.
        region[1] /= 2;
        region[3] = region[1] * u64::from(kind >> 1 & 1);
    }
    if kind & 128 != 0 {
        region[usize::from(kind >> 2 & 3)] = input.u64();
    }
    region
}

/// Who runs the rings.
struct Datapath<'a> {
    out: HashMap<u16, Ring>,
    state: Option<FrontendState>,
    channel: Option<Channel>,
    /// Another one at each look.
    link: Link,
    stop: &'a EventFd,
    /// After so many observations the session is asked to stop; 0: never.
    leave: u8,
}

impl Datapath<'_> {
    fn check(&self) {
        assert!(self.out.is_empty(), "rings that were not taken back");
        assert!(self.channel.is_none(), "a channel that was not taken back");
        let state = self.state.as_ref().expect("at least one observation");
        assert!(!state.connected && state.memory_regions == 0, "{state:?}");
        assert_eq!((state.mtu, state.mac, state.status), (None, None, 0));
        assert!(state.queues.iter().all(|queue| !queue.started), "{state:?}");
    }
}

impl Queues for Datapath<'_> {
    fn give_out(&mut self, mut ring: Ring) {
        work(&mut ring);
        let index = ring.index();
        assert!(self.out.insert(index, ring).is_none(), "ring {index} given out twice");
    }

    fn take_back(&mut self, index: u16) -> Option<Ring> {
        let mut ring = self.out.remove(&index).expect("a ring that was given out");
        work(&mut ring);
        Some(ring)
    }

    fn observe(&mut self, state: &FrontendState) {
        assert_ne!(self.state.as_ref(), Some(state), "nothing new");
        for (index, queue) in state.queues.iter().enumerate() {
            assert_eq!(queue.started, self.out.contains_key(&(index as u16)), "ring {index}");
        }
        assert!(state.mtu.is_none_or(|mtu| (68..=9000).contains(&mtu)), "{state:?}");
        assert!(state.mac.is_none_or(|mac| mac[0] & 1 == 0), "{state:?}");
        self.state = Some(state.clone());
        if let Some(channel) = &mut self.channel {
            self.link.up = !self.link.up;
            channel.tell(self.link);
        }
        if self.leave > 0 {
            self.leave -= 1;
            if self.leave == 0 {
                self.stop.write(1).expect("an eventfd");
            }
        }
    }

    fn link(&self) -> Link {
        self.link
    }

    fn max_mtu(&self) -> Option<u16> {
        Some(9000)
    }

    fn announce(&mut self, mac: [u8; 6]) {
        assert_eq!(
            self.state.as_ref().and_then(|state| state.mac),
            Some(mac),
            "its address was not shown before"
        );
    }

    fn set_channel(&mut self, channel: Option<Channel>) {
        self.channel = channel;
    }
}

/// A burst of packets, whatever the guest may have put there.
fn work(ring: &mut Ring) {
    let receives = ring.index().is_multiple_of(2);
    let ring = ring.as_dyn();
    for _ in 0..8 {
        if receives {
            let Ok(Reservation::Ready(_)) = ring.reserve(300, 12, 8) else { break };
            Cursor::new(ring.segments()).write(&[7; 300]);
        } else {
            if ring.available(1).unwrap_or(0) == 0 {
                break;
            }
            let Ok(Some(taken)) = ring.take() else { break };
            let mut packet = [0; 300];
            Cursor::new(taken.segments).read(&mut packet);
            let token = taken.token;
            ring.complete(token, 0);
        }
    }
    ring.publish();
    ring.set_kicks(true);
}
