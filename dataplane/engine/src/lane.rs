//! A lane: the part of a wire between two ports that one owner works on.
//!
//! A wire between a guest's P pairs and N pairs behind them (a nic's, a socket's, another guest's) has L = min(P, N)
//! lanes. Lane l has every guest pair k and every far pair j with k mod L = j mod L = l, so that in each lane
//! one side is a single pair and every queue is in exactly one lane. The guest's pair k sends through far pair
//! k mod N; what far pair j receives goes to guest pair j mod P.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dpdk::BURST_MAX;
use dpdk::burst::Burst;
use dpdk::mbuf::Mbuf;
use port::capture::{Direction, Side, Taps, Watcher};
use port::counters::{Counter, DropReason};
use port::guest::{GuestPair, Limits};
use port::nic::NicPair;
use port::punt::Punt;
use port::socket::SocketPair;

/// What one queue may cost in a turn before the next one has its turn: bytes (the seed's budget), more for packets
/// in many pieces.
pub const TURN_COST: u64 = 0x80000;
/// Packets one queue may move in a turn.
const TURN_PACKETS: u64 = 4 * BURST_MAX as u64;
/// Longest frame from guest to guest: what a guest's segmentation may leave in one piece.
const LONGEST: u32 = 65535 + net::FRAME_OVERHEAD;
/// How long a lane that is taken apart may take to hand on what is under way.
const SETTLE_TIME: Duration = Duration::from_millis(100);
/// Packets of one queue that may be under way then: more than any queue is long. What is behind them came later.
const UNDER_WAY: u64 = 4096;

/// Names a lane for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneId(pub u64);

/// Queues that are worked on together, by one owner.
pub struct Lane {
    /// Its name.
    pub id: LaneId,
    /// Guest pairs by rising index; none while the lane only sends what is left.
    pub guests: Vec<GuestPair>,
    /// What is behind them.
    pub far: Far,
    /// The guest's way to the host itself, beside a nic.
    pub punt: Option<Box<PuntEnd>>,
    /// Who looks at what passes: captures.
    pub taps: Option<Box<Taps>>,
}

/// A lane's end of an exception path.
pub struct PuntEnd {
    pub punt: Arc<Punt>,
    /// What came from the host, and the guest has had no room for yet.
    held: Burst,
}

impl PuntEnd {
    /// Nothing is held.
    pub fn new(punt: Arc<Punt>) -> PuntEnd {
        PuntEnd { punt, held: Burst::new() }
    }

    /// Drops what is held.
    pub fn drop_held(&mut self, reason: DropReason) {
        self.punt.drop_held(&mut self.held, reason);
    }
}

/// The far side of a lane: pairs by rising index; never empty.
pub enum Far {
    /// A nic's; polled.
    Nic(Vec<NicPair>),
    /// Another guest's; polled.
    Guest(Vec<GuestPair>),
    /// A tap's or raw socket's; event driven.
    Socket(Vec<SocketPair>),
}

impl Lane {
    /// One turn at every queue, so many packets at a time. How many moved.
    #[inline]
    pub fn turn(&mut self, burst: u16) -> u64 {
        if self.taps.is_some() {
            return self.turn_watched(burst);
        }
        self.turn_with(burst, &mut ())
    }

    /// A turn with somebody looking.
    #[cold]
    #[inline(never)]
    fn turn_watched(&mut self, burst: u16) -> u64 {
        let Some(mut taps) = self.taps.take() else { return 0 };
        let moved = self.turn_with(burst, &mut *taps);
        self.taps = Some(taps);
        moved
    }

    #[inline(always)]
    fn turn_with(&mut self, burst: u16, watcher: &mut impl Watcher) -> u64 {
        watcher.turn();
        let guests = &mut self.guests;
        match &mut self.far {
            Far::Nic(nics) => {
                let punt = self.punt.as_mut();
                let punted = punt.map_or(0, |punt| host_to_guests(punt, guests, watcher));
                guests_to_nics(guests, nics, self.punt.as_deref(), burst, watcher)
                    + nics_to_guests(nics, guests, burst, watcher)
                    + punted
            }
            Far::Guest(others) => {
                guests_to_guests(Side::Near, guests, others, burst, watcher)
                    + guests_to_guests(Side::Far, others, guests, burst, watcher)
            }
            Far::Socket(_) => 0,
        }
    }

    /// What tells of work on a lane that is polled, if it was asked for; and where it is counted that it did.
    pub fn wakers(&self) -> Vec<(BorrowedFd<'_>, Option<&Counter>)> {
        let mut wakers: Vec<_> = self.guests.iter().flat_map(kicks).collect();
        match &self.far {
            Far::Nic(nics) => wakers.extend(nics.iter().filter_map(NicPair::interrupt).map(|fd| (fd, None))),
            Far::Guest(guests) => wakers.extend(guests.iter().flat_map(kicks)),
            Far::Socket(_) => {}
        }
        wakers
    }

