//! Where a lane is looked at: all that passes it, seen from the ports at its two ends.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dpdk::mbuf::Mbuf;

use super::{Capture, Direction, Record, TURN, Tap};
use crate::guest::{Frames, GuestPair, Limits, Moved, Turn};
use crate::outbox::Outbox;
use crate::socket::{MAX_FRAME, SocketPair};

/// An end of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The guest's.
    Near,
    /// What is behind it.
    Far,
}

/// Whoever looks at what passes a lane: [`Taps`], or nobody, `()`, which costs nothing.
pub trait Watcher {
    /// A turn begins.
    fn turn(&mut self);

    /// All of `packets` have just come in, or are about to go out, at `side`.
    fn packets(&mut self, side: Side, pair: u16, direction: Direction, packets: &[Mbuf]);

    /// The same of packets on their way to a NIC.
    fn outbox(&mut self, side: Side, pair: u16, direction: Direction, packets: &Outbox);

    /// [`GuestPair::forward`]; `side` is the sender's.
    fn forward(&mut self, side: Side, from: &mut GuestPair, to: &mut GuestPair, limits: Limits) -> Moved;

    /// [`GuestPair::send_to`]: a turn of its own.
    fn send_to(&mut self, guest: &mut GuestPair, socket: &mut SocketPair, budget: u64) -> Turn;

    /// [`GuestPair::receive_from`]: a turn of its own.
    fn receive_from(&mut self, guest: &mut GuestPair, socket: &mut SocketPair, budget: u64) -> Turn;
}

impl Watcher for () {
    #[inline(always)]
    fn turn(&mut self) {}

    #[inline(always)]
    fn packets(&mut self, _: Side, _: u16, _: Direction, _: &[Mbuf]) {}

    #[inline(always)]
    fn outbox(&mut self, _: Side, _: u16, _: Direction, _: &Outbox) {}

    #[inline(always)]
    fn forward(&mut self, _: Side, from: &mut GuestPair, to: &mut GuestPair, limits: Limits) -> Moved {
        from.forward(to, limits)
    }

    #[inline(always)]
    fn send_to(&mut self, guest: &mut GuestPair, socket: &mut SocketPair, budget: u64) -> Turn {
        guest.send_to(socket, budget)
    }

    #[inline(always)]
    fn receive_from(&mut self, guest: &mut GuestPair, socket: &mut SocketPair, budget: u64) -> Turn {
        guest.receive_from(socket, budget)
    }
}

/// What looks at one lane.
pub struct Taps {
    near: Vec<Tap>,
    far: Vec<Tap>,
    /// For packets in several pieces.
    whole: Box<[u8]>,
    /// For frames that go from ring to ring, or to a socket.
    frames: Frames,
}

impl Taps {
    /// Those of `captures` that are of one of a lane's ports, if there are any.
    pub fn new(captures: &[Arc<Capture>], near: &str, far: &str) -> Option<Box<Taps>> {
        let of = |port: &str| -> Vec<Tap> {
            captures.iter().filter(|capture| capture.wanted.port == port).map(Capture::tap).collect()
        };
        let (near, far) = (of(near), of(far));
        let whole = || vec![0; MAX_FRAME].into();
        (!near.is_empty() || !far.is_empty())
            .then(|| Box::new(Taps { near, far, whole: whole(), frames: Frames::new() }))
    }

    fn see<'a>(
        &mut self,
        (side, pair, direction): (Side, u16, Direction),
        packets: impl Iterator<Item = &'a Mbuf> + Clone,
    ) {
        if packets.clone().next().is_none() {
            return;
        }
        let Taps { near, far, whole, .. } = self;
        let taps = if side == Side::Near { near } else { far };
        let mut at = None;
        for tap in taps.iter_mut().filter(|tap| tap.wants(pair, direction)) {
            // One look at the clock for all of them.
            let at = *at.get_or_insert_with(now);
            for mbuf in packets.clone() {
                let len = mbuf.pkt_len();
                let to_copy = if mbuf.nb_segs() == 1 { 0 } else { whole.len().min(len as usize) };
                let frame = Record { at, pair, direction, len, data: &[] };
                tap.see(frame, to_copy, || contiguous(mbuf, whole));
            }
        }
    }
}

/// Shows frames to those of `taps` that want them.
fn show<'a>(
    taps: &mut [Tap],
    (pair, direction): (u16, Direction),
    frames: impl Iterator<Item = (&'a [u8], u32)> + Clone,
) {
    let mut at = None;
    for tap in taps.iter_mut().filter(|tap| tap.wants(pair, direction)) {
        let at = *at.get_or_insert_with(now);
        for (data, len) in frames.clone() {
            tap.see(Record { at, pair, direction, len, data: &[] }, 0, || data);
        }
    }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// All of a packet in one piece; what is longer than any frame is cut.
fn contiguous<'a>(mbuf: &'a Mbuf, whole: &'a mut [u8]) -> &'a [u8] {
    if mbuf.nb_segs() == 1 {
        return mbuf.data();
    }
    let mut len = 0;
    for piece in mbuf.segments() {
        let more = piece.len().min(whole.len() - len);
        whole[len..len + more].copy_from_slice(&piece[..more]);
        len += more;
    }
    &whole[..len]
}

impl Watcher for Taps {
    fn turn(&mut self) {
        self.near.iter_mut().chain(&mut self.far).for_each(|tap| tap.left = TURN);
    }

    fn packets(&mut self, side: Side, pair: u16, direction: Direction, packets: &[Mbuf]) {
        self.see((side, pair, direction), packets.iter());
    }

    fn outbox(&mut self, side: Side, pair: u16, direction: Direction, packets: &Outbox) {
        self.see((side, pair, direction), packets.burst.iter().chain(&packets.behind));
    }

    fn forward(&mut self, side: Side, from: &mut GuestPair, to: &mut GuestPair, limits: Limits) -> Moved {
        let Taps { near, far, frames, .. } = self;
        let (moved, gone) = from.forward_seen(to, limits, frames);
        let (sender, receiver) = if side == Side::Near { (near, far) } else { (far, near) };
        show(sender, (from.index, Direction::Rx), frames.iter().take(gone));
        show(receiver, (to.index, Direction::Tx), frames.iter().take(gone));
        moved
    }

    fn send_to(&mut self, guest: &mut GuestPair, socket: &mut SocketPair, budget: u64) -> Turn {
        self.turn();
        let Taps { near, far, frames, .. } = self;
        let (from, to) = ((guest.index, Direction::Rx), (socket.index, Direction::Tx));
        guest.send_to_seen(socket, budget, frames, |frame, sent| {
            show(near, from, std::iter::once(frame));
            show(far, to, std::iter::once(frame).filter(|_| sent));
        })
    }

    fn receive_from(&mut self, guest: &mut GuestPair, socket: &mut SocketPair, budget: u64) -> Turn {
        self.turn();
        let Taps { near, far, .. } = self;
        let (from, to) = ((socket.index, Direction::Rx), (guest.index, Direction::Tx));
        guest.receive_from_seen(socket, budget, |frame| {
            let frame = (frame, frame.len() as u32);
            show(far, from, std::iter::once(frame));
            show(near, to, std::iter::once(frame));
        })
    }
}
