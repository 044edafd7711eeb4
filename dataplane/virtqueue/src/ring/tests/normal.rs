//! What a well-behaved guest sends, on a ring of either format.

use super::*;

both_formats! {
    direct_descriptors_of_any_number
    indirect_descriptors_of_any_number
    the_direction_of_an_indirect_descriptor_means_nothing
    flags_nobody_defined_mean_nothing
    buffers_across_adjacent_regions_come_in_pieces
    a_whole_ring_of_the_largest_size_is_available_at_once
    a_chain_of_the_whole_ring
    chains_come_back_in_any_order
    a_chain_put_back_is_taken_again
    looks_at_the_ring_only_when_it_must
    a_ring_goes_on_where_the_last_one_stopped
}

const SIZE: u16 = 8;
const ID: u16 = 2;

/// Fills `bufs` with a pattern; `post` posts them at `start`, as chain [`ID`]; takes and returns that.
fn send<D: RingDriver>(
    start: u64,
    features: u64,
    bufs: &[Buf],
    post: impl FnOnce(&mut D, &[Buf]),
) -> (D, D::Ring) {
    let mut driver = D::new(SIZE, features).at(start);
    let content = pattern(1, bufs.iter().map(|buf| buf.len as usize).sum());
    let mut at = 0;
    for buf in bufs {
        driver.guest().write(buf.addr, &content[at..at + buf.len as usize]);
        at += buf.len as usize;
    }
    let mut ring = driver.start();
    assert_eq!(ring.available(8), Ok(0));
    post(&mut driver, bufs);
    assert_eq!(ring.available(8), Ok(driver.posted_since(start)));
    let (token, taken) = take(&mut ring).unwrap();
    assert_eq!((token.id, taken), (ID, content));
    ring.complete(token, 0);
    assert_eq!(driver.used(), []);
    ring.publish();
    assert_eq!(driver.used(), [(ID, 0)]);
    assert_eq!(ring.base(), driver.base(driver.avail()));
    (driver, ring)
}

fn bufs() -> Vec<Buf> {
    (0..8).map(|i| out(DATA + 1000 * i, 10 + i as u32)).collect()
}

fn direct_descriptors_of_any_number<D: RingDriver>() {
    for (start, n) in D::starts(SIZE).flat_map(|start| (1..=8).map(move |n| (start, n))) {
        let (driver, ring) = send::<D>(start, 0, &bufs()[..n], |driver, bufs| driver.post(ID, bufs));
        let lent: Vec<_> = bufs()[..n].iter().map(|buf| (buf.addr, buf.len as usize)).collect();
        assert_eq!(driver.lent(&ring), lent);
    }
}

/// Only the ring itself must be aligned.
fn indirect_descriptors_of_any_number<D: RingDriver>() {
    for (n, at) in (1..=8).flat_map(|n| [(n, SEAM), (n, SEAM + 3)]) {
        let start = D::wraps_at(SIZE) - 4 + n as u64;
        send::<D>(start, F_INDIRECT, &bufs()[..n], |driver, bufs| {
            let table = driver.table(at, bufs);
            driver.post(ID, &[table]);
        });
    }
}

/// Virtio 1.2, 2.7.5.3.2: "The device MUST ignore the write-only flag [of] the descriptor that refers to an indirect
/// table." And 2.8.7: "In descriptors with VIRTQ_DESC_F_INDIRECT set VIRTQ_DESC_F_WRITE is reserved and is ignored by the
/// device."
fn the_direction_of_an_indirect_descriptor_means_nothing<D: RingDriver>() {
    for start in D::starts(SIZE) {
        send::<D>(start, F_INDIRECT, &[out(DATA, 9)], |driver, bufs| {
            let table = driver.table(SEAM, bufs);
            driver.post(ID, &[Buf { flags: INDIRECT | WRITE, ..table }]);
        });
    }
}

fn flags_nobody_defined_mean_nothing<D: RingDriver>() {
    for start in D::starts(SIZE) {
        send::<D>(start, 0, &[out(DATA, 9), out(DATA + 50, 9)], |driver, bufs| {
            driver.post(ID, &[Buf { flags: D::UNDEFINED, ..bufs[0] }, Buf { flags: 0x4008, ..bufs[1] }]);
        });
    }
}

fn buffers_across_adjacent_regions_come_in_pieces<D: RingDriver>() {
    let start = D::wraps_at(SIZE) - 1;
    for (before, after) in [(1, 1), (5, 100), (0, 7), (7, 0)] {
        let across = out(SEAM - before, (before + after) as u32);
        let (driver, ring) =
            send::<D>(start, 0, &[across, out(DATA, 3)], |driver, bufs| driver.post(ID, bufs));
        let mut pieces = vec![(SEAM - before, before as usize), (SEAM, after as usize), (DATA, 3)];
        pieces.retain(|piece| piece.1 > 0);
        assert_eq!(driver.lent(&ring), pieces);
        send::<D>(start, F_INDIRECT, &[across], |driver, bufs| {
            let table = driver.table(DATA, bufs);
            driver.post(ID, &[table]);
        });
    }
}

