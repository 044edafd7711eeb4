//! The exception path: what a guest sends to the host itself goes from its worker over a bounded queue to the slow path,
//! and into a tap; what the host sends there goes the same way back.
#![allow(unsafe_code)] // the kernel reads packets out of mbufs

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use dpdk::burst::Burst;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::{Mempool, MempoolError};
use nix::libc::iovec;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::counters::{Counter, DropReason, PairCounters, Shared};
use crate::guest::{GuestPair, Stop};
use crate::nic::pool_name;
use crate::outbox::Outbox;
use crate::socket::{Arrived, Fault, HEADER_LEN, MAX_FRAME, SocketPair};

/// Packets that may be on their way, in each direction.
const QUEUE: usize = 256;
/// Mbufs for what the host sends, and their room: a frame of any interface with less than jumbo frames.
const MBUFS: u32 = 1023;
const ROOM: u16 = 2048;

/// Packet memory that an exception path needs, in bytes.
pub const MEMORY_BYTES: u64 = MBUFS as u64 * (ROOM as u64 + 512);

/// Which frames are for the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// ARP.
    pub arp: bool,
    /// IPv6 neighbour discovery: ICMPv6 types 133 to 137 (RFC 4861).
    pub nd: bool,
    /// LLDP (IEEE 802.1AB).
    pub lldp: bool,
    /// LACP and the other slow protocols (IEEE 802.3, annex 57A).
    pub lacp: bool,
    /// Whatever is sent to this address.
    pub mac: Option<[u8; 6]>,
}

impl Classes {
    /// Whether a frame, of which these are the first bytes, is in one of them.
    pub fn contain(&self, frame: &[u8]) -> bool {
        let Some((mac, _)) = frame.split_first_chunk::<6>() else { return false };
        if self.mac == Some(*mac) {
            return true;
        }
        let word = |at: usize| frame.get(at..at + 2).map_or(0, |word| u16::from_be_bytes([word[0], word[1]]));
        // Behind at most two VLAN tags.
        let tags = (0..2).take_while(|tag| [0x8100, 0x88a8].contains(&word(12 + 4 * tag))).count();
        let at = 12 + 4 * tags;
        match word(at) {
            0x0806 => self.arp,
            0x88cc => self.lldp,
            0x8809 => self.lacp,
            // IPv6 with ICMPv6 right behind the header, as neighbour discovery has it.
            0x86dd => {
                let (next, kind) = (frame.get(at + 8), frame.get(at + 42));
                self.nd && next == Some(&58) && kind.is_some_and(|kind| (133..=137).contains(kind))
            }
            _ => false,
        }
    }
}

/// The two queues of a guest's exception path.
pub struct Punt {
    classes: Classes,
    to_host: ArrayQueue<Mbuf>,
    to_guest: ArrayQueue<Mbuf>,
    /// Rings when there is something for the host.
    bell: EventFd,
    /// For what the host sends.
    pool: Mempool,
    /// The tap's.
    counters: Shared<PairCounters>,
    /// Packets from the guest that the kernel refused.
    pub refused: Counter,
}

impl Punt {
    /// An exception path into the tap that counts in `counters`.
    pub fn new(classes: Classes, counters: Shared<PairCounters>) -> Result<Arc<Punt>, PuntError> {
        let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .map_err(io::Error::from)?;
        Ok(Arc::new(Punt {
            classes,
            to_host: ArrayQueue::new(QUEUE),
            to_guest: ArrayQueue::new(QUEUE),
            bell,
            pool: Mempool::new(&pool_name("punt"), MBUFS, ROOM, 0, -1)?,
            counters,
            refused: Counter::default(),
        }))
    }

    /// Becomes readable when there is something for the host.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// How many packets are on their way to the host.
    pub fn held(&self) -> u64 {
        self.to_host.len() as u64
    }

    /// How many packets are on their way to the guest.
    pub fn held_for_guest(&self) -> u64 {
        self.to_guest.len() as u64
    }

