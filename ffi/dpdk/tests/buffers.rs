//! Mempools, mbufs, chains and bursts: nothing is lost, nothing freed twice.

mod common;

use std::collections::VecDeque;

use common::{eal, frame, pool};
use dpdk::BURST_MAX;
use dpdk::burst::Burst;
use dpdk::chain::ChainBuilder;
use dpdk::mbuf::{Mbuf, TxOffload, flags};
use dpdk::mempool::{Mempool, MempoolError, NoMbufs};

/// A packet of one segment.
fn packet(pool: &Mempool, bytes: &[u8]) -> Mbuf {
    let mut mbuf = pool.alloc().unwrap();
    mbuf.set_single_len(bytes.len() as u16);
    mbuf.data_mut().copy_from_slice(bytes);
    mbuf
}

fn numbers(burst: &Burst) -> Vec<u16> {
    burst.iter().map(Mbuf::data_len).collect()
}

isolated_tests! {
    fn a_fresh_mbuf_is_empty() {
        let _eal = eal();
        let pool = Mempool::new("fresh", 63, 1500, 0, -1).unwrap();
        assert_eq!((pool.data_room(), pool.name()), (1500, "fresh"));
        let mut mbuf = pool.alloc().unwrap();
        assert_eq!((mbuf.pkt_len(), mbuf.data_len(), mbuf.nb_segs()), (0, 0, 1));
        assert_eq!((mbuf.headroom(), mbuf.tailroom(), mbuf.room()), (128, 1500, 1500));
        assert_eq!((mbuf.ol_flags(), mbuf.port()), (0, 0xffff));
        mbuf.set_single_len(100);
        assert_eq!((mbuf.pkt_len(), mbuf.data_len(), mbuf.tailroom()), (100, 100, 1400));
        mbuf.set_ol_flags(flags::TX_IPV4 | flags::TX_TCP_CKSUM);
        mbuf.set_tx_offload(TxOffload { l2_len: 14, l3_len: 20, l4_len: 20, tso_segsz: 1448 });
        assert_eq!(mbuf.ol_flags(), flags::TX_IPV4 | flags::TX_TCP_CKSUM);
        assert_eq!(mbuf.data_ptr(), mbuf.data().as_ptr().cast_mut());
        let raw = mbuf.into_raw();
        assert_eq!(pool.in_use(), 1);
        // SAFETY: just given up.
        #[allow(unsafe_code, reason = "tests the round trip")]
        drop(unsafe { Mbuf::from_raw(raw) });
        assert_eq!(pool.in_use(), 0);
    }

    fn a_length_beyond_the_room_is_refused() {
        let _eal = eal();
        let mut mbuf = Mempool::new("short", 63, 64, 0, -1).unwrap().alloc().unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            mbuf.set_single_len(65);
        }));
        assert!(result.is_err());
        assert_eq!(mbuf.pkt_len(), 0);
    }

    fn bad_pools_are_errors_that_name_them() {
        let _eal = eal();
        let _first = Mempool::new("twice", 63, 64, 0, -1).unwrap();
        let again = Mempool::new("twice", 63, 64, 0, -1).unwrap_err();
        assert!(again.to_string().starts_with("mempool twice:"), "{again}");
        assert!(again.to_string().contains("File exists (errno 17)"), "{again}");
        let room = Mempool::new("room", 63, u16::MAX, 0, -1);
        assert!(matches!(room, Err(MempoolError::DataRoom { max: 65407, .. })), "{room:?}");
        let cache = Mempool::new("cache", 63, 64, 60, -1);
        assert!(matches!(cache, Err(MempoolError::Create { .. })), "{cache:?}");
        let memory = Mempool::new("memory", 1_000_000, 2048, 0, -1).unwrap_err();
        assert!(memory.to_string().contains("memory"), "{memory}");
    }

    fn a_pool_runs_out_and_recovers() {
        let _eal = eal();
        let pool = Mempool::new("small", 100, 64, 0, -1).unwrap();
        let mut first = Burst::new();
        let mut second = Burst::new();
        pool.alloc_bulk(&mut first, 64).unwrap();
        assert_eq!(pool.alloc_bulk(&mut second, 37), Err(NoMbufs { asked: 37 }));
        assert!(second.is_empty(), "none or all");
        assert_eq!((pool.in_use(), pool.available()), (64, 36));
        pool.alloc_bulk(&mut second, 36).unwrap();
        assert!(pool.alloc().is_none());
        assert_eq!((pool.in_use(), pool.available()), (100, 0));
        drop(first);
        assert_eq!((pool.in_use(), pool.available()), (36, 64));
        assert!(pool.alloc().is_some());
        assert_eq!(pool.alloc_bulk(&mut second, 29), Err(NoMbufs { asked: 29 }), "no room");
        pool.alloc_bulk(&mut second, 28).unwrap();
        pool.alloc_bulk(&mut second, 0).unwrap();
        assert_eq!(second.capacity_left(), 0);
        drop(second);
        assert_eq!((pool.in_use(), pool.available()), (0, 100));
    }

    fn a_burst_is_filled_as_far_as_there_are_packets() {
        let _eal = eal();
        let pool = Mempool::new("filled", 60, 64, 0, -1).unwrap();
        let fill = |burst: &mut Burst, lens: &[usize]| pool.fill(burst, lens, |len, mbuf| match mbuf.packet(*len) {
            Ok(data) => {
                data.fill(*len as u8);
                true
            }
            // Longer than one mbuf: of two segments, or, if longer than these, none.
            Err(mbuf) => {
                assert_eq!((mbuf.pkt_len(), mbuf.nb_segs(), mbuf.headroom()), (0, 1, 128));
                mbuf.append_segment(pool.alloc().unwrap(), (*len).min(64) as u16);
                *len <= 64 + 64
            }
        });
        let mut burst = Burst::new();
        assert_eq!(fill(&mut burst, &[1, 64, 0]), Ok(3));
        assert_eq!(fill(&mut burst, &[7, 100, 9, 200, 10, 11]), Ok(3));
        assert_eq!((burst.len(), pool.in_use()), (6, 7), "what is not filled is free again");
        for (mbuf, len) in burst.iter().zip([1, 64, 0, 7, 64, 9]) {
            assert_eq!(mbuf.pkt_len(), len);
            assert_eq!((mbuf.ol_flags(), mbuf.port(), mbuf.headroom()), (0, 0xffff, 128));
            assert!(mbuf.nb_segs() == 2 || mbuf.data().iter().all(|byte| u32::from(*byte) == len));
        }
        assert_eq!(fill(&mut burst, &[1; 54]), Err(NoMbufs { asked: 54 }), "no mbufs");
        assert_eq!(fill(&mut burst, &[1; 59]), Err(NoMbufs { asked: 59 }), "no room");
        assert_eq!(fill(&mut burst, &[]), Ok(0));
        assert_eq!((burst.len(), pool.in_use()), (6, 7), "all or none");
        drop(burst);
        assert_eq!(pool.in_use(), 0);
    }

    fn a_pool_that_is_dropped_early_is_leaked() {
        let _eal = eal();
        let pool = pool();
        let mbuf = packet(&pool, b"still here");
        drop(pool);
        assert_eq!(mbuf.data(), b"still here");
        drop(mbuf);
    }

    fn a_pool_is_freed_with_its_last_clone() {
        let _eal = eal();
        for _ in 0..100 {
            // Would run out of memory, and of the name, if pools were not freed.
            let pool = pool();
            let clone = pool.clone();
            drop(pool);
            assert_eq!(clone.available(), 2047);
        }
    }

    fn chains_are_linked_and_freed_whole() {
        let _eal = eal();
        let pool = Mempool::new("chain", 63, 100, 0, -1).unwrap();
        let bytes = frame(1, 1000);
        let mut parts = bytes.chunks(100);
        let mut chain = ChainBuilder::new(packet(&pool, parts.next().unwrap()));
        for part in parts.by_ref().take(6) {
            chain.push(packet(&pool, part), part.len() as u16);
        }
        assert_eq!(chain.pkt_len(), 700);
        let mut packet_of_7 = chain.finish();
        for part in parts {
            packet_of_7.append_segment(packet(&pool, part), part.len() as u16);
        }
        let mut whole = packet_of_7;
        assert_eq!((whole.nb_segs(), whole.pkt_len(), whole.data_len()), (10, 1000, 100));
        assert_eq!(whole.copy_to_vec(), bytes);
        assert!(whole.segments().eq(bytes.chunks(100)));
        for segment in whole.segments_mut() {
            segment.reverse();
        }
        let reversed: Vec<u8> =
            bytes.chunks(100).flat_map(|chunk| chunk.iter().rev().copied()).collect();
        assert_eq!(whole.copy_to_vec(), reversed);

        // A builder continues a chain at its end.
        let mut chain = ChainBuilder::new(whole);
        chain.push(packet(&pool, b"end"), 3);
        let whole = chain.finish();
        assert_eq!((whole.nb_segs(), whole.pkt_len()), (11, 1003));
        assert_eq!(whole.copy_to_vec()[1000..], *b"end");
        assert_eq!(pool.in_use(), 11);
        let mut burst = Burst::new();
        burst.push(whole).unwrap();
        drop(burst);
        assert_eq!(pool.in_use(), 0);
    }

    fn bursts_keep_order_and_free_what_is_left() {
        let _eal = eal();
        let pool = pool();
        let mut burst = Burst::new();
        for len in 0..BURST_MAX as u16 {
            let mut mbuf = pool.alloc().unwrap();
            mbuf.set_single_len(len);
            burst.push(mbuf).unwrap();
        }
        let refused = burst.push(pool.alloc().unwrap());
        drop(refused.unwrap_err());
        assert_eq!(burst.get(10).unwrap().data_len(), 10);
        burst.free_front(10);
        assert_eq!((burst.len(), burst.capacity_left()), (54, 10));
        assert_eq!(burst.get(0).unwrap().data_len(), 10);
        assert_eq!(burst.get_mut(53).unwrap().data_len(), 63);
        assert!(burst.get(54).is_none());
        assert_eq!(pool.in_use(), 54);
        burst.truncate_free(20);
        assert_eq!(numbers(&burst), (10..30).collect::<Vec<_>>());
        assert_eq!(burst.iter().map(Mbuf::pkt_len).sum::<u32>(), (10..30).sum());
        assert_eq!(burst.pop().unwrap().data_len(), 29);
        assert_eq!(burst.pop_front().unwrap().data_len(), 10);
        let mut other = Burst::default();
        pool.alloc_bulk(&mut other, 60).unwrap();
        assert_eq!(other.append(&mut burst), 4);
        assert_eq!((other.len(), burst.len()), (64, 14));
        assert_eq!(other.as_slice()[63].data_len(), 14);
        assert_eq!(numbers(&burst), (15..29).collect::<Vec<_>>());
        assert_eq!((&burst).into_iter().count(), 14);
        burst.iter_mut().for_each(|mbuf| mbuf.set_single_len(1));
        burst.as_mut_slice()[0].set_single_len(2);
        assert_eq!(burst.iter().map(Mbuf::pkt_len).sum::<u32>(), 15);
        burst.clear();
        assert!(burst.is_empty() && burst.pop().is_none() && burst.pop_front().is_none());
        assert_eq!(pool.in_use(), 64);
        drop(other);
        assert_eq!(pool.in_use(), 0);
    }

    fn bursts_behave_like_a_deque() {
        let _eal = eal();
        let pool = pool();
        let mut burst = Burst::new();
        let mut model = VecDeque::new();
        let mut dice = frame(7, 60_000).into_iter();
        let mut next = move || usize::from(dice.next().unwrap());
        for round in 0..10_000_u16 {
            let len = round % 2000;
            match next() % 8 {
                0..4 if model.len() < BURST_MAX => {
                    let mut mbuf = pool.alloc().unwrap();
                    mbuf.set_single_len(len);
                    burst.push(mbuf).unwrap();
                    model.push_back(len);
                }
                4 => {
                    let n = next() % 32;
                    let fits = n <= BURST_MAX - model.len();
                    assert_eq!(pool.alloc_bulk(&mut burst, n).is_ok(), fits);
                    model.extend(std::iter::repeat_n(0, if fits { n } else { 0 }));
                }
                5 => {
                    let n = next() % (model.len() + 1);
                    burst.free_front(n);
                    model.drain(..n);
                }
                6 => {
                    let n = next() % 80;
                    burst.truncate_free(n);
                    model.truncate(n);
                }
                _ => assert_eq!(burst.pop_front().map(|mbuf| mbuf.data_len()), model.pop_front()),
            }
            assert_eq!(numbers(&burst), model.make_contiguous());
            assert_eq!(pool.in_use() as usize, model.len());
        }
    }
}
