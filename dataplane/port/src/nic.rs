//! The nic port: bursts out of and into the queue pairs of a DPDK ethdev.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dpdk::BURST_MAX;
use dpdk::burst::Burst;
use dpdk::ethdev::{self, Device, DeviceConfig, DeviceError, Link, RxQueue, TxQueue};
use dpdk::mbuf::Mbuf;
use dpdk::mempool::{Mempool, MempoolError};
use net::Takes;

use crate::counters::{DropReason, Lengths, PairCounters, Passed, Shared, shared};
use crate::guest::Moved;
use crate::outbox::Outbox;
use crate::socket::Interface;

mod judge;
mod offloads;

pub(crate) use judge::said;
pub(crate) use offloads::{Sending, Verdicts};

use judge::Judge;

/// Descriptors asked for per NIC queue; drivers round to what they can.
const DESCRIPTORS: u16 = 1024;
/// Bytes of an mbuf's data room where the NIC sends and receives packets in several segments.
const SEGMENT: u16 = 2048;
/// Mbufs an lcore keeps to itself.
const CACHE: u32 = 256;

/// Drivers over a socket of an interface, which say that its link is up whatever has become of it. Read in DPDK 22.11 and
/// 24.11.
const LINK_UNSEEN: [&str; 3] = ["net_af_packet", "net_af_xdp", "net_pcap"];

/// Bytes of a page, and of a pool's caches.
const PAGE: u64 = 4096;
const CACHES: u64 = 2 << 20;

/// More bursts than any NIC's ring holds.
const STALE_BURSTS: usize = 4096;

/// Bytes around an mbuf's data: its header, headroom, and the pool's own.
const AROUND: u64 = 512;

/// An mbuf's data room where a NIC sends or receives no packet in several segments: a whole frame.
fn whole_frame(mtu: Option<u16>) -> u16 {
    let frame = u32::from(mtu.unwrap_or(1500)) + net::FRAME_OVERHEAD;
    SEGMENT.max(frame.next_multiple_of(64).min(u32::from(u16::MAX) - 256) as u16)
}

/// Mbufs for every place one can be in at once: both rings, both held bursts, the caches. A pool is best
/// made of a power of two less one.
fn mbufs(queues: u16) -> u32 {
    let each = 2 * u32::from(DESCRIPTORS) + 4 * BURST_MAX as u32 + 2 * CACHE;
    (each * u32::from(queues)).next_power_of_two() - 1
}

/// A name for packet memory: short, as DPDK wants it, and no other has it, not even memory of a port of the same name
/// that was removed while one of its packets was somewhere still.
pub(crate) fn pool_name(kind: &str) -> String {
    static MADE: AtomicU64 = AtomicU64::new(0);
    format!("{kind}{}", MADE.fetch_add(1, Ordering::Relaxed))
}

/// Packet memory that a NIC of so many queue pairs needs at most, in bytes.
pub fn memory_bytes(queues: u16, mtu: Option<u16>) -> u64 {
    // Without hugepages DPDK puts no mbuf across two pages; and a pool has a cache for every lcore.
    let mbuf = (u64::from(whole_frame(mtu)) + AROUND).next_multiple_of(PAGE);
    u64::from(mbufs(queues)) * mbuf + CACHES
}

/// What to open, from the configuration.
#[derive(Clone, Debug)]
pub struct NicOptions<'a> {
    /// Port name.
    pub name: &'a str,
    /// PCI address or vdev devargs.
    pub device: &'a str,
    /// Queue pairs.
    pub queues: u16,
    /// MTU in bytes; the device's own when absent.
    pub mtu: Option<u16>,
    /// Whether to take frames for other addresses.
    pub promiscuous: bool,
    /// Whether it is to make one packet of many TCP segments, if it can (LRO).
    pub lro: bool,
}

/// A NIC that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// The device.
    #[error("nic {name}: {source}")]
    Device {
        /// Port name.
        name: String,
        /// What DPDK said.
        source: DeviceError,
    },
    /// Its packet memory.
    #[error("nic {name}: {source}")]
    Pool {
        /// Port name.
        name: String,
        /// What DPDK said.
        source: MempoolError,
    },
}

