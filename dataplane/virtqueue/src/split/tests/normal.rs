//! What a well-behaved guest sends: every layout, size and index.

use super::*;
use crate::testing::*;

/// Posts `bufs` filled with a pattern, as descriptors 2, 0, 1, 3.., and takes them.
fn send(features: u64, bufs: &[Buf], post: impl FnOnce(&mut Driver, &[Buf])) -> (Driver, SplitRing) {
    let mut driver = Driver::new(8, features);
    let len = bufs.iter().map(|buf| buf.len as usize).sum();
    let content = pattern(1, len);
    let mut at = 0;
    for buf in bufs {
        driver.guest.write(buf.addr, &content[at..at + buf.len as usize]);
        at += buf.len as usize;
    }
    let mut ring = driver.start();
    assert_eq!(ring.available(8), Ok(0));
    post(&mut driver, bufs);
    assert_eq!(ring.available(8), Ok(1));
    assert_eq!(take(&mut ring).unwrap(), (2, len as u32, content));
    ring.complete(token(2), 0);
    assert_eq!(driver.used(), []);
    ring.publish();
    assert_eq!(driver.used(), [(2, 0)]);
    (driver, ring)
}

const SLOTS: [u16; 8] = [2, 0, 7, 1, 3, 4, 5, 6];

#[test]
fn direct_descriptors_of_any_number() {
    let bufs: Vec<Buf> = (0..8).map(|i| out(DATA + 1000 * i, 10 + i as u32)).collect();
    for n in 1..=8 {
        let (driver, ring) = send(0, &bufs[..n], |driver, bufs| driver.post(&SLOTS[..n], bufs));
        let lent: Vec<_> = bufs[..n].iter().map(|buf| (buf.addr, buf.len as usize)).collect();
        assert_eq!(ranges(&driver, &ring), lent);
    }
}

#[test]
fn indirect_descriptors_of_any_number() {
    let bufs: Vec<Buf> = (0..8).map(|i| out(DATA + 1000 * i, 10 + i as u32)).collect();
    // Only the ring's own table must be aligned.
    for (n, at) in (1..=8).flat_map(|n| [(n, SEAM), (n, SEAM + 3)]) {
        send(F_INDIRECT, &bufs[..n], |driver, bufs| {
            let table = driver.table(at, bufs);
            driver.post(&[2], &[table]);
        });
    }
}

/// Virtio 1.2, 2.7.5.3.2: "the device MUST handle the case of zero or more normal chained descriptors followed
/// by a single descriptor with flags&VIRTQ_DESC_F_INDIRECT".
#[test]
fn direct_descriptors_followed_by_an_indirect_one() {
    let bufs: Vec<Buf> = (0..6).map(|i| out(DATA + 1000 * i, 10 + i as u32)).collect();
    for direct in 1..=5 {
        send(F_INDIRECT, &bufs, |driver, bufs| {
            let mut chain = bufs[..direct].to_vec();
            chain.push(driver.table(SEAM, &bufs[direct..]));
            driver.post(&SLOTS[..=direct], &chain);
        });
    }
}

/// Virtio 1.2, 2.7.5.3.2: "The device MUST ignore the write-only flag [of] the descriptor that refers to an
/// indirect table."
#[test]
fn the_direction_of_an_indirect_descriptor_means_nothing() {
    send(F_INDIRECT, &[out(DATA, 9)], |driver, bufs| {
        let table = driver.table(SEAM, bufs);
        driver.post(&[2], &[Buf { flags: INDIRECT | WRITE, ..table }]);
    });
}

#[test]
fn flags_nobody_defined_mean_nothing() {
    send(0, &[out(DATA, 9), out(DATA + 50, 9)], |driver, bufs| {
        driver.post(&[2, 3], &[Buf { flags: 0x8000, ..bufs[0] }, Buf { flags: 0x4008, ..bufs[1] }]);
    });
}

#[test]
fn buffers_across_adjacent_regions_come_in_pieces() {
    for (before, after) in [(1, 1), (5, 100), (0, 7), (7, 0)] {
        let across = out(SEAM - before, (before + after) as u32);
        let (driver, ring) = send(0, &[across, out(DATA, 3)], |driver, bufs| driver.post(&[2, 3], bufs));
        let mut pieces = vec![(SEAM - before, before as usize), (SEAM, after as usize), (DATA, 3)];
        pieces.retain(|piece| piece.1 > 0);
        assert_eq!(ranges(&driver, &ring), pieces);
        send(F_INDIRECT, &[across], |driver, bufs| {
            let table = driver.table(DATA, bufs);
            driver.post(&[2], &[table]);
        });
    }
}

/// Two laps of the 16-bit indices, completed out of order.
#[test]
fn indices_wrap_at_65536_on_every_queue_size() {
    let laps = if cfg!(miri) { 300 } else { 2 << 16 };
    for size in [1u16, 2, 256, 32768] {
        let mut driver = Driver::new(size, 0).at_index(0u16.wrapping_sub(100));
        let mut ring = driver.start();
        let (mut posted, mut done) = (0u32, 0u32);
        while done < laps {
            let burst = size.min(100) as u32;
            for _ in 0..burst {
                let slot = (posted % u32::from(size)) as u16;
                driver.set_desc(slot, out(DATA, 1 + posted % 60), 0);
                driver.offer(slot);
                posted += 1;
            }
            let mut taken = Vec::new();
            assert_eq!(ring.available(u16::MAX), Ok(burst as u16));
            for n in posted - burst..posted {
                let (head, len) = take_unread(&mut ring).unwrap();
                assert_eq!((u32::from(head), len), (n % u32::from(size), 1 + n % 60));
                taken.push((u32::from(head), len));
            }
            taken.reverse();
            taken.iter().for_each(|(head, len)| ring.complete(token(*head as u16), *len));
            ring.publish();
            assert_eq!(driver.used(), taken);
            assert_eq!(ring.base(), u32::from(driver.avail));
            done += burst;
        }
    }
}

