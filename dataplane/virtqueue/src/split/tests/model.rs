//! Random guests that behave well, against a reference.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::testing::*;

/// Each descriptor has a slice of memory of its own; one of them lies across the seam.
const STRIDE: u64 = 96;
const BUFFERS: u64 = SEAM - 700;
const TABLES: u64 = SEAM + 0x4000;

/// A chain to post: the lengths of its buffers, and how many of them are behind an indirect table.
#[derive(Clone, Debug)]
struct Layout {
    lens: Vec<u32>,
    indirect: usize,
}

fn layouts() -> impl Strategy<Value = Layout> {
    (prop::collection::vec(1..STRIDE as u32, 1..6), 0..6usize)
        .prop_map(|(lens, indirect)| Layout { indirect: indirect.min(lens.len()), lens })
}

/// The guest's half of the reference: which descriptors are free, and what was posted in them.
struct Poster {
    driver: Driver,
    free: Vec<u16>,
    /// Posted and not yet returned: head, its descriptors, its buffers.
    posted: Vec<(u16, Vec<u16>, Vec<Buf>)>,
}

impl Poster {
    fn new(size: u16, features: u64, start: u16) -> Poster {
        let driver = Driver::new(size, features).at(start.into());
        Poster { driver, free: (0..size).rev().collect(), posted: Vec::new() }
    }

    /// Links a chain of `layout` in free descriptors; `None` if there are too few. `fill` sees its buffers
    /// before it is published.
    fn post(&mut self, layout: &Layout, flags: u16, fill: impl FnOnce(&Guest, &[Buf])) -> Option<u16> {
        let direct = layout.lens.len() - layout.indirect;
        let needed = direct + usize::from(layout.indirect > 0);
        if needed > self.free.len() || layout.indirect > usize::from(self.driver.size) {
            return None;
        }
        let slots = self.free.split_off(self.free.len() - needed);
        let head = slots[0];
        // Buffers of a table lie in the slice of the descriptor that names it, so they must share it.
        let last = *slots.last().unwrap();
        let mut shared = BUFFERS + STRIDE * u64::from(last);
        let buf = |(i, len): (usize, &u32)| {
            if i < direct {
                return Buf { addr: BUFFERS + STRIDE * u64::from(slots[i]), len: *len, flags };
            }
            let len = (len / layout.indirect as u32).max(1);
            shared += u64::from(len);
            Buf { addr: shared - u64::from(len), len, flags }
        };
        let bufs: Vec<Buf> = layout.lens.iter().enumerate().map(buf).collect();
        fill(&self.driver.guest, &bufs);
        let mut chain = bufs[..direct].to_vec();
        if layout.indirect > 0 {
            let at = TABLES + (16 * u64::from(self.driver.size) + 16) * u64::from(last) + u64::from(head) % 3;
            chain.push(self.driver.table(at, &bufs[direct..]));
        }
        self.driver.post_in(&slots, &chain);
        self.posted.push((head, slots, bufs));
        Some(head)
    }

    /// Takes back what is used: each chain once, each known. Returns (head, length, buffers).
    fn collect(&mut self) -> Vec<(u16, u32, Vec<Buf>)> {
        let used = self.driver.used();
        let back = |(id, len)| {
            let at = self.posted.iter().position(|(head, ..)| *head == id);
            let (head, slots, bufs) = self.posted.remove(at.expect("a chain that is not posted was used"));
            self.free.extend(slots);
            (head, len, bufs)
        };
        used.into_iter().map(back).collect()
    }
}

#[derive(Clone, Debug)]
enum SendOp {
    Post(Layout),
    /// Take up to so many chains.
    Take(u16),
    /// Complete so many of the chains held, from a random place on.
    Complete(u16, usize),
    Publish,
    /// Where the driver wants its next call, relative to what it has seen.
    WantCall(i16),
    Kicks(bool),
    /// Give back all chains, stop the ring, start another.
    Restart,
}

fn send_ops() -> impl Strategy<Value = SendOp> {
    prop_oneof![
        6 => layouts().prop_map(SendOp::Post),
        4 => (1..20u16).prop_map(SendOp::Take),
        4 => (1..9u16, any::<usize>()).prop_map(|(n, at)| SendOp::Complete(n, at)),
        3 => Just(SendOp::Publish),
        1 => (-3..6i16).prop_map(SendOp::WantCall),
        1 => any::<bool>().prop_map(SendOp::Kicks),
        1 => Just(SendOp::Restart),
    ]
}

fn features(event_idx: bool) -> u64 {
    F_INDIRECT | if event_idx { F_EVENT_IDX } else { 0 }
}

