//! Packets from a file to a file through net_pcap, byte for byte.

mod common;

use std::fs;
use std::path::Path;

use common::{eal, frame, scratch_dir};
use dpdk::burst::Burst;
use dpdk::chain::ChainBuilder;
use dpdk::ethdev::{Device, DeviceConfig};
use dpdk::mempool::Mempool;

/// Writes a pcap file: little endian, microseconds, Ethernet.
fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        file.extend(word.to_le_bytes());
    }
    for frame in frames {
        let len = frame.len() as u32;
        for word in [0, 0, len, len] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    fs::write(path, file).unwrap();
}

fn read_pcap(path: &Path) -> Vec<Vec<u8>> {
    let file = fs::read(path).unwrap();
    let mut rest = &file[24..];
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        assert_eq!(rest[8..12], rest[12..16], "a packet was cut");
        frames.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    frames
}

isolated_tests! {
    fn files_are_forwarded_byte_for_byte() {
        let dir = scratch_dir();
        let (input, output) = (dir.join("in.pcap"), dir.join("out.pcap"));
        let lengths = [60, 64, 1514, 2048, 2049, 4096, 9018, 60, 12_345, 16_128];
        let frames: Vec<Vec<u8>> = (0..200)
            .map(|seed| frame(seed, lengths[seed % lengths.len()]))
            .collect();
        write_pcap(&input, &frames);

        let _eal = eal();
        let pool = common::pool();
        let devargs =
            format!("net_pcap0,rx_pcap={},tx_pcap={}", input.display(), output.display());
        let device = Device::probe(&devargs).unwrap();
        assert!(device.supports_multi_seg_tx());
        let mut nic = device
            .start(DeviceConfig {
                queue_pairs: 1,
                rx_descriptors: 0,
                tx_descriptors: 0,
                mtu: None,
                promiscuous: true,
                rx_interrupts: false,
                pool: &pool,
            })
            .unwrap();
        let mut burst = Burst::new();
        let mut received = 0;
        while received < frames.len() {
            let n = nic.rx[0].receive(&mut burst, 32);
            assert!(n > 0);
            for (mbuf, frame) in burst.iter().zip(&frames[received..]) {
                assert_eq!(mbuf.nb_segs() > 1, frame.len() > 2048);
                assert_eq!(mbuf.copy_to_vec(), *frame);
            }
            received += n;
            assert_eq!(nic.tx[0].send(&mut burst), n);
        }
        assert_eq!(nic.rx[0].receive(&mut burst, 32), 0);
        let stats = nic.port.stats();
        assert_eq!((stats["ipackets"], stats["opackets"]), (200, 200));
        let bytes = frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        assert_eq!((stats["ibytes"], stats["obytes"]), (bytes, bytes));
        drop(nic);
        assert_eq!(pool.in_use(), 0);
        assert!(read_pcap(&output) == frames);
        fs::remove_dir_all(dir).unwrap();
    }

    fn chains_built_by_us_are_written_whole() {
        let dir = scratch_dir();
        let output = dir.join("out.pcap");
        let _eal = eal();
        let pool = Mempool::new("parts", 511, 512, 0, -1).unwrap();
        let devargs = format!("net_pcap0,tx_pcap={}", output.display());
        let mut nic = Device::probe(&devargs)
            .unwrap()
            .start(DeviceConfig {
                queue_pairs: 1,
                rx_descriptors: 0,
                tx_descriptors: 0,
                mtu: Some(9000),
                promiscuous: true,
                rx_interrupts: false,
                pool: &pool,
            })
            .unwrap();
        assert_eq!(nic.port.mtu(), 9000);
        let frames: Vec<Vec<u8>> = (0..20).map(|seed| frame(seed, 100 + seed * 450)).collect();
        let mut burst = Burst::new();
        for frame in &frames {
            let mut parts = frame.chunks(300).map(|part| {
                let mut segment = pool.alloc().unwrap();
                segment.set_single_len(part.len() as u16);
                segment.data_mut().copy_from_slice(part);
                segment
            });
            let mut chain = ChainBuilder::new(parts.next().unwrap());
            for part in parts {
                let len = part.data_len();
                chain.push(part, len);
            }
            burst.push(chain.finish()).unwrap();
        }
        assert_eq!(nic.tx[0].send(&mut burst), frames.len());
        drop(nic);
        assert_eq!(pool.in_use(), 0);
        assert!(read_pcap(&output) == frames);
        fs::remove_dir_all(dir).unwrap();
    }
}