fn a_whole_ring_of_the_largest_size_is_available_at_once<D: RingDriver>() {
    let size = if cfg!(miri) { 256 } else { 32768 };
    for start in [0, 32767, 40000, 65535] {
        let mut driver = D::new(size, 0).at(start);
        let mut ring = driver.start();
        (0..size).for_each(|id| driver.post(id, &[out(DATA, 1)]));
        assert_eq!(ring.available(u16::MAX), Ok(size));
        assert!(!ring.has_news());
        serve(&mut ring, size);
        assert_eq!(ring.available(1), Ok(0));
        ring.publish();
        assert_eq!(driver.used().len(), usize::from(size));
        assert_eq!(ring.base(), driver.base(start + u64::from(size)));
    }
}

fn a_chain_of_the_whole_ring<D: RingDriver>() {
    for size in [1, 2, 3, 1024].into_iter().filter(|size| D::is_size(*size)) {
        let (starts, lap) = (D::starts(size), u64::from(size));
        for start in [0, 1, lap - 1, 2 * lap - 1].map(|behind| starts.start + behind) {
            let mut driver = D::new(size, 0).at(start);
            let mut ring = driver.start();
            for n in 0..3 {
                let (id, before) = (n % size, driver.avail());
                driver.post(id, &vec![out(DATA, 2); size.into()]);
                assert_eq!(ring.available(u16::MAX), Ok(driver.posted_since(before)));
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
fn chains_come_back_in_any_order<D: RingDriver>() {
    for start in D::starts(SIZE) {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut driver = D::new(SIZE, 0).at(start);
            let mut ring = driver.start();
            driver.post(1, &bufs()[..3]);
            driver.post(2, &bufs()[..1]);
            driver.post(3, &bufs()[..2]);
            let mut taken: Vec<_> = (0..3).map(|_| Some(take(&mut ring).unwrap().0)).collect();
            for chain in order {
                ring.complete(taken[chain].take().unwrap(), 0);
                ring.publish();
                assert_eq!(driver.used(), [(1 + chain as u16, 0)]);
            }
            assert_eq!(ring.base(), driver.base(driver.avail()));
        }
    }
}

fn a_chain_put_back_is_taken_again<D: RingDriver>() {
    for start in D::starts(SIZE) {
        let mut driver = D::new(SIZE, 0).at(start);
        let mut ring = driver.start();
        driver.post(1, &bufs()[..2]);
        let second = driver.avail();
        driver.post(2, &bufs()[..3]);
        assert_eq!(ring.available(9), Ok(driver.posted_since(start)));
        let (first, _) = take(&mut ring).unwrap();
        ring.complete(first, 0);
        for _ in 0..3 {
            assert_eq!(take(&mut ring).unwrap().0, Token { id: 2, descs: 3 });
            assert_eq!(ring.available(9), Ok(0));
            ring.untake();
            assert_eq!(ring.available(9), Ok(driver.posted_since(second)));
            assert_eq!(ring.base() as u16, driver.base(second) as u16);
        }
        ring.publish();
        serve(&mut ring, 1);
        ring.publish();
        assert_eq!(driver.used(), [(1, 0), (2, 0)]);
    }
}

fn looks_at_the_ring_only_when_it_must<D: RingDriver>() {
    for start in D::starts(SIZE) {
        let mut driver = D::new(SIZE, 0).at(start);
        let mut ring = driver.start();
        assert!(!ring.has_news());
        driver.post(0, &[out(DATA, 1)]);
        assert_eq!(ring.available(1), Ok(1));
        driver.post(1, &[out(DATA, 1)]);
        assert!(ring.has_news());
        assert_eq!(ring.available(1), Ok(1));
        assert_eq!(ring.available(2), Ok(2));
        assert!(!ring.has_news());
    }
}

fn a_ring_goes_on_where_the_last_one_stopped<D: RingDriver>() {
    for start in D::starts(D::SIZE) {
        let mut driver = D::new(D::SIZE, 0).at(start);
        let mut ring = driver.start();
        for id in 0..3u16 {
            driver.guest().write(DATA + u64::from(id), &[id as u8]);
            driver.post(id, &[out(DATA + u64::from(id), 1)]);
        }
        let (zero, one) = (take(&mut ring).unwrap(), take(&mut ring).unwrap());
        assert_eq!((zero.1, one.1), (vec![0], vec![1]));
        ring.complete(one.0, 7);
        ring.complete(zero.0, 8);
        ring.publish();
        let base = ring.base();
        assert_eq!(base, driver.base(start + 2));
        drop(ring);

        let mut ring = driver.start_at(base);
        assert_eq!(ring.available(9), Ok(1));
        let (two, content) = take(&mut ring).unwrap();
        assert_eq!((two.id, content), (2, vec![2]));
        ring.complete(two, 9);
        ring.publish();
        assert_eq!(driver.used(), [(1, 7), (0, 8), (2, 9)]);
        assert_eq!(ring.base(), driver.base(start + 3));
    }
}