proptest! {
    #![proptest_config(runs(256))]

    /// What the driver sends arrives complete and in order; each chain comes back once, with the length we
    /// gave; calls come when wished for.
    #[test]
    fn everything_sent_arrives_once_and_in_order(
        order in 0..6u32, start: u16, event_idx: bool, ops in prop::collection::vec(send_ops(), 1..120),
    ) {
        let mut guest = Poster::new(1 << order, features(event_idx), start);
        let mut ring = guest.driver.start();
        let (mut seed, mut used_at, mut first) = (0, start, true);
        let mut wish = 0;
        let mut sent: VecDeque<(u16, Vec<u8>)> = VecDeque::new();
        let mut held: Vec<u16> = Vec::new();
        let mut completed: Vec<(u16, u32)> = Vec::new();
        for op in ops {
            match op {
                SendOp::Post(layout) => {
                    let mut content = Vec::new();
                    let fill = |guest: &Guest, bufs: &[Buf]| for buf in bufs {
                        seed += 1;
                        let bytes = pattern(seed, buf.len as usize);
                        guest.write(buf.addr, &bytes);
                        content.extend(bytes);
                    };
                    if let Some(head) = guest.post(&layout, 0, fill) {
                        sent.push_back((head, content));
                    }
                }
                SendOp::Take(n) => {
                    let n = ring.available(n).unwrap().min(n);
                    prop_assert!(usize::from(n) <= sent.len());
                    for _ in 0..n {
                        let (token, content) = take(&mut ring).unwrap();
                        prop_assert_eq!((token.id, content), sent.pop_front().unwrap());
                        held.push(token.id);
                    }
                }
                SendOp::Complete(n, at) => for _ in 0..n.min(held.len() as u16) {
                    let head = held.swap_remove(at % held.len());
                    let len = u32::from(head) * 7 + completed.len() as u32;
                    ring.complete(token(head), len);
                    completed.push((head, len));
                },
                SendOp::Publish => {
                    let n = completed.len() as u16;
                    let wanted = if !event_idx { n > 0 } else { n > 0 && first || (0..n).any(|i| used_at.wrapping_add(i) == wish) };
                    let call = ring.publish();
                    first &= n == 0;
                    used_at = used_at.wrapping_add(n);
                    if !cfg!(miri) {
                        prop_assert_eq!(call == Call::Sent, wanted);
                        prop_assert_eq!(guest.driver.calls(0), u64::from(wanted));
                    }
                    let back: Vec<_> = guest.collect().into_iter().map(|(head, len, _)| (head, len)).collect();
                    prop_assert_eq!(back, std::mem::take(&mut completed));
                }
                SendOp::WantCall(ahead) => {
                    wish = guest.driver.seen.wrapping_add_signed(ahead);
                    guest.driver.set_used_event(wish);
                }
                SendOp::Kicks(wanted) => {
                    ring.set_kicks(wanted);
                    let old = guest.driver.avail;
                    let news = ring.has_news();
                    let fill = |guest: &Guest, bufs: &[Buf]| guest.write(bufs[0].addr, &[7]);
                    if let Some(head) = guest.post(&Layout { lens: vec![1], indirect: 0 }, 0, fill) {
                        sent.push_back((head, vec![7]));
                        // Whoever waits after asking is woken; whoever does not want to be, is not.
                        prop_assert_eq!(guest.driver.would_kick(old.into()) || news, wanted || news);
                    }
                }
                SendOp::Restart => {
                    for head in held.drain(..) {
                        ring.complete(token(head), 1);
                        completed.push((head, 1));
                    }
                    ring.publish();
                    guest.driver.calls(0);
                    used_at = used_at.wrapping_add(completed.len() as u16);
                    let back: Vec<_> = guest.collect().into_iter().map(|(head, len, _)| (head, len)).collect();
                    prop_assert_eq!(back, std::mem::take(&mut completed));
                    ring = guest.driver.start_at(ring.base());
                    first = true;
                }
            }
            let taken = guest.driver.avail.wrapping_sub(sent.len() as u16);
            prop_assert_eq!(ring.base(), u32::from(taken));
            prop_assert_eq!(ring.violation(), None);
        }
    }
}

#[derive(Clone, Debug)]
enum ReceiveOp {
    Post(Layout),
    /// A packet of so many bytes, and in so many chains at most.
    Packet(u32, u16),
    /// One of unknown length: room for so much is looked for, and so much of it is used.
    Arrival(u32, Option<u32>),
    Publish,
    Restart,
}

fn receive_ops() -> impl Strategy<Value = ReceiveOp> {
    prop_oneof![
        6 => layouts().prop_map(ReceiveOp::Post),
        4 => (HEADER..300u32, 1..5u16).prop_map(|(len, chains)| ReceiveOp::Packet(len, chains)),
        4 => (0..400u32, prop::option::of(1..300u32)).prop_map(|(most, len)| ReceiveOp::Arrival(most, len)),
        2 => Just(ReceiveOp::Publish),
        1 => Just(ReceiveOp::Restart),
    ]
}

