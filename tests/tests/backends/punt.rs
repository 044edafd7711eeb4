//! The exception path: what is for the host itself goes into a tap, everything else to the nic.

use std::time::Duration;

use tests::daemon::{self, drops};
use tests::lan::{Lan, nic_device};
use tests::linux_guest::{LinuxGuest, mark, skipped};
use tests::namespace::run;
use tests::scene::Scene;

/// The tap's hardware address.
const HOST_MAC: &str = "02:00:00:00:00:99";

/// The host is found by its address, which is what makes it an exception; the wire by ARP, which is none.
const SCRIPT: &str = r#"
ip addr add 10.79.7.2/24 dev eth0
ip addr add 10.80.7.2/24 dev eth0
ip link set eth0 up
ping -c 5 -i 0.2 -W 2 10.79.7.1 >/run/out || { cat /run/out; exit 10; }
mark "wire $(grep -c 'bytes from' /run/out)"
arp -s 10.80.7.1 HOST
ping -c 5 -i 0.2 -W 2 10.80.7.1 >/run/out || { cat /run/out; exit 11; }
mark "host $(grep -c 'bytes from' /run/out)"
"#;

#[test]
fn what_is_for_the_host_goes_into_a_tap() {
    if skipped() {
        return;
    }
    let lan = Lan::enter("10.79.7.1/24");
    lan.veth("wire0");
    run(&["ip", "tuntap", "add", "punt0", "mode", "tap", "vnet_hdr"]);
    run(&["ip", "link", "set", "punt0", "address", HOST_MAC, "up"]);
    run(&["ip", "addr", "add", "10.80.7.1/24", "dev", "punt0"]);
    let mut scene = Scene::new();
    scene.nic("wire0", &nic_device(0, "wire0"), 1, "");
    scene.guest("vm1", "wire0", 1);
    scene.add(&format!("punt = \"host\"\npunt_classes = [\"lldp\", \"lacp\"]\npunt_mac = \"{HOST_MAC}\"\n"));
    scene.add("\n[[tap]]\nname = \"host\"\ninterface = \"punt0\"\n");
    let mut daemon = scene.start();

    let guest = LinuxGuest::start(&scene, "vm1", &SCRIPT.replace("HOST", HOST_MAC), &[]);
    let said = guest.end().unwrap_or_else(|why| panic!("{why}\n{}", daemon.summary()));
    assert_eq!((mark(&said, "host"), mark(&said, "wire")), (5.0, 5.0));

    daemon.wait_connected("vm1", false);
    let [vm1, wire0, host] = ["vm1", "wire0", "host"].map(|name| daemon.port(name));
    println!("{}", daemon.summary());
    // Five pings, and on the wire the question who has the address; the host asks who the guest is.
    assert!(host.tx_packets >= 5 && host.rx_packets >= 5 && wire0.tx_packets >= 6, "{}", daemon.summary());
    assert_eq!(vm1.rx_packets, wire0.tx_packets + host.tx_packets + vm1.held + drops(&vm1));
    assert_eq!(vm1.tx_packets + vm1_missed(&wire0, &host), wire0.rx_packets + host.rx_packets);
    assert_eq!(daemon::guest(&vm1).backend, "wire0");
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

/// What came for the guest and did not reach it: it was held, or dropped, when the guest was off.
fn vm1_missed(wire0: &snapshot::Port, host: &snapshot::Port) -> u64 {
    [wire0, host].iter().map(|port| port.held + drops(port)).sum()
}
