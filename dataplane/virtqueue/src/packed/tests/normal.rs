//! What a well-behaved guest sends: every layout, size and place in the ring.

use super::*;
use crate::testing::packed::*;
use crate::testing::*;

const SIZE: u16 = 8;
const ID: u16 = 0xbeef;

/// Posts `bufs` filled with a pattern at `start`, and takes them.
fn send(
    start: u64,
    features: u64,
    bufs: &[Buf],
    post: impl FnOnce(&mut Driver, &[Buf]),
) -> (Driver, PackedRing) {
    let mut driver = Driver::new(SIZE, features).at(start);
    let content = pattern(1, bufs.iter().map(|buf| buf.len as usize).sum());
    let mut at = 0;
    for buf in bufs {
        driver.guest.write(buf.addr, &content[at..at + buf.len as usize]);
        at += buf.len as usize;
    }
    let mut ring = driver.start();
    assert_eq!(ring.available(8), Ok(0));
    post(&mut driver, bufs);
    let descs = (driver.avail - start) as u16;
    assert_eq!(ring.available(8), Ok(descs));
    assert_eq!(take(&mut ring), Ok((Token { id: ID, descs }, content)));
    ring.complete(Token { id: ID, descs }, 0);
    assert_eq!(driver.used(), []);
    ring.publish();
    assert_eq!(driver.used(), [(ID, 0)]);
    assert_eq!(ring.base(), driver.base(start + u64::from(descs)));
    (driver, ring)
}

fn bufs() -> Vec<Buf> {
    (0..8).map(|i| out(DATA + 1000 * i, 10 + i as u32)).collect()
}

/// On both laps, and across the ring's end.
#[test]
fn chains_of_any_number_anywhere() {
    for (start, n) in (0..16).flat_map(|start| (1..=8).map(move |n| (start, n))) {
        let (driver, ring) = send(start, 0, &bufs()[..n], |driver, bufs| driver.post(ID, bufs));
        let lent: Vec<_> = bufs()[..n].iter().map(|buf| (buf.addr, buf.len as usize)).collect();
        assert_eq!(ranges(&driver, &ring), lent);
    }
}

/// The table need not be aligned; its flags but WRITE, and its ids, mean nothing.
#[test]
fn indirect_descriptors_of_any_number() {
    for (n, at) in (1..=8).flat_map(|n| [(n, SEAM), (n, SEAM + 3)]) {
        send(n as u64 + 4, F_INDIRECT, &bufs()[..n], |driver, bufs| {
            let table = driver.table(at, bufs);
            driver.post(ID, &[table]);
        });
    }
}

/// Virtio 1.2, 2.8.7: "In descriptors with VIRTQ_DESC_F_INDIRECT set VIRTQ_DESC_F_WRITE is reserved and is
/// ignored by the device."
#[test]
fn the_direction_of_an_indirect_descriptor_means_nothing() {
    send(3, F_INDIRECT, &[out(DATA, 9)], |driver, bufs| {
        let table = driver.table(SEAM, bufs);
        driver.post(ID, &[Buf { flags: INDIRECT | WRITE, ..table }]);
    });
}

#[test]
fn flags_nobody_defined_mean_nothing() {
    send(7, 0, &[out(DATA, 9), out(DATA + 50, 9)], |driver, bufs| {
        driver.post(ID, &[Buf { flags: 0x7f78, ..bufs[0] }, Buf { flags: 0x4008, ..bufs[1] }]);
    });
}

/// It is the first that is made available last (virtio 1.2, 2.8.6); AVAIL and USED of the others are not
/// looked at, as in rte_vhost.
#[test]
fn the_first_descriptor_of_a_chain_makes_it_available() {
    let mut driver = Driver::new(SIZE, 0).at(6);
    let mut ring = driver.start();
    driver.post(ID, &bufs()[..4]);
    for count in 7..10 {
        driver.set_flags(count, driver.flags(count) & !(AVAIL | USED));
    }
    assert_eq!(ring.available(8), Ok(1));
    let (token, content) = take(&mut ring).unwrap();
    assert_eq!((content.len(), ring.available(8)), (46, Ok(0)));
    driver.post(1, &bufs()[..1]);
    assert!(ring.has_news());
    ring.complete(token, 0);
    ring.publish();
    assert_eq!(driver.used(), [(ID, 0)]);
    serve(&mut ring, 1);
}