impl NicError {
    /// Whether there was no memory for its packets or its queues.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            NicError::Device { source, .. } => source.is_out_of_memory(),
            NicError::Pool { source, .. } => source.is_out_of_memory(),
        }
    }
}

/// The control side of an open NIC. It is closed when this and all its queue pairs are gone.
pub struct Nic {
    /// The device.
    pub port: Arc<ethdev::Port>,
    /// Where mbufs for it come from, those of guests that send through it included.
    pub pool: Mempool,
    /// Longest frame it sends, in bytes.
    pub max_frame: u32,
    /// Counters of each queue pair.
    pub counters: Vec<Shared<PairCounters>>,
    /// What the driver does not look at.
    interface: Option<Interface>,
    link_up: Arc<AtomicBool>,
}

/// One queue pair of a NIC: a value with one owner.
pub struct NicPair {
    /// Pair number.
    pub index: u16,
    /// What the NIC receives.
    pub rx: NicRx,
    /// What it sends.
    pub tx: NicTx,
    /// The pair's counters.
    pub counters: Shared<PairCounters>,
}

/// The receiving half of a queue pair.
pub struct NicRx {
    queue: RxQueue,
    /// Packets received that the guest has had no room for yet.
    pub held: Burst,
    /// Where the NIC says something about them that matters to the guest.
    judge: Option<Box<Judge>>,
    verdicts: Option<Verdicts>,
}

/// The sending half of a queue pair.
pub struct NicTx {
    queue: TxQueue,
    /// Packets that wait for room in the NIC's ring.
    pub held: Outbox,
    /// Longest frame the NIC sends, in bytes.
    pub max_frame: u32,
    /// What can be left to the NIC.
    takes: Takes,
    link_up: Arc<AtomicBool>,
}

impl Nic {
    /// Opens and starts a device, with its queue pairs.
    ///
    /// DPDK lets a device be asked for receive interrupts only before it is started, and workers may want to sleep at
    /// any time later; so each is asked. As long as nobody sleeps they are off, and the driver's packet path is the same.
    pub fn open(options: &NicOptions) -> Result<(Nic, Vec<NicPair>), NicError> {
        match Nic::open_with(options, true) {
            // No driver says beforehand that it has none, or not enough; some refuse to be configured or started then. A
            // device that failed so is not fit to be configured anew: it is closed.
            Err(NicError::Device { source, .. }) if source.is_from_driver() => {
                tracing::debug!(port = options.name, "opened once more, without interrupts: {source}");
                Nic::open_with(options, false)
            }
            opened => opened,
        }
    }

    fn open_with(options: &NicOptions, rx_interrupts: bool) -> Result<(Nic, Vec<NicPair>), NicError> {
        let name = || options.name.to_owned();
        let device_error = |source| NicError::Device { name: name(), source };
        let mut device = Device::probe(options.device).map_err(device_error)?;
        offloads::request(&mut device, options.lro);
        let info = device.info();
        let several = device.supports_multi_seg_tx() && device.supports_scatter_rx();
        let room = if several { SEGMENT } else { whole_frame(options.mtu) };
        let pool = Mempool::new(&pool_name("nic"), mbufs(options.queues), room, CACHE, info.socket)
            .map_err(|source| NicError::Pool { name: name(), source })?;
        let config = DeviceConfig {
            queue_pairs: options.queues,
            rx_descriptors: DESCRIPTORS,
            tx_descriptors: DESCRIPTORS,
            mtu: options.mtu,
            promiscuous: options.promiscuous,
            rx_interrupts,
            pool: &pool,
        };
        let started = device.start(config).map_err(device_error)?;
        let max_frame = u32::from(started.port.mtu()) + net::FRAME_OVERHEAD;
        let interface = interface(&started.port);
        let link_up = Arc::new(AtomicBool::new(is_up(&started.port, interface.as_ref())));
        let counters: Vec<Shared<PairCounters>> = started.rx.iter().map(|_| shared()).collect();
        let sending = Sending::of(&started.port, pool.data_room());
        let verdicts = Verdicts::of(&started.port);
        let queues = started.rx.into_iter().zip(started.tx).zip(&counters);
        let pairs = (0..).zip(queues).map(|(index, ((rx, tx), counters))| NicPair {
            index,
            rx: NicRx { queue: rx, held: Burst::new(), judge: None, verdicts },
            tx: NicTx {
                queue: tx,
                held: Outbox { sending, ..Outbox::new(pool.clone()) },
                max_frame,
                takes: sending.takes,
                link_up: link_up.clone(),
            },
            counters: counters.clone(),
        });
        let pairs = pairs.collect();
        Ok((Nic { port: started.port, pool, max_frame, counters, interface, link_up }, pairs))
    }

