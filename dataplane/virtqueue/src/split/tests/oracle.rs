//! The same bytes, walked by us and by rust-vmm's `virtio-queue`.

use proptest::prelude::*;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::testing::*;

type Chain = (u16, Vec<(u64, u64)>);

/// Joins what follows on from the piece before, and drops what is empty: how a chain is cut is up to each.
fn joined(pieces: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (addr, len) in pieces.filter(|piece| piece.1 > 0) {
        match joined.last_mut() {
            Some(last) if last.0.wrapping_add(last.1) == addr => last.1 += len,
            _ => joined.push((addr, len)),
        }
    }
    joined
}

/// A copy of the driver's memory, and the oracle's queue on it.
fn oracle(driver: &Driver, start: u16) -> (GuestMemoryMmap, Queue) {
    let areas: Vec<_> =
        driver.guest.memory.regions().iter().map(|r| (r.guest_addr(), r.len() as usize)).collect();
    let ranges: Vec<_> = areas.iter().map(|(addr, len)| (GuestAddress(*addr), *len)).collect();
    let memory = GuestMemoryMmap::from_ranges(&ranges).unwrap();
    for (addr, len) in areas {
        memory.write_slice(&driver.guest.read(addr, len), GuestAddress(addr)).unwrap();
    }
    let mut queue = Queue::new(driver.size).unwrap();
    queue.try_set_desc_table_address(GuestAddress(driver.desc_addr())).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(driver.avail_addr())).unwrap();
    queue.try_set_used_ring_address(GuestAddress(driver.used_addr())).unwrap();
    queue.set_event_idx(driver.features & F_EVENT_IDX != 0);
    queue.set_next_avail(start);
    queue.set_next_used(start);
    queue.set_ready(true);
    (memory, queue)
}

fn theirs(memory: &GuestMemoryMmap, queue: &mut Queue) -> Vec<Chain> {
    let chain = |chain: virtio_queue::DescriptorChain<_>| {
        let head = chain.head_index();
        (head, joined(chain.map(|desc| (desc.addr().0, u64::from(desc.len())))))
    };
    queue.iter(memory).unwrap().map(chain).collect()
}

/// Takes all there is, up to a violation.
fn ours(driver: &Driver, ring: &mut SplitRing) -> (Vec<Chain>, Option<Violation>) {
    let mut chains = Vec::new();
    let mut all = || -> Result<(), Violation> {
        for _ in 0..ring.available(u16::MAX)? {
            let (head, _) = take_unread(ring)?;
            let pieces = driver.lent(ring).into_iter().map(|(addr, len)| (addr, len as u64));
            chains.push((head, joined(pieces)));
        }
        Ok(())
    };
    let violation = all().err();
    (chains, violation)
}

fn bufs() -> impl Strategy<Value = Vec<(u64, u32)>> {
    prop::collection::vec((DATA..HOLE - 0x4000, 1..0x4000u32), 1..5)
}