const HEADER: u32 = 12;

proptest! {
    #![proptest_config(runs(256))]

    /// Every packet arrives whole and in order in the chains the reference says, or nothing is taken.
    #[test]
    fn everything_received_is_whole_and_in_order(
        order in 0..6u32, start: u16, event_idx: bool, ops in prop::collection::vec(receive_ops(), 1..120),
    ) {
        let size = 1 << order;
        let mut guest = Poster::new(size, features(event_idx), start);
        let mut ring = guest.driver.start();
        let mut rooms: VecDeque<(u16, u32, usize)> = VecDeque::new();
        let mut due: Vec<(u16, u32)> = Vec::new();
        let (mut seed, mut packets) = (0, Vec::new());
        for op in ops {
            match op {
                ReceiveOp::Post(mut layout) => {
                    // Room for the header in any place of the chain.
                    layout.lens[0] = layout.lens[0].max(if layout.indirect > 0 { 90 } else { 20 });
                    let mut room = 0;
                    let sum = |_: &Guest, bufs: &[Buf]| room = bufs.iter().map(|buf| buf.len).sum();
                    if let Some(head) = guest.post(&layout, WRITE, sum) {
                        rooms.push_back((head, room, guest.posted.last().unwrap().1.len()));
                    }
                }
                ReceiveOp::Packet(len, chains) => {
                    let (mut sum, mut needed) = (0, 0);
                    while sum < len && needed < rooms.len() && needed < usize::from(chains) {
                        sum += rooms[needed].1;
                        needed += 1;
                    }
                    let descs: usize = rooms.iter().take(needed).map(|(.., descs)| descs).sum();
                    let first = rooms.iter().take(needed).position(|(_, room, _)| *room < HEADER);
                    prop_assert_eq!(first, None, "the test posted a runt");
                    let expected = if sum >= len {
                        Reservation::Ready(needed as u16)
                    } else if needed == usize::from(chains) || descs == usize::from(size) {
                        Reservation::TooSmall
                    } else {
                        Reservation::Short
                    };
                    let before = ring.base();
                    let outcome = ring.reserve(len, HEADER, chains).unwrap();
                    prop_assert_eq!(outcome, expected);
                    if !matches!(outcome, Reservation::Ready(_)) {
                        prop_assert_eq!((ring.base(), ring.segments().len()), (before, 0));
                        continue;
                    }
                    seed += 1;
                    let packet = pattern(seed, len as usize);
                    prop_assert_eq!(Cursor::new(ring.segments()).write(&packet), len as usize);
                    packets.push(packet);
                    let mut left = len;
                    for (head, room, _) in rooms.drain(..needed) {
                        due.push((head, room.min(left)));
                        left -= room.min(left);
                    }
                }
                ReceiveOp::Arrival(most, len) => {
                    let enough = |(at, _): &(usize, _)| {
                        *at == 0 || rooms.iter().take(*at).map(|(_, room, _)| room).sum::<u32>() < most
                    };
                    let offered: Vec<_> = rooms.iter().enumerate().take_while(enough).map(|(_, room)| *room).collect();
                    let room = offered.iter().map(|(_, room, _)| room).sum();
                    let offer = ring.offer(most, HEADER, u16::MAX).unwrap();
                    prop_assert_eq!((usize::from(offer.chains), offer.room), (offered.len(), room));
                    let Some(mut left) = len.map(|len| len.min(room)).filter(|len| *len > 0) else {
                        ring.decline();
                        continue;
                    };
                    seed += 1;
                    let packet = pattern(seed, left as usize);
                    prop_assert_eq!(Cursor::new(ring.segments()).write(&packet), left as usize);
                    packets.push(packet);
                    let taken = ring.accept(left);
                    for (head, room, _) in rooms.drain(..usize::from(taken)) {
                        prop_assert!(left > 0, "a chain that is not needed");
                        due.push((head, room.min(left)));
                        left -= room.min(left);
                    }
                    prop_assert_eq!(left, 0);
                }
                ReceiveOp::Publish | ReceiveOp::Restart => {
                    ring.publish();
                    guest.driver.calls(0);
                    let mut arrived = Vec::new();
                    for (head, len, bufs) in guest.collect() {
                        prop_assert!(!due.is_empty());
                        prop_assert_eq!((head, len), due.remove(0));
                        let mut left = len as usize;
                        for buf in bufs {
                            let n = left.min(buf.len as usize);
                            arrived.extend(guest.driver.guest.read(buf.addr, n));
                            left -= n;
                        }
                    }
                    prop_assert!(due.is_empty());
                    prop_assert_eq!(arrived, packets.drain(..).flatten().collect::<Vec<u8>>());
                    if let ReceiveOp::Restart = op {
                        ring = guest.driver.start_at(ring.base());
                    }
                }
            }
        }
    }
}