    /// Takes what is for the host out of what `guest` has sent. Never waits: where the queue is full it is dropped.
    pub fn divert(&self, outbox: &mut Outbox, guest: &GuestPair) {
        let (mut diverted, mut dropped) = (0, 0);
        let mut divert = |mbuf| {
            diverted += 1;
            dropped += u64::from(self.to_host.push(mbuf).is_err());
        };
        let wanted = |mbuf: &Mbuf| self.classes.contain(mbuf.data());
        outbox.burst.remove_where(0, wanted, &mut divert);
        for _ in 0..outbox.behind.len() {
            match outbox.behind.pop_front() {
                Some(mbuf) if wanted(&mbuf) => divert(mbuf),
                other => outbox.behind.extend(other),
            }
        }
        if outbox.burst.is_empty() && !outbox.behind.is_empty() {
            outbox.move_up();
        }
        if diverted > 0 {
            guest.count_drops(DropReason::PuntFull, dropped);
            // A full counter is ringing already.
            let _ = self.bell.write(1);
        }
    }

    /// What the host has sent, as much as the guest has room for; `held` is what it had none for. What is new in there
    /// is shown to `see`.
    pub fn deliver(
        &self,
        guest: &mut GuestPair,
        held: &mut Burst,
        budget: u64,
        see: impl FnOnce(&[Mbuf]),
    ) -> u64 {
        if held.is_empty() && self.to_guest.is_empty() {
            return 0;
        }
        let (room, before) = (guest.room(dpdk::BURST_MAX as u16), held.len());
        while held.len() < room
            && let Some(mbuf) = self.to_guest.pop()
        {
            // There is room.
            let _ = held.push(mbuf);
        }
        see(&held.as_slice()[before..]);
        if held.is_empty() { 0 } else { guest.send(held, &self.counters, budget).packets }
    }

    /// Gives the host what is for it. Why it ended; [`Stop::GuestEmpty`] if that was all.
    pub fn give_host(&self, socket: &mut SocketPair, unsent: &mut Option<Mbuf>) -> Stop {
        loop {
            let Some(mbuf) = unsent.take().or_else(|| self.to_host.pop()) else { return Stop::GuestEmpty };
            let pieces = mbuf
                .segments()
                .map(|data| iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() });
            // SAFETY: all of it is the mbuf's own memory, which lives on.
            let sent = unsafe { socket.send(&[0; HEADER_LEN], pieces) };
            match sent {
                Ok(()) => {}
                Err(error) => match Fault::of(&error) {
                    Fault::Frame => self.refused.add(1),
                    fault => {
                        *unsent = Some(mbuf);
                        return stop(fault, &error);
                    }
                },
            }
        }
    }

    /// Takes what the host has sent. Why it ended; [`Stop::SocketEmpty`] if that was all.
    pub fn take_from_host(&self, socket: &mut SocketPair) -> Stop {
        loop {
            if socket.held.is_empty() {
                match socket.receive_whole() {
                    Ok(Arrived::Held) => {}
                    Ok(Arrived::Placed { .. }) => continue,
                    Err(error) => match Fault::of(&error) {
                        Fault::Again => return Stop::SocketEmpty,
                        Fault::Frame => continue,
                        fault => return stop(fault, &error),
                    },
                }
            }
            let reason = match self.copy(socket.held.frame()) {
                Ok(mbuf) => match self.to_guest.push(mbuf) {
                    Ok(()) => {
                        socket.release_held();
                        continue;
                    }
                    Err(_) => DropReason::PuntFull,
                },
                Err(reason) => reason,
            };
            socket.drop_held(reason);
        }
    }

    fn copy(&self, frame: &[u8]) -> Result<Mbuf, DropReason> {
        if frame.len() < net::MIN_FRAME as usize {
            return Err(DropReason::Runt);
        }
        let mut mbuf = self.pool.alloc().ok_or(DropReason::PuntFull)?;
        if frame.len() > usize::from(mbuf.room()) || frame.len() > MAX_FRAME {
            return Err(DropReason::Oversize);
        }
        mbuf.set_single_len(frame.len() as u16);
        mbuf.data_mut().copy_from_slice(frame);
        Ok(mbuf)
    }

    /// Drops what a lane holds that is taken apart.
    pub fn drop_held(&self, held: &mut Burst, reason: DropReason) {
        self.counters.dropped(reason, held.len() as u64);
        held.clear();
    }

    /// Throws away what is on its way: the packets from the guest are returned as a number.
    pub fn clear(&self, reason: DropReason) -> u64 {
        let to_guest = std::iter::from_fn(|| self.to_guest.pop()).count();
        self.counters.dropped(reason, to_guest as u64);
        std::iter::from_fn(|| self.to_host.pop()).count() as u64
    }
}

