//! What a guest leaves to a NIC.

use dpdk::mbuf::{Mbuf, TxOffload, flags};

use super::*;
use crate::guest::Limits;

/// What a NIC that takes so much is given of what the guest sends.
fn given(takes: Takes, format: Format, header: &[u8], frame: &[u8]) -> (Guest, NicPair, Vec<Mbuf>) {
    let (_, mut nic) = open_loop();
    let mut guest = Guest::new(format, CSUM | HOST_TSO);
    nic.tx.takes = takes;
    nic.set_guest(CSUM | HOST_TSO, false);
    guest.send(header, frame);
    let moved = guest.pair.receive(&mut nic.tx.held, Limits { packets: 64, cost: u64::MAX, frame: 1522 });
    assert_eq!(moved.packets, nic.tx.held.len() as u64);
    let held = &mut nic.tx.held;
    let mut mbufs: Vec<Mbuf> = std::iter::from_fn(|| held.burst.pop_front()).collect();
    mbufs.extend(held.behind.drain(..));
    (guest, nic, mbufs)
}

#[test]
fn a_nic_is_told_of_the_checksum_that_is_left() {
    let csum = Takes::TCP_CSUM | Takes::UDP_CSUM;
    for (shape, format) in
        [TCP4, TCP6, UDP4, UDP6, TAGGED].into_iter().flat_map(|it| FORMATS.map(|f| (it, f)))
    {
        let (_guest, nic, mbufs) = given(csum, format, &shape.leaves(0), &shape.partial());
        let [mbuf] = &mbufs[..] else { panic!("{} packets", mbufs.len()) };
        let network = if shape.v6 { flags::TX_IPV6 } else { flags::TX_IPV4 };
        let transport = if shape.tcp { flags::TX_TCP_CKSUM } else { flags::TX_UDP_CKSUM };
        assert_eq!(mbuf.ol_flags(), network | transport, "{shape:?}");
        let lens = TxOffload {
            l2_len: shape.l2() as u8,
            l3_len: (shape.l4() - shape.l2()) as u16,
            l4_len: (shape.header() - shape.l4()) as u8,
            tso_segsz: 0,
        };
        assert_eq!(mbuf.tx_offload(), lens, "{shape:?}");
        assert_eq!(mbuf.copy_to_vec(), shape.partial());
        assert!(nic.tx.held.unprepared);
        // And one that does not take it gets it done.
        let (_guest, nic, mbufs) = given(Takes::NOTHING, format, &shape.leaves(0), &shape.partial());
        assert_eq!((mbufs[0].ol_flags(), mbufs[0].copy_to_vec()), (0, shape.complete()));
        assert!(!nic.tx.held.unprepared);
    }
}

#[test]
fn a_nic_is_left_the_cutting_of_what_it_has_room_for() {
    let takes = Takes::TCP_CSUM | Takes::TSO4 | Takes::TSO6;
    for shape in [TCP4, TCP6, TAGGED].map(|shape| Shape { payload: 40_000, ..shape }) {
        let (_guest, _nic, mbufs) = given(takes, Format::Split, &shape.leaves(1400), &shape.partial());
        let [mbuf] = &mbufs[..] else { panic!("{} packets", mbufs.len()) };
        // A driver that does not say that it sums IPv4 headers is not asked to.
        let network = if shape.v6 { flags::TX_IPV6 } else { flags::TX_IPV4 };
        assert_eq!(mbuf.ol_flags(), network | flags::TX_TCP_SEG);
        assert_eq!((mbuf.tx_offload().tso_segsz, mbuf.nb_segs()), (1400, 20));
        assert_eq!(mbuf.copy_to_vec(), shape.partial());
    }
    // Segments that would be longer than the NIC's frames.
    let shape = Shape { payload: 40_000, ..TCP4 };
    let (_, mut nic) = open_loop();
    let mut guest = Guest::new(Format::Split, CSUM | HOST_TSO);
    nic.tx.takes = takes;
    nic.set_guest(CSUM | HOST_TSO, false);
    guest.send(&shape.leaves(1500), &shape.partial());
    guest.pair.receive(&mut nic.tx.held, Limits { packets: 64, cost: u64::MAX, frame: 1522 });
    assert!(nic.tx.held.is_empty());
    assert_eq!(guest.counters.pair.drops[DropReason::Oversize as usize].get(), 1);
}

#[test]
fn a_nic_that_sums_but_does_not_cut_sums_the_segments() {
    let takes = Takes::TCP_CSUM | Takes::UDP_CSUM;
    let shape = Shape { payload: 30_000, ..TCP6 };
    let (_guest, _nic, mbufs) = given(takes, Format::Packed, &shape.leaves(300), &shape.partial());
    // More than a burst.
    assert_eq!(mbufs.len(), 100);
    for mbuf in &mbufs {
        assert_eq!(mbuf.ol_flags(), flags::TX_IPV6 | flags::TX_TCP_CKSUM);
        assert_eq!(mbuf.tx_offload(), TxOffload { l2_len: 14, l3_len: 40, l4_len: 20, tso_segsz: 0 });
        let frame = mbuf.copy_to_vec();
        let one = Shape { payload: 300, ..TCP6 };
        assert_eq!(frame[one.field()..][..2], one.partial()[one.field()..][..2]);
    }
}

#[test]
fn what_may_go_to_the_host_is_complete() {
    let (_, mut nic) = open_loop();
    nic.tx.takes = Takes::TCP_CSUM;
    nic.set_guest(CSUM, true);
    assert_eq!(nic.tx.held.sending.takes, Takes::NOTHING);
    nic.set_guest(CSUM, false);
    assert_eq!(nic.tx.held.sending.takes, Takes::TCP_CSUM);
}