    /// The offloads in force, by DPDK's names.
    pub fn offloads(&self) -> Vec<&'static str> {
        offloads::names(&self.port)
    }

    /// Looks at the link again; while it is down, nothing is sent and guests are held back. Returns
    /// whether the link is up, and whether that is news.
    pub fn refresh_link(&self) -> (bool, bool) {
        let up = is_up(&self.port, self.interface.as_ref());
        (up, self.link_up.swap(up, Ordering::Relaxed) != up)
    }

    /// Whether the link was up when last looked at.
    pub fn link_up(&self) -> bool {
        self.link_up.load(Ordering::Relaxed)
    }

    /// The link: up if it was when last looked at, and what the driver says of it now.
    pub fn link(&self) -> Link {
        Link { up: self.link_up(), ..self.port.link() }
    }
}

/// The interface that a device has its link from, if its driver does not look at that. One that cannot be looked at is
/// none: then the driver's word counts.
fn interface(port: &ethdev::Port) -> Option<Interface> {
    let info = port.info();
    let unseen = info.if_index > 0 && LINK_UNSEEN.contains(&info.driver.as_str());
    unseen.then(|| Interface::here(info.if_index).ok()).flatten()
}

fn is_up(port: &ethdev::Port, interface: Option<&Interface>) -> bool {
    port.link().up && interface.is_none_or(Interface::is_up)
}

impl NicPair {
    /// Says what the guest acknowledged that the pair is for from now on. Whether some of what it sends goes to the
    /// `host`: that must be complete.
    pub fn set_guest(&mut self, features: u64, host: bool) {
        let NicTx { held, takes, .. } = &mut self.tx;
        held.sending.takes = if host { Takes::NOTHING } else { *takes };
        let (rx, takes) = (&mut self.rx, Takes::to_guest(features));
        let waiting = rx.waiting() > 0;
        if rx.judge.is_none() || !waiting {
            rx.judge = rx.verdicts.and_then(|verdicts| Judge::new(verdicts, takes, &held.pool)).map(Box::new);
        }
        // What waits was received for another guest, or for none.
        rx.judge.iter_mut().for_each(|judge| judge.retake(&mut rx.held, takes));
    }

    /// Receives up to `max` packets behind those held.
    #[inline(always)]
    pub fn receive(&mut self, max: usize) -> Moved {
        if self.rx.judge.is_some() {
            return self.receive_judged(max);
        }
        let held = &mut self.rx.held;
        let first = held.len();
        let packets = self.rx.queue.receive(held, max) as u64;
        if packets == 0 {
            return Moved::default();
        }
        let received = &held.as_slice()[first..];
        let lengths = Lengths::of(received);
        let bytes = lengths.bytes;
        self.counters.rx.add(packets, bytes);
        self.counters.rx.sizes.add_burst(lengths, received.iter().map(Mbuf::pkt_len));
        Moved { packets, bytes, cost: bytes }
    }

    /// The same from a NIC that says something about them.
    #[inline(never)]
    fn receive_judged(&mut self, max: usize) -> Moved {
        let NicRx { queue, held, judge, .. } = &mut self.rx;
        let Some(judge) = judge else { return Moved::default() };
        let judged = judge.receive(queue, held, max, &self.counters.rx.sizes);
        if judged.packets > 0 {
            self.counters.rx.add(judged.packets, judged.bytes);
        }
        if judged.bad > 0 {
            self.counters.dropped(DropReason::BadOffload, judged.bad);
        }
        Moved { packets: judged.ready, bytes: judged.bytes, cost: judged.bytes }
    }

    /// Lets the driver see what is left to it of the packets that came last, before they are sent. How many it refuses:
    /// they are gone, to be counted where they came from.
    #[cold]
    pub fn prepare(&mut self) -> u64 {
        let NicTx { queue, held, .. } = &mut self.tx;
        held.prepare(queue)
    }

