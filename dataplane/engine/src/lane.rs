//! A lane: the part of a guest-nic wire that one worker polls.
//!
//! A wire between P guest pairs and N nic pairs has L = min(P, N) lanes. Lane l has every guest pair k and
//! every nic pair j with k mod L = j mod L = l, so that in each lane one side is a single pair and every
//! queue is in exactly one lane. The guest's pair k sends through nic pair k mod N; what nic pair j
//! receives goes to guest pair j mod P.

use dpdk::BURST_MAX;
use port::guest::{GuestPair, Limits};
use port::nic::NicPair;

/// What one queue may cost in a turn before the next one has its turn: bytes (the seed's budget), more for packets
/// in many pieces.
const TURN_COST: u64 = 0x80000;
/// Packets one queue may move in a turn.
const TURN_PACKETS: u64 = 4 * BURST_MAX as u64;

/// Names a lane for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneId(pub u64);

/// Queues that are polled together, by one owner.
pub struct Lane {
    /// Its name.
    pub id: LaneId,
    /// Guest pairs by rising index; none while the lane only sends what is left.
    pub guests: Vec<GuestPair>,
    /// Nic pairs by rising index; never empty.
    pub nics: Vec<NicPair>,
}

impl Lane {
    /// One turn at every queue. Whether any packet moved.
    #[inline]
    pub fn turn(&mut self) -> bool {
        self.guests_to_nic() | self.nic_to_guests()
    }

    /// Guest tx virtqueue -> burst -> nic tx queue. A full nic leaves packets held, and then the guest's
    /// ring is left alone until they are gone.
    #[inline(always)]
    fn guests_to_nic(&mut self) -> bool {
        let nics = self.nics.len();
        let mut moved = 0;
        for (k, guest) in self.guests.iter_mut().enumerate() {
            let nic = &mut self.nics[k % nics];
            let (mut packets, mut cost) = (0, 0);
            while packets < TURN_PACKETS && cost < TURN_COST && nic.flush() {
                let tx = &mut nic.tx;
                let limits = Limits { packets: BURST_MAX, cost: TURN_COST - cost, frame: tx.max_frame };
                let burst = guest.receive(&mut tx.held, limits, &tx.pool);
                packets += burst.packets;
                cost += burst.cost;
                nic.flush();
                if burst.packets < BURST_MAX as u64 {
                    break;
                }
            }
            moved += packets;
        }
        if self.guests.is_empty() {
            for nic in &mut self.nics {
                nic.flush();
            }
        }
        moved > 0
    }

    /// Nic rx queue -> burst -> guest rx virtqueue. No more is received than the guest has buffers for.
    #[inline(always)]
    fn nic_to_guests(&mut self) -> bool {
        let guests = self.guests.len();
        if guests == 0 {
            return false;
        }
        let mut moved = 0;
        for (j, nic) in self.nics.iter_mut().enumerate() {
            let guest = &mut self.guests[j % guests];
            let (mut packets, mut cost) = (0, 0);
            while packets < TURN_PACKETS && cost < TURN_COST {
                let received = if nic.rx.held.is_empty() {
                    let room = guest.room(BURST_MAX as u16);
                    if room == 0 { 0 } else { nic.receive(room).packets }
                } else {
                    0
                };
                if nic.rx.held.is_empty() {
                    break;
                }
                let sent = guest.send(&mut nic.rx.held, &nic.counters, TURN_COST - cost);
                nic.show_held();
                packets += received.max(sent.packets);
                cost += sent.cost;
                if sent.packets == 0 || received < BURST_MAX as u64 {
                    break;
                }
            }
            moved += packets;
        }
        moved > 0
    }
}
