//! Rows of rings that are the same in either format.

use std::time::Duration;

use tests::daemon::guest;
use tests::hostile::client::{Answer, code};
use tests::hostile::guest::{
    AVAIL, DATA, END, GUEST, Hostile, RING, SEAM, SIZE, USED, USER, addresses, feature, good,
};
use tests::hostile::ring::{Buf, INDIRECT, NEXT, WRITE};
use tests::hostile::stage::{Log, repeat};
use tests::wait;

use crate::rings::{FROM, Rows, TO};

impl Rows<'_> {
    /// All rows that the formats share.
    pub fn shared(&mut self) {
        self.addresses();
        self.frames();
        self.receive_buffers();
        self.tables();
        self.directions();
        self.double_fetch();
        self.in_order();
        self.calls();
        self.overlaps();
    }

    fn addresses(&mut self) {
        let row = "guest address not mapped";
        let below = 0u64.wrapping_sub(1);
        let places = [("behind memory", END, 100), ("over its end", END - 1, 2), ("before it", below, 1)];
        for (what, at, len) in places {
            self.stops(row, &format!("a frame {what}"), FROM, "unmapped guest address", |hostile| {
                hostile.rings[FROM].post(&[Buf::readable(at, len)]);
            });
            self.stops(row, &format!("a receive buffer {what}"), TO, "unmapped guest address", |hostile| {
                hostile.rings[TO].post(&[Buf::writable(at, len)]);
            });
        }
        self.stops(row, "a frontend's address for a guest's", FROM, "unmapped guest address", |hostile| {
            hostile.rings[FROM].post(&[Buf::readable(USER - GUEST + DATA, 100)]);
        });
        let row = "range over two regions";
        self.serves(row, "a frame over adjacent regions, apart in the host", FROM, 0, None, |hostile| {
            hostile.rings[FROM].post(&[Buf::readable(SEAM - 50, 100)]);
        });
        self.serves(row, "receive buffers over them", TO, 0, None, |hostile| {
            hostile.rings[TO].fill(&[Buf::writable(SEAM - 1000, 2048)]);
        });
        let row = "bad address of length zero in a batch";
        let batch = |bad: Buf| {
            move |hostile: &mut Hostile| {
                let fine = good(FROM);
                hostile.rings[FROM].post_all(&[fine, fine, bad, fine]);
            }
        };
        let empty = "has a descriptor of length zero";
        self.stops(row, "third of four frames", FROM, empty, batch(Buf::readable(END, 0)));
        self.stops(row, "the same with a length", FROM, "unmapped", batch(Buf::readable(END, 100)));
        let row = "address + length over 64 bits";
        for (from_top, len) in [(1, 2), (10, 100), (0xffff_ffff, u32::MAX)] {
            let at = 0u64.wrapping_sub(GUEST).wrapping_sub(from_top);
            self.stops(
                row,
                &format!("{len:#x} bytes at 2^64 - {from_top:#x}"),
                FROM,
                "unmapped",
                |hostile| {
                    hostile.rings[FROM].post(&[Buf::readable(at, len)]);
                },
            );
        }
        self.stops(row, "lengths whose sum is over 32 bits", FROM, "unmapped", |hostile| {
            hostile.rings[FROM].post(&[good(FROM), Buf::readable(DATA, u32::MAX)]);
        });
    }

    fn frames(&mut self) {
        let row = "chain no longer than the header";
        for len in [1, 11, 12, 12 + 13] {
            self.serves(row, &format!("{len} bytes"), FROM, 0, Some("runt"), |hostile| {
                hostile.rings[FROM].post(&[Buf::readable(DATA, len)]);
            });
        }
        self.serves(row, "a header over twelve descriptors", FROM, 0, None, |hostile| {
            let mut chain: Vec<Buf> = (0..12).map(|n| Buf::readable(DATA + n, 1)).collect();
            chain.push(Buf::readable(DATA + 12, 100));
            hostile.rings[FROM].post(&chain);
        });
        self.serves(row, "a header over twelve, and no frame", FROM, 0, Some("runt"), |hostile| {
            let chain: Vec<Buf> = (0..12).map(|n| Buf::readable(DATA + n, 1)).collect();
            hostile.rings[FROM].post(&chain);
        });
        let row = "zero-length descriptors";
        let empty = "has a descriptor of length zero";
        self.stops(row, "a whole ring of them", FROM, empty, |hostile| {
            hostile.rings[FROM].post(&vec![Buf::readable(DATA, 0); usize::from(SIZE)]);
        });
        self.stops(row, "one between good ones", FROM, empty, |hostile| {
            hostile.rings[FROM].post(&[good(FROM), Buf::readable(DATA, 0), good(FROM)]);
        });
        self.stops(row, "a receive buffer", TO, empty, |hostile| {
            hostile.rings[TO].post(&[Buf::writable(DATA, 0)]);
        });
        let row = "frames under 14 bytes, over the maximum";
        for (what, frame, drop) in [
            ("13 bytes", 13, Some("runt")),
            ("14 bytes", 14, None),
            ("2000 bytes", 2000, Some("oversize")),
            ("1 MiB", 1 << 20, Some("oversize")),
        ] {
            self.serves(row, what, FROM, 0, drop, |hostile| {
                hostile.rings[FROM].post(&[Buf::readable(DATA, 12 + frame)]);
            });
        }
        // 200 descriptors of 32 MiB would be 6 GiB; memory ends before that, so they all name the same 4 MiB.
        self.serves(row, "800 MiB in a chain", FROM, 0, Some("oversize"), |hostile| {
            hostile.rings[FROM].post(&[Buf::readable(DATA, 4 << 20); 200]);
        });
        self.headers();
    }

    /// No offload is negotiated: what a header asks for is nobody's business.
    fn headers(&mut self) {
        let row = "header asks for offloads";
        let headers: [(&str, [u8; 12]); 6] = [
            ("csum_start beyond the packet", [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]),
            ("csum_offset beyond the packet", [1, 0, 0, 0, 0, 0, 14, 0, 0xff, 0xff, 0, 0]),
            ("hdr_len beyond the packet, gso_size 0", [0, 1, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("unknown gso_type", [0xff, 0x7f, 12, 0, 1, 0, 14, 0, 16, 0, 0, 0]),
            ("gso_size 1, on no IP packet", [1, 4, 14, 0, 1, 0, 14, 0, 16, 0, 0, 0]),
            ("num_buffers 65535", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
        ];
        for (what, header) in headers {
            self.serves(row, what, FROM, 0, None, |hostile| {
                hostile.ram.write(DATA + 0x10_0000, &header);
                hostile.rings[FROM].fill(&[Buf::readable(DATA + 0x10_0000, 100)]);
            });
        }
        self.stage.skip(
            "software segmentation",
            "a header longer than a segment",
            "no GSO feature is offered",
        );
        self.stage.skip("hash that does not fit the buffer", "HASH_REPORT", "the feature is not offered");
    }

    fn receive_buffers(&mut self) {
        let row = "receive buffers smaller than the header";
        for len in [1, 11] {
            self.stops(row, &format!("{len} bytes"), TO, "has room for", |hostile| {
                hostile.rings[TO].post(&[Buf::writable(DATA, len)]);
            });
            self.stops_with(
                feature::MRG_RXBUF,
                row,
                &format!("{len} bytes, mergeable"),
                TO,
                "has room for",
                |it| {
                    it.rings[TO].post(&[Buf::writable(DATA, len)]);
                },
            );
        }
        self.stops(row, "11 bytes in three descriptors", TO, "has room for 11 bytes only", |hostile| {
            let part = Buf::writable(DATA, 4);
            hostile.rings[TO].post(&[part, part, Buf { len: 3, ..part }]);
        });
        self.too_small_buffers();
    }

    fn too_small_buffers(&mut self) {
        let row = "receive buffers never large enough";
        let too_small = Some("guest_buffer_too_small");
        self.serves(row, "64 bytes each for frames of 1500", TO, 0, too_small, |hostile| {
            hostile.rings[TO].fill(&[Buf::writable(DATA, 64)]);
        });
        let merge = feature::MRG_RXBUF;
        self.serves(row, "mergeable, 12 bytes, then 1 byte each", TO, merge, too_small, |hostile| {
            hostile.rings[TO].post(&[Buf::writable(DATA, 12)]);
            for _ in 1..SIZE {
                hostile.rings[TO].post(&[Buf::writable(DATA + 12, 1)]);
            }
        });
        self.serves(row, "mergeable, buffers that come one by one", TO, merge, too_small, |hostile| {
            for len in (0..SIZE).map(|n| if n == 0 { 12 } else { 1 }) {
                hostile.rings[TO].post(&[Buf::writable(DATA, len)]);
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        // Both of the NIC's queues wait for the pair with a packet each; the first one's fits, the other's not.
        self.serves(
            row,
            "mergeable, room for one packet of two, then for more",
            TO,
            merge,
            None,
            |hostile| {
                for _ in 0..20 {
                    for len in [12, 1500] {
                        hostile.rings[TO].post(&[Buf::writable(DATA, len)]);
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    hostile.wait_used(TO);
                    hostile.rings[TO].post_all(&[good(TO); 30]);
                    hostile.wait_used(TO);
                }
            },
        );
        self.serves(row, "mergeable, just large enough together", TO, merge, None, |hostile| {
            (0..126).for_each(|_| hostile.rings[TO].post(&[Buf::writable(DATA, 12)]));
        });
    }

    fn tables(&mut self) {
        let row = "indirect table";
        let frame = |hostile: &Hostile| hostile.rings[FROM].table(DATA + 0x10_0000, &[good(FROM)]);
        let bad = "has a bad indirect descriptor";
        for len in [0, 1, 15, 17, 31, 16 * (u32::from(SIZE) + 1), u32::MAX] {
            let sent = format!("{len} bytes long");
            self.stops_with(feature::INDIRECT, row, &sent, FROM, bad, |hostile| {
                let table = Buf { len, ..frame(hostile) };
                hostile.rings[FROM].post(&[table]);
            });
        }
        self.stops(row, "not negotiated", FROM, bad, |hostile| {
            let table = frame(hostile);
            hostile.rings[FROM].post(&[table]);
        });
        self.stops_with(feature::INDIRECT, row, "with NEXT", FROM, bad, |hostile| {
            let table = frame(hostile);
            hostile.rings[FROM].post(&[table, good(FROM)]);
        });
        self.stops_with(feature::INDIRECT, row, "nested", FROM, bad, |hostile| {
            let inner = frame(hostile);
            let outer = hostile.rings[FROM].table(DATA + 0x11_0000, &[good(FROM), inner]);
            hostile.rings[FROM].post(&[outer]);
        });
        self.stops_with(feature::INDIRECT, row, "that names itself", FROM, bad, |hostile| {
            let at = DATA + 0x10_0000;
            let table = hostile.rings[FROM].table(at, &[Buf { at, len: 16, flags: INDIRECT }]);
            hostile.rings[FROM].post(&[table]);
        });
        self.stops_with(feature::INDIRECT, row, "not mapped", FROM, "unmapped", |hostile| {
            hostile.rings[FROM].post(&[Buf { at: END, len: 32, flags: INDIRECT }]);
        });
        self.stops_with(feature::INDIRECT, row, "over two regions", FROM, "unmapped", |hostile| {
            let table = hostile.rings[FROM].table(SEAM - 16, &[good(FROM), good(FROM)]);
            hostile.rings[FROM].post(&[table]);
        });
        self.stops_with(feature::INDIRECT, row, "with an entry not mapped", FROM, "unmapped", |hostile| {
            let table = hostile.rings[FROM].table(DATA, &[good(FROM), Buf::readable(END, 1)]);
            hostile.rings[FROM].post(&[table]);
        });
        self.stops_with(
            feature::INDIRECT,
            row,
            "for receiving, of readable buffers",
            TO,
            "wrong direction",
            |it| {
                let table = it.rings[TO].table(DATA, &[good(FROM)]);
                it.rings[TO].post(&[table]);
            },
        );
    }

    fn directions(&mut self) {
        let (row, wrong) = ("descriptor of the wrong direction", "wrong direction");
        let (reads, writes) = (good(FROM), good(TO));
        for (what, chain) in [("alone", vec![writes]), ("at the end", vec![reads, reads, writes])] {
            self.stops(row, &format!("writable in a frame, {what}"), FROM, wrong, |hostile| {
                hostile.rings[FROM].post(&chain);
            });
        }
        for (what, chain) in [("alone", vec![reads]), ("behind a writable one", vec![writes, reads])] {
            self.stops(row, &format!("readable in a receive buffer, {what}"), TO, wrong, |hostile| {
                hostile.rings[TO].post(&chain);
            });
        }
    }

    /// Words that change between two reads, if there are two.
    fn double_fetch(&mut self) {
        let row = "changed after it was checked";
        let flags = if self.features & feature::PACKED != 0 { 14 } else { 12 };
        let fields: [(&str, u64, [u64; 2]); 2] = [
            ("addresses, good and unmapped in turn", 0, [GUEST + DATA, GUEST + END - 10]),
            ("lengths, good and far too long in turn", 8, [100, 0xffff_0000]),
        ];
        for (ring, name) in [(TO, "receive buffers'"), (FROM, "frames'")] {
            for (what, field, values) in fields {
                self.survives(
                    row,
                    &format!("{name} {what}"),
                    ring,
                    &|_| vec![good(ring)],
                    |hostile, round| {
                        let at = ring as u64 * RING + 16 * (round / 2 % u64::from(SIZE)) + field;
                        match (field, values[round as usize % 2]) {
                            (0, value) => hostile.ram.store(at, value),
                            (_, value) => hostile.ram.store(at, value as u32),
                        }
                    },
                );
            }
            self.survives(row, &format!("{name} flags"), ring, &|_| vec![good(ring); 2], |hostile, round| {
                let at = ring as u64 * RING + 16 * (round % u64::from(SIZE)) + flags;
                let kind = [NEXT, WRITE, INDIRECT, 0, NEXT | WRITE][(round / 7) as usize % 5];
                hostile.ram.store(at, hostile.ram.load::<u16>(at) & 0x8080 | kind);
            });
        }
        let table =
            |hostile: &Hostile| vec![hostile.rings[FROM].table(DATA + 0x10_0000, &[good(FROM), good(FROM)])];
        self.survives(row, "length and entries of an indirect table", FROM, &table, |hostile, round| {
            let (noise, slot) = (round.wrapping_mul(0x9e37_79b9_7f4a_7c15), round / 8 % u64::from(SIZE));
            match round % 8 {
                word @ 0..4 => hostile.ram.store(DATA + 0x10_0000 + 8 * word, noise),
                _ => hostile.ram.store(length_at(FROM, slot), noise as u32 & 0x1f0),
            }
        });
        self.survives(row, "header and frame", FROM, &|_| vec![good(FROM)], |hostile, round| {
            hostile.ram.store(good(FROM).at + 8 * (round % 12), round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        });
    }

    /// Chains are used in the order in which they are made available, whatever they are called.
    fn in_order(&mut self) {
        let features = self.features | feature::IN_ORDER;
        let (row, sent) = ("in-order negotiated, then offered out of order", "heads, or ids, in any order");
        self.stage.case(row, sent, Log::Silent, |bench| {
            let (mut random, frames) = (fastrand::Rng::with_seed(5), 1000);
            let mut hostile = Hostile::running(&bench.socket(), features);
            let before = bench.port().rx_packets;
            let driver = &mut hostile.rings[FROM];
            if !driver.packed {
                (0..SIZE).for_each(|slot| driver.set_split(slot, good(FROM), 0));
            }
            for sent in 0..frames {
                if driver.packed {
                    driver.id = Some(random.u16(..));
                    driver.post(&[good(FROM)]);
                } else {
                    driver.offer(random.u16(..SIZE));
                }
                if sent % 100 == 99 {
                    wait::until("all frames are taken", 5, || match bench.port().rx_packets - before {
                        taken if taken == sent + 1 => Ok(()),
                        taken => Err(format!("{taken} of {}", sent + 1)),
                    });
                }
            }
            hostile.restart(FROM as u32);
            (0..2).for_each(|ring| hostile.assert_moves(ring));
            format!("{frames} frames taken")
        });
    }

    fn calls(&mut self) {
        let row = "interrupt storm";
        let packed = self.features & feature::PACKED != 0;
        for (what, features) in [("each burst calls", 0), ("event index moved along", feature::EVENT_IDX)] {
            let features = self.features | features;
            self.stage.case(row, &format!("{what}, for 300 ms"), Log::Silent, |bench| {
                let mut hostile = Hostile::running(&bench.socket(), features);
                let calls = |ring: usize| guest(&bench.port()).queues[ring].calls;
                let before = [TO, FROM].map(calls);
                repeat(Duration::from_millis(300), |_| {
                    for ring in [TO, FROM] {
                        // Only what comes next passes the event, for certain.
                        hostile.wait_used(ring);
                        let used = hostile.rings[ring].collect();
                        set_used_event(&hostile, ring, packed, used);
                        hostile.rings[ring].fill(&[good(ring)]);
                    }
                });
                let now = [TO, FROM].map(calls);
                assert!((0..2).all(|ring| now[ring] > before[ring]), "calls: {before:?} -> {now:?}");
                format!("{} and {} calls", now[TO] - before[TO], now[FROM] - before[FROM])
            });
        }
        let features = self.features | feature::EVENT_IDX;
        self.stage.case(row, "event index that never comes, reserved flags", Log::Silent, |bench| {
            let mut hostile = Hostile::running(&bench.socket(), features);
            repeat(Duration::from_millis(100), |round| {
                for ring in [TO, FROM] {
                    if packed {
                        hostile.ram.store(driver_area(ring), round as u32 | 3 << 16);
                    } else {
                        hostile.ram.store(driver_area(ring), round as u16 & !1);
                        set_used_event(&hostile, ring, packed, round * 0x9e37 + 0x8000);
                    }
                    hostile.rings[ring].fill(&[good(ring)]);
                }
            });
            (0..2).for_each(|ring| hostile.wait_used(ring));
            "served".to_owned()
        });
    }

    fn overlaps(&mut self) {
        let row = "ring memory and buffers overlap";
        let features = self.features;
        let places = [
            ("its own descriptors", 0),
            ("its avail ring", AVAIL),
            ("its used ring", USED),
            ("all of it", 0),
        ];
        for (n, (what, offset)) in places.into_iter().enumerate() {
            for (ring, kind) in [(TO, "received into"), (FROM, "sent out of")] {
                let len = if n == 3 { RING as u32 } else { 1536 };
                let sent = format!("{kind} {what}");
                self.stage.case(row, &sent, Log::Any, |bench| {
                    let mut hostile = Hostile::running(&bench.socket(), features);
                    let buf = Buf { at: ring as u64 * RING + offset, len, ..good(ring) };
                    repeat(Duration::from_millis(20), |_| hostile.rings[ring].fill(&[buf]));
                    hostile.assert_moves(ring ^ 1);
                    let end =
                        bench.violation(ring).map_or("served".to_owned(), |why| format!("stopped: {why}"));
                    hostile.restart(ring as u32);
                    hostile.assert_moves(ring);
                    end
                });
            }
        }
        self.stage.case(row, "two pairs of queues on the same rings, all running", Log::Any, |bench| {
            let mut hostile = Hostile::running(&bench.socket(), features);
            for ring in 2..4u32 {
                hostile.prepare(ring);
                let start = USER + u64::from(ring - 2) * RING;
                let same = addresses(ring, 0, [start, start + USED, start + AVAIL]);
                assert_eq!(hostile.client.tell(code::SET_VRING_ADDR, &same, &[]), Answer::Done);
                assert_eq!(hostile.tell_ring(code::SET_VRING_ENABLE, ring, 1), Answer::Done);
            }
            repeat(Duration::from_millis(100), |_| {
                (0..2).for_each(|ring| hostile.rings[ring].fill(&[good(ring)]));
            });
            let stopped = (0..4).filter(|ring| bench.violation(*ring).is_some()).count();
            assert!(hostile.client.is_served());
            format!("survived, {stopped} rings stopped")
        });
    }
}

/// Where the length of a descriptor is.
fn length_at(ring: usize, slot: u64) -> u64 {
    ring as u64 * RING + 16 * slot + 8
}

/// Where the avail ring is, or the driver's event suppression.
fn driver_area(ring: usize) -> u64 {
    ring as u64 * RING + AVAIL
}

/// Asks for a call as soon as one more chain is used than `used`.
fn set_used_event(hostile: &Hostile, ring: usize, packed: bool, used: u64) {
    let area = driver_area(ring);
    if packed {
        let (slot, lap) = (used % u64::from(SIZE), used / u64::from(SIZE));
        let wrap = if lap.is_multiple_of(2) { 0x8000 } else { 0 };
        // At a descriptor: flags are 2 (virtio 1.2, 2.8.10).
        hostile.ram.store(area, slot as u32 | wrap | 2 << 16);
    } else {
        hostile.ram.store(area + 4 + 2 * u64::from(SIZE), used as u16);
    }
}