fn stop(fault: Fault, error: &io::Error) -> Stop {
    match fault {
        Fault::Again => Stop::SocketFull,
        _ => Stop::SocketFailed(error.raw_os_error().unwrap_or_default()),
    }
}

/// An exception path that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PuntError {
    /// Its packet memory.
    #[error("{0}")]
    Pool(#[from] MempoolError),
    /// Its eventfd.
    #[error("no eventfd: {0}")]
    Bell(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::Classes;

    const ALL: Classes =
        Classes { arp: true, nd: true, lldp: true, lacp: true, mac: Some([2, 0, 0, 0, 0, 9]) };

    fn frame(mac: [u8; 6], tags: &[u16], ethertype: u16, rest: &[u8]) -> Vec<u8> {
        let tags = tags.iter().flat_map(|tpid| [tpid.to_be_bytes(), [0, 5]]).flatten().collect::<Vec<u8>>();
        [&mac[..], &[2; 6], &tags, &ethertype.to_be_bytes(), rest].concat()
    }

    /// An IPv6 header, and the first byte behind it.
    fn ipv6(next: u8, kind: u8) -> Vec<u8> {
        let mut packet = vec![0; 41];
        (packet[6], packet[40]) = (next, kind);
        packet
    }

    #[test]
    fn each_class_is_told_by_its_frames() {
        let peer = [2, 0, 0, 0, 0, 1];
        for (bytes, without) in [
            (frame([0xff; 6], &[], 0x0806, &[0; 28]), Classes { arp: false, ..ALL }),
            (frame([0xff; 6], &[0x8100], 0x0806, &[0; 28]), Classes { arp: false, ..ALL }),
            (frame([0xff; 6], &[0x88a8, 0x8100], 0x0806, &[0; 28]), Classes { arp: false, ..ALL }),
            (frame([0x33, 0x33, 0, 0, 0, 1], &[], 0x86dd, &ipv6(58, 135)), Classes { nd: false, ..ALL }),
            (frame([1, 0x80, 0xc2, 0, 0, 0xe], &[], 0x88cc, &[0; 46]), Classes { lldp: false, ..ALL }),
            (frame([1, 0x80, 0xc2, 0, 0, 2], &[], 0x8809, &[0; 46]), Classes { lacp: false, ..ALL }),
            (frame([2, 0, 0, 0, 0, 9], &[], 0x0800, &[0; 46]), Classes { mac: None, ..ALL }),
        ] {
            assert!(ALL.contain(&bytes), "{bytes:x?}");
            assert!(!without.contain(&bytes), "{bytes:x?}");
        }
        for bytes in [
            frame(peer, &[], 0x0800, &[0; 46]),
            frame(peer, &[], 0x86dd, &ipv6(58, 128)),
            frame(peer, &[], 0x86dd, &ipv6(6, 135)),
            frame(peer, &[], 0x86dd, &[0; 8]),
            frame(peer, &[0x8100, 0x8100, 0x8100], 0x0806, &[0; 28]),
            vec![],
            vec![0xff; 13],
        ] {
            assert!(!ALL.contain(&bytes), "{bytes:x?}");
        }
    }
}