#[test]
fn buffers_across_adjacent_regions_come_in_pieces() {
    for (before, after) in [(1, 1), (5, 100), (0, 7), (7, 0)] {
        let across = out(SEAM - before, (before + after) as u32);
        let (driver, ring) = send(7, 0, &[across, out(DATA, 3)], |driver, bufs| driver.post(ID, bufs));
        let mut pieces = vec![(SEAM - before, before as usize), (SEAM, after as usize), (DATA, 3)];
        pieces.retain(|piece| piece.1 > 0);
        assert_eq!(ranges(&driver, &ring), pieces);
    }
}

/// Some laps of every kind of size, in bursts that end anywhere, completed in reverse.
#[test]
fn laps_of_every_queue_size() {
    for size in [1u16, 2, 3, 5, 7, 256, 1000, 32767, 32768] {
        let round = u64::from(size);
        let mut driver = Driver::new(size, 0).at(2 * round - 5 % round);
        let mut ring = driver.start();
        let stop = driver.avail + if cfg!(miri) { 50 } else { 500 + 2 * round.min(3000) };
        while driver.avail < stop {
            let mut posted = Vec::new();
            for id in 0..size.min(100) {
                let (len, descs) = (1 + (driver.avail % 60) as u32, 1 + u64::from(id % 3));
                if driver.avail + descs > driver.seen + round {
                    break;
                }
                driver.post(id, &[out(DATA, len); 3][..descs as usize]);
                posted.push((id, descs as u32 * len));
            }
            let mut taken: Vec<_> = posted.iter().map(|_| take(&mut ring).unwrap()).collect();
            assert_eq!(ring.available(u16::MAX), Ok(0));
            let ids: Vec<_> = taken.iter().map(|(token, content)| (token.id, content.len() as u32)).collect();
            assert_eq!(ids, posted);
            taken.reverse();
            taken.into_iter().for_each(|(token, content)| ring.complete(token, content.len() as u32));
            ring.publish();
            posted.reverse();
            assert_eq!(driver.used(), posted);
            assert_eq!((ring.base(), driver.seen), (driver.base(driver.avail), driver.avail));
        }
    }
}

#[test]
fn a_whole_ring_of_the_largest_size_is_available_at_once() {
    let size = if cfg!(miri) { 300 } else { 32768 };
    for start in [0, 32767, 40000, 65535] {
        let mut driver = Driver::new(size, 0).at(start);
        let mut ring = driver.start();
        (0..size).for_each(|id| driver.post(id, &[out(DATA, 1)]));
        assert_eq!(ring.available(u16::MAX), Ok(size));
        assert!(!ring.has_news());
        serve(&mut ring, size.into());
        assert_eq!(ring.available(1), Ok(0));
        ring.publish();
        assert_eq!(driver.used().len(), usize::from(size));
        assert_eq!(ring.base(), driver.base(start + u64::from(size)));
    }
}

#[test]
fn a_chain_of_the_whole_ring() {
    for size in [1u16, 2, 3, 1024] {
        let round = u64::from(size);
        for start in [0, 1, round - 1, 2 * round - 1] {
            let mut driver = Driver::new(size, 0).at(start);
            let mut ring = driver.start();
            for id in 0..3 {
                driver.post(id, &vec![out(DATA, 2); size.into()]);
                let (token, content) = take(&mut ring).unwrap();
                assert_eq!((token.descs, content.len()), (size, 2 * usize::from(size)));
                ring.complete(token, 0);
                ring.publish();
                assert_eq!(driver.used(), [(id, 0)]);
            }
        }
    }
}

/// A used descriptor goes where the next one is due, not where its chain was (virtio 1.2, 2.8.6).
#[test]
fn chains_come_back_in_any_order() {
    for start in 0..16 {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut driver = Driver::new(SIZE, 0).at(start);
            let mut ring = driver.start();
            driver.post(10, &bufs()[..3]);
            driver.post(11, &bufs()[..1]);
            driver.post(12, &bufs()[..2]);
            let mut taken: Vec<_> = (0..3).map(|_| Some(take(&mut ring).unwrap().0)).collect();
            for chain in order {
                ring.complete(taken[chain].take().unwrap(), 0);
                ring.publish();
                assert_eq!(driver.used(), [(10 + chain as u16, 0)]);
            }
            assert_eq!(ring.base(), driver.base(start + 6));
        }
    }
}

