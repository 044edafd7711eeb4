//! What a NIC says of its packets to a guest.

use dpdk::mbuf::{Mbuf, TxOffload, flags};

use super::*;

/// A packet in mbufs of `room` bytes, of which a NIC says `said`.
fn packet(pool: &Mempool, bytes: &[u8], said: u64, segment_size: u16) -> Mbuf {
    let mut packet: Option<Mbuf> = None;
    for piece in bytes.chunks(SEGMENT.into()) {
        let mut mbuf = pool.alloc().unwrap();
        mbuf.set_single_len(piece.len() as u16);
        mbuf.data_mut().copy_from_slice(piece);
        match &mut packet {
            Some(first) => first.append_segment(mbuf, piece.len() as u16),
            None => packet = Some(mbuf),
        }
    }
    let mut packet = packet.unwrap();
    packet.set_ol_flags(said);
    packet.set_tx_offload(TxOffload { tso_segsz: segment_size, ..TxOffload::default() });
    packet
}

/// What a guest with these features has received, of packets of which a NIC says something.
fn delivered(
    verdicts: Verdicts,
    format: Format,
    features: u64,
    packets: &[(&[u8], u64, u16)],
) -> (Vec<Heard>, NicPair) {
    let (nic, mut pair) = open_loop();
    pair.rx.verdicts = Some(verdicts);
    pair.set_guest(features, false);
    let mut guest = Guest::new(format, features);
    guest.post(60);
    for (bytes, said, size) in packets {
        pair.tx.held.burst.push(packet(&nic.pool, bytes, *said, *size)).unwrap();
    }
    assert!(pair.flush());
    let mut turns = 0;
    loop {
        if pair.rx.held.is_empty() {
            pair.receive(64);
        }
        if pair.rx.held.is_empty() {
            break;
        }
        let NicPair { rx, counters, .. } = &mut pair;
        match rx.judges() {
            true => guest.pair.send_judged(&mut rx.held, counters, u64::MAX),
            false => guest.pair.send(&mut rx.held, counters, u64::MAX),
        };
        turns += 1;
        assert!(turns < 100);
    }
    let received = guest.received();
    let drops: u64 = pair.counters.drops.iter().map(|count| count.get()).sum();
    assert_eq!(pair.counters.rx.packets.get(), received.len() as u64 + drops);
    let bytes: usize = received.iter().map(|(_, frame)| frame.len()).sum();
    assert!(drops > 0 || pair.counters.rx.bytes.get() == bytes as u64);
    (received, pair)
}

const SAYS: Verdicts = Verdicts { partial: true, lro: false };

#[test]
fn a_verdict_reaches_a_guest_that_hears_it() {
    let (right, wrong) = (TCP4.complete(), UDP6.partial());
    let packets: &[(&[u8], u64, u16)] = &[
        (&right, flags::RX_L4_CKSUM_GOOD, 0),
        (&wrong, flags::RX_L4_CKSUM_BAD, 0),
        (&right, 0, 0),
        (&right, flags::RX_L4_CKSUM_GOOD, 0),
    ];
    for (format, mergeable) in FORMATS.into_iter().flat_map(|it| [(it, 0), (it, MERGEABLE)]) {
        let (heard, nic) = delivered(SAYS, format, GUEST_CSUM | mergeable, packets);
        assert!(nic.rx.judges());
        let flags: Vec<u8> = heard.iter().map(|(header, _)| header[0]).collect();
        assert_eq!(flags, [DATA_VALID, 0, 0, DATA_VALID]);
        assert!(
            heard
                .iter()
                .zip(packets)
                .all(|((header, frame), sent)| header[1..10] == [0; 9] && frame == sent.0)
        );
        // One that does not is not told, and there is nothing to do for it.
        let deaf = Verdicts { partial: false, lro: false };
        let (heard, nic) = delivered(deaf, format, mergeable, packets);
        assert!(!nic.rx.judges());
        assert!(
            heard
                .iter()
                .zip(packets)
                .all(|((header, frame), sent)| header[..10] == [0; 10] && frame == sent.0)
        );
    }
}

