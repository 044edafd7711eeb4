//! What a well-behaved guest sends, where packed rings are different.

use super::*;
use crate::testing::packed::*;
use crate::testing::*;

const SIZE: u16 = 8;
const ID: u16 = 0xbeef;

fn bufs() -> Vec<Buf> {
    (0..8).map(|i| out(DATA + 1000 * i, 10 + i as u32)).collect()
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

/// Any 16 bits are a good id, of a chain and of a table: they mean something to the guest only.
#[test]
fn ids_are_the_guests_business() {
    for id in [0, SIZE - 1, SIZE, 0x7fff, 0x8000, 0xbeef, 0xffff] {
        for (start, indirect) in (0..16).flat_map(|start| [(start, false), (start, true)]) {
            let mut driver = Driver::new(SIZE, F_INDIRECT).at(start);
            let mut ring = driver.start();
            match indirect {
                true => driver.post(id, &[driver.table(SEAM, &bufs()[..2])]),
                false => driver.post(id, &bufs()[..2]),
            }
            let (token, _) = take(&mut ring).unwrap();
            assert_eq!(token, Token { id, descs: if indirect { 1 } else { 2 } });
            ring.complete(token, 5);
            ring.publish();
            assert_eq!(driver.used(), [(id, 5)]);
        }
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