/// Any 16 bits are a good id: they mean something to the guest only.
#[test]
fn ids_are_the_guests_business() {
    for id in [0, SIZE - 1, SIZE, 0x7fff, 0x8000, 0xffff] {
        let mut driver = Driver::new(SIZE, 0).at(5);
        let mut ring = driver.start();
        driver.post(id, &bufs()[..2]);
        let (token, _) = take(&mut ring).unwrap();
        assert_eq!(token, Token { id, descs: 2 });
        ring.complete(token, 5);
        ring.publish();
        assert_eq!(driver.used(), [(id, 5)]);
    }
}

/// The first of a burst is shown last (virtio 1.2, 2.8.2), and WRITE says whether anything was written.
#[test]
fn nothing_is_seen_before_it_is_published() {
    for start in 0..16 {
        let mut driver = Driver::new(SIZE, 0).at(start);
        let mut ring = driver.start();
        (0..4).for_each(|id| driver.post(id, &[out(DATA, 1)]));
        for len in [0, 8, 0, 8] {
            let (token, _) = take(&mut ring).unwrap();
            ring.complete(token, len);
            assert!(!driver.is_used(start));
        }
        assert!((1..4).all(|n| driver.is_used(start + n)));
        assert_eq!(driver.flags(start), driver.available(start));
        assert_eq!(driver.used(), []);
        ring.publish();
        assert_eq!(driver.used(), [(0, 0), (1, 8), (2, 0), (3, 8)]);
        assert_eq!(ring.publish(), Call::Nothing);
    }
}

#[test]
fn a_chain_put_back_is_taken_again() {
    for start in 0..16 {
        let mut driver = Driver::new(SIZE, 0).at(start);
        let mut ring = driver.start();
        driver.post(1, &bufs()[..2]);
        driver.post(2, &bufs()[..3]);
        assert_eq!(ring.available(9), Ok(5));
        let (first, _) = take(&mut ring).unwrap();
        ring.complete(first, 0);
        for _ in 0..3 {
            assert_eq!(take(&mut ring).unwrap().0, Token { id: 2, descs: 3 });
            assert_eq!(ring.available(9), Ok(0));
            ring.untake();
            assert_eq!(ring.available(9), Ok(3));
            assert_eq!(ring.base() as u16, driver.bits(start + 2));
        }
        ring.publish();
        serve(&mut ring, 1);
        ring.publish();
        assert_eq!(driver.used(), [(1, 0), (2, 0)]);
    }
}

#[test]
fn looks_no_further_than_it_must() {
    let mut driver = Driver::new(SIZE, 0).at(7);
    let mut ring = driver.start();
    assert!(!ring.has_news());
    (0..3).for_each(|id| driver.post(id, &bufs()[..1]));
    assert_eq!((ring.available(1), ring.available(2)), (Ok(1), Ok(2)));
    assert!(ring.has_news());
    assert_eq!(ring.available(9), Ok(3));
    assert!(!ring.has_news());
    serve(&mut ring, 1);
    assert_eq!(ring.available(1), Ok(2));
}

/// Virtio 1.2, 2.8.8: one used descriptor for a batch, in the place of its first, with the last chain's id; the
/// others stay as they are. Also across the ring's end, and with ids that are in no order.
#[test]
fn in_order_a_burst_has_one_used_descriptor() {
    let mut driver = Driver::new(SIZE, F_IN_ORDER);
    let mut ring = driver.start();
    for ids in [[0, 1, 2], [5, 3, 4], [9, 2, 6]] {
        let first = driver.avail;
        for id in ids {
            driver.post(id, &[out(DATA, 20), out(DATA + 20, 1)][..1 + usize::from(id == 2)]);
        }
        let flags: Vec<u16> = (first + 1..driver.avail).map(|count| driver.flags(count)).collect();
        assert_eq!(ring.available(8), Ok((driver.avail - first) as u16));
        for id in ids {
            let taken = ring.take().unwrap().unwrap();
            assert_eq!(taken.token.id, id);
            let token = taken.token;
            ring.complete(token, 0);
        }
        assert_eq!(driver.used(), []);
        ring.publish();
        let left: Vec<u16> = (first + 1..driver.avail).map(|count| driver.flags(count)).collect();
        assert_eq!(left, flags);
        assert_eq!(driver.used(), ids.map(|id| (id, 0)));
    }
    assert_eq!(ring.violation(), None);
}