proptest! {
    #![proptest_config(runs(256))]

    /// Chains of any layout: the same heads, the same bytes of memory, and the same used ring afterwards.
    #[test]
    fn well_formed_chains_are_the_same_for_both(
        start: u16, chains in prop::collection::vec((bufs(), 0..5usize), 1..8),
        event in -3..12i16, event_idx: bool,
    ) {
        let mut driver = Driver::new(64, F_INDIRECT | if event_idx { F_EVENT_IDX } else { 0 }).at(start.into());
        let mut ring = driver.start();
        let mut slot = 0;
        for (n, (bufs, indirect)) in chains.iter().enumerate() {
            let bufs: Vec<Buf> = bufs.iter().map(|(addr, len)| out(*addr, *len)).collect();
            let (direct, behind) = bufs.split_at(bufs.len() - indirect.min(&bufs.len()));
            let mut chain = direct.to_vec();
            if !behind.is_empty() {
                chain.push(driver.table(HOLE - 0x1000 + 128 * n as u64 + 1, behind));
            }
            let slots: Vec<u16> = (slot..slot + chain.len() as u16).rev().collect();
            slot += chain.len() as u16;
            driver.post_in(&slots, &chain);
        }
        driver.set_used_event(start.wrapping_add_signed(event));
        let (memory, mut queue) = oracle(&driver, start);
        let (mine, violation) = ours(&driver, &mut ring);
        prop_assert_eq!(violation, None);
        prop_assert_eq!(&mine, &theirs(&memory, &mut queue));
        prop_assert_eq!(ring.base(), u32::from(queue.next_avail()));

        // Returned one by one in both: the same used ring, and the same calls but for our first.
        for (n, (head, _)) in mine.iter().enumerate() {
            ring.complete(token(*head), n as u32 * 3);
            let call = ring.publish();
            queue.add_used(&memory, *head, n as u32 * 3).unwrap();
            let wanted = queue.needs_notification(&memory).unwrap();
            prop_assert_eq!(call == Call::Sent, wanted || n == 0);
        }
        // The avail event is left out: each has it where it last asked for a kick.
        let len = 4 + 8 * usize::from(driver.size);
        let mut used = vec![0; len];
        memory.read_slice(&mut used, GuestAddress(driver.used_addr())).unwrap();
        prop_assert_eq!(driver.guest.read(driver.used_addr(), len), used);
    }

    /// Garbage: what we take, up to where we refuse, the oracle takes likewise.
    #[test]
    fn what_we_take_of_garbage_the_oracle_takes_too(
        descs in prop::collection::vec((DATA..HOLE + 0x400, 0..0x300u32, 0..6u16, 0..9u16), 8),
        tables in prop::collection::vec((DATA..HOLE + 0x400, 0..0x300u32, 0..6u16, 0..5u16), 8),
        indirect in prop::collection::vec((any::<bool>(), 0..5u64, 1..5u32), 8),
        heads in prop::collection::vec(0..9u16, 8), n in 0..10u16,
    ) {
        let mut driver = Driver::new(8, F_INDIRECT);
        let mut ring = driver.start();
        for (i, (addr, len, flags, next)) in tables.into_iter().enumerate() {
            driver.set_desc_at(HOLE - 0x800 + 16 * i as u64, Buf { addr, len, flags: flags & !INDIRECT & !WRITE }, next);
        }
        for (i, (addr, len, flags, next)) in descs.into_iter().enumerate() {
            let buf = match indirect[i] {
                (true, at, entries) => Buf { addr: HOLE - 0x800 + 16 * at, len: 16 * entries, flags: INDIRECT },
                _ => Buf { addr, len, flags: flags & !INDIRECT & !WRITE },
            };
            driver.set_desc(i as u16, buf, next);
        }
        for (at, head) in heads.into_iter().enumerate() {
            driver.set_avail_entry(at as u16, head);
        }
        driver.avail = n;
        driver.set_avail_index(n);
        let (memory, mut queue) = oracle(&driver, 0);
        let (mine, violation) = ours(&driver, &mut ring);
        // It refuses the same jumps of the index; of the rest it takes more than we do.
        if let Some(Violation::AvailJump { .. }) = violation {
            prop_assert!(queue.iter(&memory).is_err());
        } else {
            let theirs = theirs(&memory, &mut queue);
            prop_assert!(theirs.len() >= mine.len());
            prop_assert_eq!(&theirs[..mine.len()], &mine[..]);
            prop_assert_eq!(violation.is_none(), mine.len() == usize::from(n));
        }
    }
}

/// The ring laid out by the oracle's own mock driver.
#[test]
fn chains_of_the_oracles_driver() {
    let driver = Driver::new(16, 0);
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
    let mock = MockSplitQueue::create(&memory, GuestAddress(0), 16);
    let desc = |addr, flags, next| RawDescriptor::from(Descriptor::new(addr, 0x100, flags, next));
    let descs = [
        desc(0x8000, NEXT, 1),
        desc(0x9000, 0, 0),
        desc(0xa000, 0, 0),
        desc(0xb000, NEXT, 4),
        desc(0xc000, NEXT, 5),
        desc(0xd000, 0, 0),
    ];
    mock.add_desc_chains(&descs, 0).unwrap();
    let guest = Guest::new(&[(0, 0x10000)]);
    let mut bytes = vec![0; 0x10000];
    memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    guest.write(0, &bytes);
    let config = RingConfig {
        desc: mock.desc_table_addr().0 + USER,
        avail: mock.avail_addr().0 + USER,
        used: mock.used_addr().0 + USER,
        memory: guest.memory.clone(),
        ..driver.config()
    };
    let mut ring = SplitRing::start(config).unwrap();
    let mut queue: Queue = mock.create_queue().unwrap();
    let mine = ours(&driver.over(guest), &mut ring);
    assert_eq!(mine, (theirs(&memory, &mut queue), None));
    assert_eq!(mine.0.len(), 3);
}