    /// Asks both sides to tell of the next packet and of room for it. Whether all of them can; if not, the lane has to
    /// be looked at from time to time. What is there already has to be looked for once more.
    pub fn ask_for_wakers(&mut self) -> bool {
        let mut heard = true;
        let mut ask = |guest: &mut GuestPair| {
            guest.wait_for_sent();
            guest.wait_for_room();
            heard &= guest.kicks().iter().all(Option::is_some);
        };
        self.guests.iter_mut().for_each(&mut ask);
        match &mut self.far {
            Far::Nic(nics) => {
                for nic in nics {
                    nic.set_interrupts(true);
                    heard &= nic.interrupt().is_some() && !nic.holds_unsent();
                }
            }
            Far::Guest(guests) => guests.iter_mut().for_each(ask),
            Far::Socket(_) => {}
        }
        heard
    }

    /// The lane is polled again.
    pub fn poll_again(&mut self) {
        let poll = |guest: &mut GuestPair| {
            guest.poll_sent();
            guest.poll_room();
        };
        self.guests.iter_mut().for_each(poll);
        match &mut self.far {
            Far::Nic(nics) => nics.iter_mut().for_each(|nic| nic.set_interrupts(false)),
            Far::Guest(guests) => guests.iter_mut().for_each(poll),
            Far::Socket(_) => {}
        }
    }

    /// How many socket pairs are behind the guest's.
    pub fn sockets(&self) -> usize {
        if let Far::Socket(sockets) = &self.far { sockets.len() } else { 0 }
    }

    /// Hands on what is under way, for a tenth of a second at most: what was taken from one side goes to the other.
    /// What cannot be is dropped for `reason`, at the port it came in by; those that came from the guest are returned
    /// as a number, because there may be no guest pair left to count them. For whoever took the lane back, before
    /// its queues go separate ways.
    pub fn settle(&mut self, reason: DropReason) -> u64 {
        match self.taps.take() {
            Some(mut taps) => self.settle_with(reason, &mut *taps),
            None => self.settle_with(reason, &mut ()),
        }
    }

    fn settle_with(&mut self, reason: DropReason, watcher: &mut impl Watcher) -> u64 {
        let until = Instant::now() + SETTLE_TIME;
        let guests = &mut self.guests;
        match &mut self.far {
            Far::Nic(nics) => {
                settle_nics(nics, guests, until, watcher);
                nics.iter_mut().for_each(|nic| nic.drop_received(reason));
                nics.iter_mut().map(NicPair::discard_unsent).sum()
            }
            Far::Guest(_) => 0,
            Far::Socket(sockets) => {
                settle_sockets(sockets, guests, until, watcher);
                sockets.iter_mut().for_each(|socket| socket.drop_held(reason));
                0
            }
        }
    }
}

fn kicks(guest: &GuestPair) -> impl Iterator<Item = (BorrowedFd<'_>, Option<&Counter>)> {
    let rings = guest.kicks().into_iter().zip(guest.kicked());
    rings.filter_map(|(kick, counters)| Some((kick?.as_fd(), Some(&counters.kicks))))
}

/// Guest tx virtqueues -> nic tx queues.
#[inline(always)]
fn guests_to_nics(
    guests: &mut [GuestPair],
    nics: &mut [NicPair],
    punt: Option<&PuntEnd>,
    burst: u16,
    watcher: &mut impl Watcher,
) -> u64 {
    // One pair on either side: nearly all lanes.
    if let ([guest], [nic]) = (&mut *guests, &mut *nics) {
        return guest_to_nic(guest, nic, punt, burst, watcher);
    }
    let count = nics.len();
    let mut moved = 0;
    for (k, guest) in guests.iter_mut().enumerate() {
        moved += guest_to_nic(guest, &mut nics[k % count], punt, burst, watcher);
    }
    if guests.is_empty() {
        for nic in nics {
            nic.flush();
        }
    }
    moved
}

/// Guest tx virtqueue -> burst -> nic tx queue. A full nic leaves packets held, and then the guest's
/// ring is left alone until they are gone.
#[inline(always)]
fn guest_to_nic(
    guest: &mut GuestPair,
    nic: &mut NicPair,
    punt: Option<&PuntEnd>,
    burst: u16,
    watcher: &mut impl Watcher,
) -> u64 {
    if guest.is_idle() && !nic.holds_unsent() {
        return 0;
    }
    let (mut packets, mut cost) = (0, 0);
    while packets < TURN_PACKETS && cost < TURN_COST && nic.flush() {
        let tx = &mut nic.tx;
        let limits = Limits { packets: burst.into(), cost: TURN_COST - cost, frame: tx.max_frame };
        let received = guest.receive(&mut tx.held, limits);
        // All of it is new: whatever was held before is gone.
        watcher.outbox(Side::Near, guest.index, Direction::Rx, &tx.held);
        if let Some(end) = punt {
            end.punt.divert(&mut tx.held, guest);
        }
        if tx.held.unprepared {
            guest.count_drops(DropReason::OffloadRefused, nic.prepare());
        }
        watcher.outbox(Side::Far, nic.index, Direction::Tx, &nic.tx.held);
        packets += received.packets;
        cost += received.cost;
        nic.flush();
        if received.packets < u64::from(burst) {
            break;
        }
    }
    packets
}

