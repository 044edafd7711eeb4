//! Uneven numbers of queue pairs: what the guest's pair k sends leaves through NIC pair k mod N, what NIC pair
//! j receives goes to the guest's pair j mod P, in order, and nothing is left out.

use std::path::PathBuf;
use std::time::Duration;

use tests::daemon::{self, assert_balanced};
use tests::frames::Frames;
use tests::pcap;
use tests::relay::Relay;
use tests::scene::{Scene, pcap_device};
use tests::testpmd::{Setup, Testpmd, virtio_user};

/// Frames of each queue.
const COUNT: u64 = 2_000;

fn files(scene: &Scene, name: &str, seed: u64, queues: usize) -> (Vec<PathBuf>, Vec<Frames>) {
    let paths: Vec<_> = (0..queues).map(|queue| scene.path(&format!("{name}-{queue}.pcap"))).collect();
    let frames =
        (0..queues as u64).map(|queue| Frames { count: COUNT, lengths: 60..=1500, seed: seed + queue });
    (paths, frames.collect())
}

fn write(paths: &[PathBuf], frames: &[Frames]) {
    paths.iter().zip(frames).for_each(|(path, frames)| pcap::write(path, frames.iter()));
}

/// The port offers `offered` pairs, of which the guest uses `used`; the NIC has `nic`.
fn run(offered: usize, used: usize, nic: usize) {
    let mut scene = Scene::new();
    let (to_guest, into) = files(&scene, "to-guest", 100, nic);
    let (to_nic, out) = files(&scene, "to-nic", 200, used);
    let (at_guest, _) = files(&scene, "at-guest", 0, used);
    let (at_nic, _) = files(&scene, "at-nic", 0, nic);
    write(&to_guest, &into);
    write(&to_nic, &out);
    scene.nic("wire0", &pcap_device("net_pcap0", &to_guest, &at_nic), nic, "");
    scene.guest("vm1", "wire0", offered);
    let mut daemon = scene.start();
    let relay = Relay::start(&scene.socket("relay"), &scene.socket("vm1"), 0);
    let port = virtio_user(&scene.socket("relay"), used, 256);
    let setup = Setup {
        queues: used,
        mbufs: 8192,
        ..Setup::small([port, pcap_device("net_pcap0", &to_nic, &at_guest)])
    };
    let mut guest = Testpmd::start("guest", &setup, &scene.path("guest.log"));
    relay.open();
    guest.forward();
    let (sent, received) = (COUNT * used as u64, COUNT * nic as u64);
    daemon.wait_count("wire0", "tx", 30, sent, |port| port.tx_packets);
    daemon.wait_count("vm1", "tx", 30, received, |port| port.tx_packets);
    tests::wait::until("the guest has written what it got", 10, || {
        let written = guest.stats(1).tx_packets;
        if written >= received { Ok(()) } else { Err(written.to_string()) }
    });
    let stats = guest.stats(0);
    assert_eq!((stats.tx_packets, stats.rx_packets), (sent, received), "the guest's own counters");
    let vm1 = daemon.port("vm1");
    assert_eq!((vm1.rx_packets, vm1.tx_packets), (sent, received));
    for queue in &daemon::guest(&vm1).queues {
        let owned = queue.owner.starts_with("worker:");
        assert_eq!((queue.enabled, owned), (usize::from(queue.index) < 2 * used, queue.enabled), "{queue:?}");
        // From the guest, each queue had its frames.
        let expected = if queue.enabled && queue.index % 2 == 1 { Some(COUNT) } else { None };
        assert!(expected.is_none_or(|count| queue.used == count), "{queue:?}");
    }
    guest.quit();
    assert_balanced(&daemon, "vm1", "wire0");
    assert!(daemon.stop(Duration::from_secs(5)).success());

    let at_nic: Vec<_> = at_nic.iter().map(|path| pcap::read(path)).collect();
    for (k, frames) in out.iter().enumerate() {
        frames.assert_is(&format!("guest pair {k} to NIC pair {}", k % nic), &frames.pick(&at_nic[k % nic]));
    }
    assert_eq!(at_nic.iter().map(Vec::len).sum::<usize>() as u64, sent);
    let at_guest: Vec<_> = at_guest.iter().map(|path| pcap::read(path)).collect();
    assert_eq!(at_guest.iter().map(Vec::len).sum::<usize>() as u64, received);
    for (j, frames) in into.iter().enumerate() {
        // While the guest still enables its queues, some go to those that are there already.
        let mut parts: Vec<_> = at_guest.iter().map(|got| frames.pick(got)).collect();
        let own = parts.remove(j % used);
        parts.iter().for_each(|part| frames.assert_has_in_order("early frames", part));
        frames.assert_has_in_order(&format!("NIC pair {j} to guest pair {}", j % used), &own);
        let early: usize = parts.iter().map(Vec::len).sum();
        assert_eq!((own.len() + early) as u64, COUNT, "NIC pair {j}");
        assert!(early <= 256 * used, "NIC pair {j}: {early} frames did not go to guest pair {}", j % used);
    }
    assert_eq!(daemon.complaints(), [""; 0]);
}

#[test]
fn more_guest_pairs_than_nic_pairs() {
    run(4, 4, 1);
    run(4, 4, 2);
    run(3, 3, 2);
}

#[test]
fn more_nic_pairs_than_guest_pairs() {
    run(1, 1, 4);
    run(2, 2, 3);
}

#[test]
fn a_guest_that_uses_fewer_pairs_than_are_offered() {
    run(4, 1, 4);
    run(4, 2, 4);
    run(4, 3, 2);
}
