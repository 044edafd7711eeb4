//! A queue that sends: frames are built in their buffers once; sending one again writes its timestamp and its
//! number, and offers its descriptor.

use crate::frame::{Checksum, FRAGMENTED, Template, Traffic, tail};
use crate::kick::Kick;
use crate::ring::{HEAD, HEADER_LEN, Pool, driver::Ring};

/// Most frames of which the start is kept ready (256 KiB).
const HEADS: usize = 4096;

/// Which packet is next.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    template: usize,
    flow: u32,
    sequence: u32,
}

/// A transmit queue with its frames.
#[derive(Debug)]
pub struct Generator {
    /// The virtqueue.
    pub ring: Ring,
    pool: Pool,
    /// Notification.
    pub kick: Kick,
    templates: Vec<Template>,
    /// The first bytes of each flow's frames in each size, if they are few and have no checksum to follow the
    /// stamp.
    heads: Vec<[u8; HEAD]>,
    /// One size, and flows that divide the ring: each buffer keeps its flow. The shift from packets to a
    /// flow's numbers.
    fixed: Option<u32>,
    flows: u32,
    flow_base: u32,
    epoch: u8,
    /// Packets handed to the backend since [`Generator::arm`].
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Generator {
    /// A queue that has nothing to send yet; with `gso` its frames are to be cut.
    pub fn new(mut ring: Ring, pool: Pool, kick: Kick, gso: bool) -> Generator {
        let packed = matches!(ring, Ring::Packed(_));
        let filling = tail(pool.room());
        ring.fill(|slot| {
            pool.write_header(slot, if gso { &FRAGMENTED } else { &[0; HEADER_LEN] });
            pool.write(slot, HEAD, &filling);
            let descriptor = pool.describe(slot, crate::frame::MIN, 0);
            if packed {
                pool.packed_table(slot, 0);
            }
            descriptor
        });
        Generator {
            ring,
            pool,
            kick,
            templates: Vec::new(),
            heads: Vec::new(),
            fixed: None,
            flows: 1,
            flow_base: 0,
            epoch: 0,
            sent: 0,
            bytes: 0,
        }
    }

    /// Prepares for a trial. If the backend has not returned everything, or not in order, each packet is
    /// written anew.
    pub fn arm(&mut self, traffic: &Traffic) {
        let template = |size: &usize| Template::new(*size, traffic.addresses, traffic.checksum);
        self.templates = traffic.sizes.iter().map(template).collect();
        (self.flows, self.flow_base, self.epoch) = (traffic.flows, traffic.flow_base, traffic.epoch);
        (self.sent, self.bytes) = (0, 0);
        self.heads.clear();
        if traffic.checksum != Checksum::Full && self.templates.len() * self.flows as usize <= HEADS {
            let flows = self.flow_base..self.flow_base + self.flows;
            let heads =
                self.templates.iter().flat_map(|t| flows.clone().map(|f| t.head(f, self.epoch, 0, 0)));
            self.heads = heads.collect();
        }
        let divides = self.flows.is_power_of_two() && self.flows <= self.ring.size();
        let fixed = divides && self.templates.len() == 1 && traffic.checksum != Checksum::Full;
        let fixed = fixed && self.ring.orderly() && self.ring.in_flight() == 0;
        self.fixed = fixed.then(|| self.flows.trailing_zeros());
        if fixed {
            for k in 0..self.ring.free() {
                self.write(k, self.cursor(u64::from(k)), 0);
            }
            let size = self.templates[0].size;
            let (pool, packed) = (&self.pool, matches!(self.ring, Ring::Packed(_)));
            self.ring.fill(|slot| {
                let descriptor = pool.describe(slot, size, 0);
                if packed {
                    pool.packed_table(slot, 0);
                }
                descriptor
            });
        }
    }

    /// Writes a packet into the buffer that is offered after `ahead` others.
    #[inline(always)]
    fn write(&mut self, ahead: u32, at: Cursor, now: u64) -> usize {
        let template = &self.templates[at.template];
        let slot = self.ring.next(ahead);
        match self.heads.get(at.template * self.flows as usize + at.flow as usize) {
            Some(head) => {
                self.pool.write_head(slot, head);
                self.pool.stamp(slot, 1, now, u64::from(at.sequence), 0);
            }
            None => {
                let head = template.head(self.flow_base + at.flow, self.epoch, now, at.sequence);
                self.pool.write_head(slot, &head);
            }
        }
        let size = template.size;
        if let Some(length) = self.pool.set_length(slot, size) {
            self.ring.set_length(ahead, length);
        }
        size
    }

    /// Where packet `number` is in its flow, and in the order of sizes.
    fn cursor(&self, number: u64) -> Cursor {
        let flows = u64::from(self.flows);
        Cursor {
            template: (number % self.templates.len() as u64) as usize,
            flow: (number % flows) as u32,
            sequence: (number / flows) as u32,
        }
    }

    /// The packet after `at`.
    #[inline(always)]
    fn advance(&self, at: &mut Cursor) {
        at.template = if at.template + 1 < self.templates.len() { at.template + 1 } else { 0 };
        at.flow += 1;
        if at.flow == self.flows {
            (at.flow, at.sequence) = (0, at.sequence.wrapping_add(1));
        }
    }

    /// Room for packets: descriptors that are free. Asks the backend only if `wanted` are not.
    #[inline(always)]
    pub fn room(&mut self, wanted: u32) -> u32 {
        if self.ring.free() < wanted {
            self.ring.reclaim();
        }
        self.ring.free()
    }

    /// Sends `count` packets, at most [`Generator::room`].
    #[inline(always)]
    pub fn send(&mut self, count: u32, now: u64) {
        match self.fixed {
            Some(shift) if self.ring.orderly() => {
                let first = self.ring.next(0);
                let before_end = count.min(self.ring.size() - first.number());
                self.pool.stamp(first, before_end, now, self.sent, shift);
                if before_end < count {
                    let rest = self.sent + u64::from(before_end);
                    self.pool.stamp(self.ring.next(before_end), count - before_end, now, rest, shift);
                }
                self.bytes += u64::from(count) * self.templates[0].size as u64;
            }
            _ => self.write_all(count, now),
        }
        self.publish(count);
    }

    #[inline(never)]
    fn write_all(&mut self, count: u32, now: u64) {
        let mut at = self.cursor(self.sent);
        let mut bytes = 0;
        for k in 0..count {
            bytes += self.write(k, at, now) as u64;
            self.advance(&mut at);
        }
        self.bytes += bytes;
    }

    /// Sends one packet that is not ours to make (echo): `head` are its first bytes, the rest follow by
    /// [`Generator::draft`]. Its length.
    pub fn send_draft(&mut self, length: usize) {
        let slot = self.ring.next(0);
        if let Some(length) = self.pool.set_length(slot, length) {
            self.ring.set_length(0, length);
        }
        self.bytes += length as u64;
        self.sent += 1;
        self.ring.offer(1);
    }

    /// Writes bytes of the packet that [`Generator::send_draft`] will send; false if they do not fit.
    pub fn draft(&mut self, at: usize, bytes: &[u8]) -> bool {
        self.pool.write(self.ring.next(0), at, bytes)
    }

    #[inline(always)]
    fn publish(&mut self, count: u32) {
        self.ring.offer(count);
        self.sent += u64::from(count);
        self.notify();
    }

    /// Tells the backend, if it wants to be told.
    #[inline(always)]
    pub fn notify(&mut self) {
        self.kick.after(&mut self.ring);
    }
}