#[test]
fn a_checksum_left_by_the_nic_is_left_to_the_guest_or_completed() {
    for shape in [TCP4, TCP6, UDP4, UDP6, TAGGED, Shape { payload: 7001, ..TCP6 }] {
        let partial = shape.partial();
        let packets: &[(&[u8], u64, u16)] = &[(&partial, flags::RX_L4_CKSUM_NONE, 0)];
        for format in FORMATS {
            let (heard, _) = delivered(SAYS, format, GUEST_CSUM | MERGEABLE, packets);
            let [(header, frame)] = &heard[..] else { panic!("{} packets", heard.len()) };
            assert_eq!((&header[..10], frame), (&shape.leaves(0)[..10], &partial), "{shape:?}");
            let (heard, _) = delivered(SAYS, format, MERGEABLE, packets);
            let [(header, frame)] = &heard[..] else { panic!("{} packets", heard.len()) };
            assert_eq!((&header[..10], frame), (&[0; 10][..], &shape.complete()), "{shape:?}");
        }
    }
}

/// UDP without a checksum has none to complete; of what is not TCP or UDP, nobody knows where it would be; and some
/// drivers say that none is right of what they have not looked at.
#[test]
fn a_checksum_that_is_not_left_stays_as_it_is() {
    let mut without = UDP4.partial();
    without[UDP4.field()..][..2].fill(0);
    let mut other = TCP4.partial();
    other[12..14].copy_from_slice(&[0x88, 0xb5]);
    let right = TCP4.complete();
    let packets: &[(&[u8], u64, u16)] = &[
        (&without, flags::RX_L4_CKSUM_NONE, 0),
        (&other, flags::RX_L4_CKSUM_NONE, 0),
        (&right, flags::RX_L4_CKSUM_GOOD, 0),
    ];
    for features in [0, GUEST_CSUM] {
        let (heard, nic) = delivered(SAYS, Format::Split, features, packets);
        assert_eq!(heard[0], (vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], without.clone()));
        assert_eq!((heard.len(), &heard[1].1), (2, &right));
        assert_eq!(nic.counters.drops[DropReason::BadOffload as usize].get(), 1);
    }
    let unlooked = Verdicts { partial: false, lro: false };
    let (heard, _) = delivered(unlooked, Format::Split, GUEST_CSUM, packets);
    assert_eq!(heard.iter().map(|(header, _)| header[0]).collect::<Vec<_>>(), [0, 0, DATA_VALID]);
    assert!(heard.iter().zip(packets).all(|((_, frame), sent)| frame == sent.0));
}

const LRO: Verdicts = Verdicts { partial: true, lro: true };

#[test]
fn what_the_nic_made_of_many_reaches_the_guest_whole_or_is_cut() {
    for shape in [TCP4, TCP6].map(|shape| Shape { payload: 20_000, ..shape }) {
        let partial = shape.partial();
        let said = flags::RX_LRO | flags::RX_L4_CKSUM_NONE;
        let small = TCP4.complete();
        let packets: &[(&[u8], u64, u16)] =
            &[(&small, flags::RX_L4_CKSUM_GOOD, 0), (&partial, said, 1400), (&small, 0, 0)];
        let (whole, _) = delivered(LRO, Format::Packed, GUEST_CSUM | GUEST_TSO | MERGEABLE, packets);
        assert_eq!(whole.len(), 3);
        assert_eq!((&whole[1].0[..10], &whole[1].1), (&shape.leaves(1400)[..10], &partial));
        assert_eq!((&whole[0].1, &whole[2].1), (&small, &small));
        for (features, flag) in [(GUEST_CSUM, NEEDS_CSUM), (0, 0)] {
            let (cut, _) = delivered(LRO, Format::Split, features, packets);
            assert_eq!(cut.len(), 17);
            assert_eq!((&cut[0].1, &cut[16].1), (&small, &small));
            let payload: Vec<u8> =
                cut[1..16].iter().flat_map(|(_, frame)| frame[shape.header()..].to_vec()).collect();
            assert_eq!(payload, partial[shape.header()..]);
            assert!(cut[1..16].iter().all(|(header, _)| header[0] == flag && header[1] == 0));
        }
    }
}

#[test]
fn what_waits_when_the_guest_changes_is_fit_for_the_next() {
    let (nic, mut pair) = open_loop();
    pair.rx.verdicts = Some(SAYS);
    pair.set_guest(GUEST_CSUM, false);
    pair.tx.held.burst.push(packet(&nic.pool, &TCP4.partial(), flags::RX_L4_CKSUM_NONE, 0)).unwrap();
    assert!(pair.flush());
    assert_eq!(pair.receive(64).packets, 1);
    pair.set_guest(0, false);
    assert_eq!((pair.rx.waiting(), pair.rx.held.len()), (1, 0));
    pair.receive(64);
    assert_eq!(pair.rx.held.as_slice()[0].copy_to_vec(), TCP4.complete());
    pair.drop_received(DropReason::WireRemoved);
    assert_eq!((pair.rx.waiting(), pair.counters.rx.packets.get()), (0, 1));
}
