//! What cannot be passed on is dropped under a name, and what can be is not disturbed by it.

use std::time::Duration;

use tests::daemon::{assert_balanced, drops};
use tests::frames::Frames;
use tests::pcap;
use tests::relay::Relay;
use tests::scene::{Scene, pcap_device};
use tests::testpmd::{Setup, Testpmd, virtio_user};

/// Frames each way.
const FRAMES: u64 = 2_000;
/// Bytes of data in each of the guest's mbufs, and so in each of its receive buffers.
const ROOM: usize = 1024;
/// The NIC's MTU, and the frame that allows (Ethernet header and one VLAN tag are no part of it).
const MTU: usize = 1500;

#[test]
fn frames_too_long_for_the_guest_or_the_nic_are_counted() {
    let mut scene = Scene::new();
    let [to_guest, at_guest, to_nic, at_nic] =
        ["to-guest", "at-guest", "to-nic", "at-nic"].map(|n| scene.path(n));
    let into = Frames { count: FRAMES, lengths: 60..=MTU + 14, seed: 1 };
    let out = Frames { count: FRAMES, lengths: 60..=3000, seed: 2 };
    pcap::write(&to_guest, into.iter());
    pcap::write(&to_nic, out.iter());
    scene.nic(
        "wire0",
        &pcap_device("net_pcap0", &[to_guest], std::slice::from_ref(&at_nic)),
        1,
        "mtu = 1500",
    );
    scene.guest("vm1", "wire0", 1);
    let mut daemon = scene.start();
    let relay = Relay::start(&scene.socket("relay"), &scene.socket("vm1"), 0);
    let port = virtio_user(&scene.socket("relay"), 1, 256) + ",mrg_rxbuf=0";
    let file = pcap_device("net_pcap0", &[to_nic], std::slice::from_ref(&at_guest));
    let setup = Setup { mbuf_size: ROOM + 128, max_frame: ROOM, ..Setup::small([port, file]) };
    let mut guest = Testpmd::start("guest", &setup, &scene.path("guest.log"));
    relay.open();
    guest.forward();
    daemon.wait_count("vm1", "rx", 20, FRAMES, |port| port.rx_packets);
    daemon.wait_count("wire0", "rx", 20, FRAMES, |port| port.rx_packets);
    let fits_guest: Vec<_> = into.iter().filter(|frame| frame.len() <= ROOM).collect();
    daemon.wait_count("vm1", "tx", 20, fits_guest.len() as u64, |port| port.tx_packets);
    std::thread::sleep(Duration::from_millis(100));
    guest.quit();
    assert_balanced(&daemon, "vm1", "wire0");
    let (vm1, wire0) = (daemon.port("vm1"), daemon.port("wire0"));
    assert!(daemon.stop(Duration::from_secs(5)).success());

    assert_eq!(pcap::read(&at_guest), fits_guest);
    assert_eq!(wire0.drops["guest_buffer_too_small"], FRAMES - fits_guest.len() as u64);
    assert_eq!(drops(&wire0), wire0.drops["guest_buffer_too_small"]);

    // A tag more or less is the driver's affair: between the two, either is right.
    let at_nic = pcap::read(&at_nic);
    let longest = at_nic.iter().map(Vec::len).max().expect("frames");
    assert!((MTU + 14..=MTU + 22).contains(&longest), "{longest}");
    let fits_nic: Vec<_> = out.iter().filter(|frame| frame.len() <= longest).collect();
    assert_eq!(at_nic, fits_nic);
    assert_eq!(vm1.drops["oversize"], FRAMES - fits_nic.len() as u64);
    assert_eq!(drops(&vm1), vm1.drops["oversize"]);
}
