//! What a well-behaved guest sends, where split rings are different.

use super::*;
use crate::testing::*;

/// Virtio 1.2, 2.7.5.3.2: "the device MUST handle the case of zero or more normal chained descriptors followed
/// by a single descriptor with flags&VIRTQ_DESC_F_INDIRECT".
#[test]
fn direct_descriptors_followed_by_an_indirect_one() {
    let bufs: Vec<Buf> = (0..6).map(|i| out(DATA + 1000 * i, 10 + i as u32)).collect();
    for direct in 1..=5 {
        let mut driver = Driver::new(8, F_INDIRECT);
        let mut sent = Vec::new();
        for buf in &bufs {
            let bytes = pattern(buf.addr, buf.len as usize);
            driver.guest.write(buf.addr, &bytes);
            sent.extend(bytes);
        }
        let mut chain = bufs[..direct].to_vec();
        chain.push(driver.table(SEAM, &bufs[direct..]));
        let mut ring = driver.start();
        driver.post_in(&[2, 0, 7, 1, 3, 4][..=direct], &chain);
        let (token, content) = take(&mut ring).unwrap();
        assert_eq!((token.id, content), (2, sent));
        ring.complete(token, 0);
        ring.publish();
        assert_eq!(driver.used(), [(2, 0)]);
    }
}

/// Two laps of the 16-bit indices, completed out of order.
#[test]
fn indices_wrap_at_65536_on_every_queue_size() {
    let laps = if cfg!(miri) { 300 } else { 2 << 16 };
    for size in [1u16, 2, 256, 32768] {
        let mut driver = Driver::new(size, 0).at(65436);
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
                taken.push((head, len));
            }
            taken.reverse();
            taken.iter().for_each(|(head, len)| ring.complete(token(*head), *len));
            ring.publish();
            assert_eq!(driver.used(), taken);
            assert_eq!(ring.base(), u32::from(driver.avail));
            done += burst;
        }
    }
}

/// As Linux vhost: the base says what to take next, the used index in memory what was returned last.
#[test]
fn the_used_index_is_the_one_in_memory() {
    let mut driver = Driver::new(4, 0);
    driver.set_used_index(77);
    driver.seen = 77;
    let mut ring = driver.start_at(0);
    assert_eq!(ring.publish(), Call::Nothing);
    driver.post(3, &[out(DATA, 1)]);
    assert_eq!(ring.available(1), Ok(1));
    take(&mut ring).unwrap();
    ring.complete(token(3), 0);
    ring.publish();
    assert_eq!((driver.used_index(), driver.used()), (78, vec![(3, 0)]));
    // What the guest writes there later means nothing.
    driver.set_used_index(5);
    driver.post(2, &[out(DATA, 1)]);
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
            driver.post(head, &[out(DATA, 20)]);
        }
        assert_eq!(ring.available(8), Ok(3));
        for head in heads {
            assert_eq!(take_unread(&mut ring), Ok((head, 20)));
            ring.complete(token(head), 0);
        }
        ring.publish();
        let first = 3 * burst as u64;
        assert_eq!([0, 1, 2].map(|slot| entry(&driver, first + slot)), [heads[2].into(), 0, 0]);
        assert_eq!(driver.used(), heads.map(|head| (head, 0)));
    }
    assert_eq!(ring.violation(), None);
}
