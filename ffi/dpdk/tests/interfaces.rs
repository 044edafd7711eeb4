//! Kernel interfaces under net_af_packet and net_af_xdp, over a veth pair. Needs root.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{eal, frame, pool};
use dpdk::burst::Burst;
use dpdk::ethdev::{Device, DeviceConfig, RxQueue, Started};
use dpdk::mempool::Mempool;

/// A pair of interfaces of this test's own, gone on drop.
struct Veth {
    a: String,
    b: String,
}

impl Veth {
    fn new() -> Veth {
        let pid = std::process::id();
        let veth = Veth { a: format!("rwa{pid}"), b: format!("rwb{pid}") };
        ip(&["link", "add", &veth.a, "type", "veth", "peer", "name", &veth.b]);
        for end in [&veth.a, &veth.b] {
            // Quiet: no IPv6 neighbour discovery among the frames.
            ip(&["link", "set", end, "addrgenmode", "none", "multicast", "off", "up"]);
        }
        veth
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        ip(&["link", "del", &self.a]);
    }
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().unwrap();
    assert!(status.success(), "ip {}", args.join(" "));
}

fn start(devargs: &str, mtu: Option<u16>, pool: &Mempool) -> Started {
    Device::probe(devargs)
        .unwrap()
        .start(DeviceConfig {
            queue_pairs: 1,
            rx_descriptors: 0,
            tx_descriptors: 0,
            mtu,
            promiscuous: true,
            rx_interrupts: false,
            pool,
        })
        .unwrap()
}

/// An Ethernet frame of a local experimental type, in segments of at most `part` bytes.
fn push_frame(burst: &mut Burst, pool: &Mempool, bytes: &[u8], part: usize) {
    let mut parts = bytes.chunks(part);
    let fill = |bytes: &[u8]| {
        let mut mbuf = pool.alloc().unwrap();
        mbuf.set_single_len(bytes.len() as u16);
        mbuf.data_mut().copy_from_slice(bytes);
        mbuf
    };
    let mut packet = fill(parts.next().unwrap());
    for bytes in parts {
        packet.append_segment(fill(bytes), bytes.len() as u16);
    }
    burst.push(packet).unwrap();
}

fn ethernet(seed: usize, len: usize) -> Vec<u8> {
    let mut bytes = frame(seed, len);
    bytes[0] = 2;
    bytes[6] = 2;
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    bytes
}

/// Receives `n` frames, or fewer if nothing comes for a second.
fn collect(rx: &mut RxQueue, n: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut burst = Burst::new();
    let mut last = Instant::now();
    while frames.len() < n && last.elapsed() < Duration::from_secs(1) {
        if rx.receive(&mut burst, 32) > 0 {
            last = Instant::now();
        }
        frames.extend(burst.iter().map(|mbuf| mbuf.copy_to_vec()));
        burst.clear();
    }
    frames
}

isolated_tests! {
    fn af_packet_sends_chains_whole() {
        let veth = Veth::new();
        let _eal = eal();
        let pool = pool();
        let mut a = start(&format!("net_af_packet0,iface={}", veth.a), None, &pool);
        let mut b = start(&format!("net_af_packet1,iface={}", veth.b), Some(1400), &pool);
        assert_eq!(b.port.mtu(), 1400);
        b.port.set_mtu(1500).unwrap();
        assert_eq!((a.port.mtu(), b.port.mtu()), (1500, 1500));
        assert!(a.port.info().supports_multi_seg_tx());
        assert!(b.port.promiscuous());

        let frames: Vec<_> = (0..40).map(|seed| ethernet(seed, 60 + seed * 37)).collect();
        let mut burst = Burst::new();
        for bytes in &frames {
            push_frame(&mut burst, &pool, bytes, 400);
        }
        assert_eq!(a.tx[0].send(&mut burst), 40);
        assert!(collect(&mut b.rx[0], 40) == frames);
        assert_eq!(pool.in_use(), 0);
        drop(b);
        drop(a);
        drop(veth);
    }

    fn af_xdp_sends_single_segments() {
        let veth = Veth::new();
        let _eal = eal();
        // The driver takes 2048 mbufs for its ring before anything is received.
        let pool = Mempool::new("large", 8191, 2048, 0, -1).unwrap();
        let devargs = format!("net_af_xdp0,iface={},force_copy=1", veth.a);
        let mut a = start(&devargs, None, &pool);
        assert!(!a.port.info().supports_multi_seg_tx());
        let mut b = start(&format!("net_af_packet1,iface={}", veth.b), None, &pool);
        let frames: Vec<_> = (0..30).map(|seed| ethernet(seed, 60 + seed * 37)).collect();
        let mut burst = Burst::new();
        for bytes in &frames {
            push_frame(&mut burst, &pool, bytes, 2000);
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while !burst.is_empty() && Instant::now() < deadline {
            a.tx[0].send(&mut burst);
        }
        assert!(collect(&mut b.rx[0], 30) == frames);
        drop(b);
        drop(a);
        drop(veth);
    }
}