    /// Sends what is held, as far as the NIC takes it; the rest stays, in order. Whether all is gone.
    #[inline(always)]
    pub fn flush(&mut self) -> bool {
        let NicTx { queue, held, link_up, .. } = &mut self.tx;
        if held.is_empty() {
            return true;
        }
        if !link_up.load(Ordering::Relaxed) {
            self.counters.tx_held.set(held.len() as u64);
            return false;
        }
        loop {
            send(queue, &mut held.burst, &self.counters.tx);
            let more = held.is_empty() && !held.behind.is_empty() && held.move_up();
            if !more {
                self.counters.tx_held.set(held.len() as u64);
                return held.is_empty();
            }
        }
    }

    /// Whether the link was up when last looked at.
    pub fn link_up(&self) -> bool {
        self.tx.link_up.load(Ordering::Relaxed)
    }

    /// The descriptor that becomes readable when a packet arrives while interrupts are on, if the NIC has one.
    pub fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.rx.queue.interrupt()
    }

    /// Switches interrupts on or off, if the NIC has any. Receive once more after switching them on: a packet that is
    /// there already may cause none.
    pub fn set_interrupts(&mut self, wanted: bool) {
        // A driver that was started without them may do anything when they are switched on.
        if self.interrupt().is_some() {
            self.rx.queue.set_interrupts(wanted);
        }
    }

    /// Whether packets wait to be sent.
    #[inline(always)]
    pub fn holds_unsent(&self) -> bool {
        !self.tx.held.is_empty()
    }

    /// Drops what was received and is still held.
    pub fn drop_received(&mut self, reason: DropReason) {
        self.counters.dropped(reason, self.rx.waiting() as u64);
        self.rx.held.clear();
        self.rx.judge.iter_mut().for_each(|judge| judge.clear());
        self.show_held();
    }

    /// Throws away what waits to be sent, and says how much, to be counted where it came from.
    pub fn discard_unsent(&mut self) -> u64 {
        let unsent = self.tx.held.len() as u64;
        self.tx.held.clear();
        self.counters.tx_held.set(0);
        unsent
    }

    /// Throws away what has arrived while nobody took it: it is late for whoever comes now.
    pub fn discard_arrived(&mut self) {
        let mut bursts = 0;
        while bursts < STALE_BURSTS && (self.receive(BURST_MAX).packets > 0 || self.rx.waiting() > 0) {
            self.drop_received(DropReason::NotConnected);
            bursts += 1;
        }
    }

    /// Shows how much is held of what was received.
    #[inline(always)]
    pub fn show_held(&self) {
        self.counters.rx_held.set(self.rx.waiting() as u64);
    }
}

/// Sends what the NIC takes of a burst, and counts that.
#[inline(always)]
fn send(queue: &mut TxQueue, burst: &mut Burst, counters: &Passed) {
    match Lengths::of(burst.as_slice()).each() {
        Some(len) => {
            let packets = queue.send(burst) as u64;
            if packets > 0 {
                counters.add(packets, packets * u64::from(len));
                counters.sizes.add_alike(packets, len);
            }
        }
        None => send_mixed(queue, burst, counters),
    }
}

/// Frames of different lengths: what is sent is gone, so that these are noted before.
#[inline(never)]
fn send_mixed(queue: &mut TxQueue, burst: &mut Burst, counters: &Passed) {
    let mut lens = [0; BURST_MAX];
    lens.iter_mut().zip(&*burst).for_each(|(len, mbuf)| *len = mbuf.pkt_len());
    let sent = &lens[..queue.send(burst)];
    if !sent.is_empty() {
        counters.add(sent.len() as u64, sent.iter().map(|len| u64::from(*len)).sum());
        counters.sizes.add_each(sent.iter().copied());
    }
}

impl NicRx {
    /// How many packets were received and are not gone.
    #[inline(always)]
    pub fn waiting(&self) -> usize {
        self.held.len() + self.judge.as_ref().map_or(0, |judge| judge.len())
    }

    /// Whether what the NIC says about them is to reach the guest: [`GuestPair::send_judged`](crate::guest::GuestPair).
    #[inline(always)]
    pub fn judges(&self) -> bool {
        self.judge.is_some()
    }
}

#[cfg(test)]
pub(crate) mod tests;