/// What the host has sent -> guest rx virtqueue.
#[cold]
fn host_to_guests(end: &mut PuntEnd, guests: &mut [GuestPair], watcher: &mut impl Watcher) -> u64 {
    let Some(guest) = guests.first_mut() else { return 0 };
    let pair = guest.index;
    let see = |new: &[Mbuf]| watcher.packets(Side::Near, pair, Direction::Tx, new);
    end.punt.deliver(guest, &mut end.held, TURN_COST, see)
}

/// Nic rx queues -> guest rx virtqueues.
#[inline(always)]
fn nics_to_guests(
    nics: &mut [NicPair],
    guests: &mut [GuestPair],
    burst: u16,
    watcher: &mut impl Watcher,
) -> u64 {
    if let ([nic], [guest]) = (&mut *nics, &mut *guests) {
        return nic_to_guest(nic, guest, burst, watcher);
    }
    let count = guests.len();
    if count == 0 {
        return 0;
    }
    let mut moved = 0;
    for (j, nic) in nics.iter_mut().enumerate() {
        moved += nic_to_guest(nic, &mut guests[j % count], burst, watcher);
    }
    moved
}

/// Nic rx queue -> burst -> guest rx virtqueue. No more is received than the guest has buffers for.
#[inline(always)]
fn nic_to_guest(nic: &mut NicPair, guest: &mut GuestPair, burst: u16, watcher: &mut impl Watcher) -> u64 {
    let (mut packets, mut cost, mut moved) = (0, 0, 0);
    let judges = nic.rx.judges();
    while packets < TURN_PACKETS && cost < TURN_COST {
        let received = if nic.rx.held.is_empty() {
            let room = guest.room(burst);
            let packets = if room == 0 { 0 } else { nic.receive(room).packets };
            watcher.packets(Side::Far, nic.index, Direction::Rx, nic.rx.held.as_slice());
            watcher.packets(Side::Near, guest.index, Direction::Tx, nic.rx.held.as_slice());
            packets
        } else {
            0
        };
        if nic.rx.held.is_empty() {
            break;
        }
        let (held, budget) = (&mut nic.rx.held, TURN_COST - cost);
        let sent = if judges {
            guest.send_judged(held, &nic.counters, budget)
        } else {
            guest.send(held, &nic.counters, budget)
        };
        nic.show_held();
        packets += received.max(sent.packets);
        moved += sent.packets;
        cost += sent.cost;
        if sent.packets == 0 || received < u64::from(burst) {
            break;
        }
    }
    // What was received and has to wait will move when the guest has room.
    moved
}

/// Guest tx virtqueue -> guest rx virtqueue: one copy, no mbuf. What the receiver has no room for stays in the sender's
/// ring.
#[inline(always)]
fn guests_to_guests(
    side: Side,
    from: &mut [GuestPair],
    to: &mut [GuestPair],
    burst: u16,
    watcher: &mut impl Watcher,
) -> u64 {
    let count = to.len();
    let mut moved = 0;
    for (k, guest) in from.iter_mut().enumerate() {
        let receiver = &mut to[k % count];
        let (mut packets, mut cost) = (0, 0);
        while packets < TURN_PACKETS && cost < TURN_COST {
            let limits = Limits { packets: burst.into(), cost: TURN_COST - cost, frame: LONGEST };
            let done = watcher.forward(side, guest, receiver, limits);
            packets += done.packets;
            cost += done.cost;
            if done.packets < u64::from(burst) {
                break;
            }
        }
        moved += packets;
    }
    moved
}

/// Sends what is held, and lets the guests have what the nics have received so far.
fn settle_nics(nics: &mut [NicPair], guests: &mut [GuestPair], until: Instant, watcher: &mut impl Watcher) {
    let received = |nics: &[NicPair]| nics.iter().map(|nic| nic.counters.rx.packets.get()).sum::<u64>();
    let most = received(nics) + UNDER_WAY * nics.len() as u64;
    loop {
        watcher.turn();
        let unsent = nics.iter_mut().fold(false, |unsent, nic| unsent | (!nic.flush() && nic.link_up()));
        let moved = received(nics) < most && nics_to_guests(nics, guests, BURST_MAX as u16, watcher) > 0;
        let undelivered = !guests.is_empty() && nics.iter().any(|nic| nic.rx.waiting() > 0);
        if !(unsent || moved || undelivered) || Instant::now() > until {
            return;
        }
        if !moved {
            std::thread::yield_now();
        }
    }
}

/// Lets the guests have what the kernel has queued so far.
fn settle_sockets(
    sockets: &mut [SocketPair],
    guests: &mut [GuestPair],
    until: Instant,
    watcher: &mut impl Watcher,
) {
    let count = guests.len();
    if count == 0 {
        return;
    }
    for (j, socket) in sockets.iter_mut().enumerate() {
        let guest = &mut guests[j % count];
        let mut packets = 0;
        while packets < UNDER_WAY && Instant::now() < until {
            match watcher.receive_from(guest, socket, TURN_COST).moved.packets {
                0 => break,
                more => packets += more,
            }
        }
    }
}
