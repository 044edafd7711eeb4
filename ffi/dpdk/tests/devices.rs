//! Ports without a network: net_null, net_ring, and what is refused.

mod common;

use common::{eal, frame, pool};
use dpdk::burst::Burst;
use dpdk::ethdev::{Device, DeviceConfig, DeviceError, Started, offload};
use dpdk::mempool::Mempool;

fn config(pool: &Mempool, queue_pairs: u16) -> DeviceConfig<'_> {
    DeviceConfig {
        queue_pairs,
        rx_descriptors: 0,
        tx_descriptors: 0,
        mtu: None,
        promiscuous: true,
        rx_interrupts: false,
        pool,
    }
}

fn start(devargs: &str, pool: &Mempool) -> Started {
    Device::probe(devargs).unwrap().start(config(pool, 1)).unwrap()
}

fn fill(burst: &mut Burst, pool: &Mempool, seeds: std::ops::Range<usize>) {
    for seed in seeds {
        let bytes = frame(seed, 60 + seed % 1400);
        let mut mbuf = pool.alloc().unwrap();
        mbuf.set_single_len(bytes.len() as u16);
        mbuf.data_mut().copy_from_slice(&bytes);
        burst.push(mbuf).unwrap();
    }
}

isolated_tests! {
    fn null_receives_and_sends() {
        let _eal = eal();
        let pool = pool();
        let mut nic = start("net_null0,size=100", &pool);
        let mut burst = Burst::new();
        assert_eq!(nic.rx[0].receive(&mut burst, 32), 32);
        assert_eq!(nic.rx[0].receive(&mut burst, 100), 32, "no more than fit");
        assert_eq!(nic.rx[0].receive(&mut burst, 100), 0);
        assert!(burst.iter().all(|mbuf| mbuf.pkt_len() == 100 && mbuf.port() == nic.port.id()));
        assert_eq!(nic.tx[0].prepare(&mut burst), 64);
        assert_eq!(nic.tx[0].send(&mut burst), 64);
        assert!(burst.is_empty());
        assert_eq!(nic.tx[0].send(&mut burst), 0);
        assert_eq!(nic.tx[0].prepare(&mut burst), 0);
        assert_eq!(pool.in_use(), 0);

        let stats = nic.port.stats();
        assert_eq!((stats["ipackets"], stats["opackets"]), (64, 64));
        assert_eq!(stats.len(), 8);
        let xstats = nic.port.xstats();
        assert_eq!(xstats["rx_good_packets"], 64, "{xstats:?}");
        assert_eq!(nic.rx[0].port().name(), "net_null0");
        assert_eq!((nic.rx[0].index(), nic.tx[0].index()), (0, 0));
        assert_eq!(nic.tx[0].port().info().driver, "net_null");
        assert!(nic.port.link().up);
        assert_eq!(nic.port.mac(), nic.port.info().mac);
    }

    fn null_without_mbufs_receives_nothing() {
        let _eal = eal();
        let pool = Mempool::new("small", 63, 2048, 0, -1).unwrap();
        let mut nic = start("net_null0", &pool);
        let mut held = Burst::new();
        pool.alloc_bulk(&mut held, 63).unwrap();
        let mut burst = Burst::new();
        assert_eq!(nic.rx[0].receive(&mut burst, 32), 0);
        held.free_front(40);
        assert_eq!(nic.rx[0].receive(&mut burst, 32), 32);
    }

    fn ring_keeps_content_and_order_and_gives_back_what_does_not_fit() {
        let _eal = eal();
        let pool = pool();
        let mut nic = start("net_ring0", &pool);
        let (rx, tx) = (&mut nic.rx[0], &mut nic.tx[0]);
        let mut burst = Burst::new();
        let mut sent = 0;
        let mut filled = 0;
        loop {
            let more = filled..filled + burst.capacity_left();
            filled = more.end;
            fill(&mut burst, &pool, more);
            let taken = tx.send(&mut burst);
            sent += taken;
            if taken < 64 {
                break;
            }
        }
        assert_eq!(sent, 1023, "the size of the ring");
        assert_eq!(burst.len(), 1);
        assert_eq!(tx.send(&mut burst), 0);

        let mut received = Burst::new();
        let mut seed = 0;
        while seed < 1024 {
            rx.receive(&mut received, 50);
            for mbuf in &received {
                assert_eq!(mbuf.data(), frame(seed, 60 + seed % 1400));
                seed += 1;
            }
            received.clear();
            tx.send(&mut burst);
        }
        assert_eq!(rx.receive(&mut received, 50), 0);
        assert_eq!(pool.in_use(), 0);
    }

    fn ring_takes_chains() {
        let _eal = eal();
        let pool = Mempool::new("small", 255, 200, 0, -1).unwrap();
        let device = Device::probe("net_ring0").unwrap();
        assert!(device.supports_multi_seg_tx() && device.supports_scatter_rx());
        let mut nic = device.start(config(&pool, 1)).unwrap();
        assert_eq!(nic.port.rx_offloads(), offload::RX_SCATTER, "frames do not fit one mbuf");
        assert_eq!(nic.port.tx_offloads(), offload::TX_MULTI_SEGS);
        let mut packet = pool.alloc().unwrap();
        packet.set_single_len(200);
        packet.append_segment(pool.alloc().unwrap(), 150);
        let bytes = packet.copy_to_vec();
        let mut burst = Burst::new();
        burst.push(packet).unwrap();
        assert_eq!(nic.tx[0].send(&mut burst), 1);
        assert_eq!(nic.rx[0].receive(&mut burst, 1), 1);
        assert_eq!(burst.as_slice()[0].copy_to_vec(), bytes);
    }

    fn several_queues() {
        let _eal = eal();
        let pool = pool();
        let mut nic = Device::probe("net_null0,size=64").unwrap().start(config(&pool, 3)).unwrap();
        assert_eq!((nic.rx.len(), nic.tx.len()), (3, 3));
        let threads: Vec<_> = nic
            .rx
            .drain(..)
            .zip(nic.tx.drain(..))
            .map(|(mut rx, mut tx)| {
                std::thread::spawn(move || {
                    let _lcore = dpdk::eal::register_thread().unwrap();
                    let mut burst = Burst::new();
                    (0..1000)
                        .map(|_| {
                            rx.receive(&mut burst, 32);
                            tx.send(&mut burst)
                        })
                        .sum::<usize>()
                })
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), 32_000);
        }
        assert_eq!(pool.in_use(), 0);
    }

    fn more_queues_than_the_device_has() {
        let _eal = eal();
        let pool = pool();
        let error = Device::probe("net_ring0").unwrap().start(config(&pool, 200)).unwrap_err();
        assert!(matches!(error, DeviceError::Queues { asked: 200, .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with("net_ring0: 200 queue pairs") && text.contains("has 16"), "{text}");
        let none = Device::probe("net_ring0").unwrap().start(config(&pool, 0));
        assert!(matches!(none, Err(DeviceError::Queues { asked: 0, .. })), "{none:?}");
    }

    fn what_cannot_be_probed_is_named() {
        let _eal = eal();
        for devargs in ["net_no_such_driver0", "0000:ff:1f.7", "net_pcap0,rx_pcap=/no/such", ""] {
            let error = Device::probe(devargs).unwrap_err();
            assert!(error.to_string().contains(&format!("\"{devargs}\"")), "{error}");
            assert!(matches!(error, DeviceError::Probe { .. }), "{error:?}");
        }
        let zero = Device::probe("net\0null");
        assert!(matches!(zero, Err(DeviceError::ZeroByte(_))), "{zero:?}");
    }

    fn a_device_has_one_owner() {
        let _eal = eal();
        let pool = pool();
        let nic = start("net_null0", &pool);
        let second = Device::probe("net_null0");
        assert!(matches!(second, Err(DeviceError::InUse { .. })), "{second:?}");
        drop(nic);
        let third = Device::probe("net_null0").unwrap();
        let fourth = Device::probe("net_null0");
        assert!(matches!(fourth, Err(DeviceError::InUse { .. })), "{fourth:?}");
        drop(third);
        Device::probe("net_null0").unwrap();
    }

    fn the_port_closes_with_its_last_part() {
        let _eal = eal();
        let pool = pool();
        for _ in 0..50 {
            let Started { port, mut rx, tx } = start("net_null0,size=64", &pool);
            drop(port);
            drop(tx);
            let mut burst = Burst::new();
            assert_eq!(rx[0].receive(&mut burst, 8), 8, "the queue keeps the port running");
            drop(rx);
            Device::probe("net_null0").unwrap();
        }
        assert_eq!(pool.in_use(), 0);
    }

    fn settings_of_a_port() {
        let _eal = eal();
        let pool = pool();
        let mut device = Device::probe("net_null0").unwrap();
        let info = device.info().clone();
        assert_eq!((info.name.as_str(), info.driver.as_str()), ("net_null0", "net_null"));
        assert!(info.max_rx_queues >= 1 && info.rx_desc_lim.default >= 1);
        device.request_offloads(u64::MAX, u64::MAX);
        let nic = device
            .start(DeviceConfig {
                rx_descriptors: 100,
                tx_descriptors: 100,
                mtu: Some(1400),
                promiscuous: false,
                rx_interrupts: false,
                ..config(&pool, 1)
            })
            .unwrap();
        let port = nic.port;
        assert_eq!(port.rx_offloads() & !info.rx_offload_capa, 0);
        assert_eq!(port.mtu(), 1400);
        assert!(port.promiscuous(), "net_null cannot switch it off, which is no error");
        port.set_promiscuous(true).unwrap();
        assert!(port.set_promiscuous(false).is_err(), "asked for by itself, it is one");
        port.set_mtu(1500).unwrap();
        assert_eq!(port.mtu(), 1500);
        let error = port.set_mtu(10).unwrap_err();
        assert!(error.to_string().starts_with("net_null0: cannot set the MTU 10:"), "{error}");
    }

    fn a_device_and_eal_dropped_in_any_order() {
        let eal = eal();
        let pool = pool();
        let nic = start("net_null0", &pool);
        drop(eal);
        drop(pool);
        assert!(nic.port.link().up);
        let Started { port, mut rx, tx } = nic;
        drop((port, tx));
        let mut burst = Burst::new();
        assert_eq!(rx[0].receive(&mut burst, 64), 64);
        drop(burst);
        drop(rx);
    }
}