#[test]
fn a_whole_ring_of_the_largest_size_is_available_at_once() {
    let mut driver = Driver::new(32768, 0).at_index(40000);
    let mut ring = driver.start();
    driver.set_desc(32767, out(DATA, 1), 0);
    let n = if cfg!(miri) { 100 } else { 32768u16 };
    for _ in 0..n {
        driver.offer(32767);
    }
    assert_eq!(ring.available(1), Ok(n));
    for _ in 0..n {
        let (head, _) = take_unread(&mut ring).unwrap();
        ring.complete(token(head), 0);
    }
    assert_eq!(ring.available(1), Ok(0));
    ring.publish();
    assert_eq!(driver.used().len(), usize::from(n));
}

#[test]
fn looks_at_the_avail_index_only_when_it_must() {
    let mut driver = Driver::new(8, 0);
    let mut ring = driver.start();
    driver.post(&[0], &[out(DATA, 1)]);
    assert_eq!(ring.available(1), Ok(1));
    driver.post(&[1], &[out(DATA, 1)]);
    assert!(ring.has_news());
    assert_eq!(ring.available(1), Ok(1));
    assert_eq!(ring.available(2), Ok(2));
    assert!(!ring.has_news());
}

#[test]
fn a_ring_goes_on_where_the_last_one_stopped() {
    let mut driver = Driver::new(4, 0).at_index(65534);
    let mut ring = driver.start();
    for slot in 0..3 {
        driver.guest.write(DATA + u64::from(slot), &[slot as u8]);
        driver.post(&[slot], &[out(DATA + u64::from(slot), 1)]);
    }
    assert_eq!(take(&mut ring).unwrap(), (0, 1, vec![0]));
    assert_eq!(take(&mut ring).unwrap(), (1, 1, vec![1]));
    ring.complete(token(1), 7);
    ring.complete(token(0), 8);
    ring.publish();
    assert_eq!(ring.base(), 0);
    drop(ring);

    let mut ring = driver.start_at(0);
    assert_eq!(ring.available(9), Ok(1));
    assert_eq!(take(&mut ring).unwrap(), (2, 1, vec![2]));
    ring.complete(token(2), 9);
    ring.publish();
    assert_eq!(driver.used(), [(1, 7), (0, 8), (2, 9)]);
    assert_eq!((driver.used_index(), ring.base()), (1, 1));
}

/// As Linux vhost: the base says what to take next, the used index in memory what was returned last.
#[test]
fn the_used_index_is_the_one_in_memory() {
    let mut driver = Driver::new(4, 0);
    driver.set_used_index(77);
    driver.seen = 77;
    let mut ring = driver.start_at(0);
    assert_eq!(ring.publish(), Call::Nothing);
    driver.post(&[3], &[out(DATA, 1)]);
    assert_eq!(ring.available(1), Ok(1));
    take(&mut ring).unwrap();
    ring.complete(token(3), 0);
    ring.publish();
    assert_eq!((driver.used_index(), driver.used()), (78, vec![(3, 0)]));
    // What the guest writes there later means nothing.
    driver.set_used_index(5);
    driver.post(&[2], &[out(DATA, 1)]);
    take(&mut ring).unwrap();
    ring.complete(token(2), 0);
    ring.publish();
    assert_eq!(driver.used_index(), 79);
}

#[test]
fn says_what_it_is() {
    let driver = Driver::new(4, 1 << 32 | F_INDIRECT);
    let mut ring = crate::Ring::start(driver.config()).unwrap();
    assert_eq!((ring.index(), ring.config().size, ring.base()), (1, 4, 0));
    assert_eq!(ring.config().features, driver.features);
    ring.as_dyn().set_kicks(false);
    assert_eq!(driver.used_flags(), 1);
    assert!(matches!(ring, crate::Ring::Split(_)));
}

/// Virtio 1.2, 2.7.9: one entry for a batch, "at an offset matching the first available ring entry in the batch",
/// with the last chain's head. A guest that then offers its descriptors in some other order harms nobody.
#[test]
fn in_order_a_burst_has_one_used_entry() {
    let mut driver = Driver::new(8, F_IN_ORDER);
    let mut ring = driver.start();
    let entry = |driver: &Driver, slot: u64| driver.guest.read_u32(driver.used_addr() + 4 + 8 * slot);
    for (burst, heads) in [[0, 1, 2], [5, 3, 4]].into_iter().enumerate() {
        for head in heads {
            driver.post(&[head], &[out(DATA, 20)]);
        }
        assert_eq!(ring.available(8), Ok(3));
        for head in heads {
            assert_eq!(take_unread(&mut ring), Ok((head, 20)));
            ring.complete(token(head), 0);
        }
        ring.publish();
        let first = 3 * burst as u64;
        assert_eq!([0, 1, 2].map(|slot| entry(&driver, first + slot)), [heads[2].into(), 0, 0]);
        assert_eq!(driver.used(), heads.map(|head| (head.into(), 0)));
    }
    assert_eq!(ring.violation(), None);
}
