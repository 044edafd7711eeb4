//! A network of the test's own: its thread leaves the host's network for a new one, and what it starts from then on is
//! in there, too. The network has a bridge into which interfaces are plugged. All is gone with the last process in
//! it, so a test that is killed leaves nothing behind.

use std::collections::BTreeMap;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use crate::namespace::run;
use crate::wait;

/// Name of the bridge.
pub const BRIDGE: &str = "br0";

/// The network this thread is in.
pub struct Lan(());

impl Lan {
    /// Moves this thread into a new network whose bridge has `address`, such as "10.0.0.1/24".
    pub fn enter(address: &str) -> Lan {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (as root)");
        // No IPv6 housekeeping in the counts.
        let quiet = "for kind in all default; do echo 1 >/proc/sys/net/ipv6/conf/$kind/disable_ipv6; done";
        run(&["sh", "-c", quiet]);
        run(&["ip", "link", "set", "lo", "up"]);
        run(&["ip", "link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0"]);
        run(&["ip", "addr", "add", address, "dev", BRIDGE]);
        run(&["ip", "link", "set", BRIDGE, "up"]);
        Lan(())
    }

    /// A veth pair: `NAME`, for a nic or raw port, and `NAMEb`, which is plugged in.
    pub fn veth(&self, name: &str) {
        let far = format!("{name}b");
        run(&["ip", "link", "add", name, "type", "veth", "peer", "name", &far]);
        for interface in [name, &far] {
            // No checksums and segments left to hardware that is not there.
            run(&["ethtool", "-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off"]);
        }
        self.plug_in(&far);
        self.set_up(name, true);
    }

    /// A tap, plugged in, that stays when nobody has it open. `more` is words such as `multi_queue`.
    pub fn tap(&self, name: &str, more: &[&str]) {
        run(&[&["ip", "tuntap", "add", name, "mode", "tap", "vnet_hdr"], more].concat());
        self.plug_in(name);
    }

    /// Plugs an interface into the bridge, and sets it up.
    pub fn plug_in(&self, interface: &str) {
        run(&["ip", "link", "set", interface, "master", BRIDGE]);
        self.set_up(interface, true);
    }

    /// Sets an interface up or down.
    pub fn set_up(&self, interface: &str, up: bool) {
        run(&["ip", "link", "set", interface, if up { "up" } else { "down" }]);
    }

    /// Says where frames to `mac` go, until one comes from it elsewhere. (Else the first would go everywhere.) The
    /// interface must have a carrier, which the bridge hears of a little later.
    pub fn expect_at(&self, mac: &str, interface: &str) {
        let command = ["fdb", "replace", mac, "dev", interface, "master", "dynamic"];
        wait::until(&format!("{interface} forwards"), 10, || {
            let output = Command::new("bridge").args(command).output().expect("bridge, of iproute2");
            if output.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&output.stderr).into_owned())
            }
        });
    }

    /// Packets that the kernel says to have lost, by interface and reason; those reasons that there were.
    pub fn lost(&self) -> BTreeMap<String, u64> {
        // `otherhost`: taken by a packet socket, and by nobody else.
        const NOT_LOST: [&str; 5] = ["packets", "bytes", "multicast", "carrier_changes", "otherhost"];
        let mut lost = BTreeMap::new();
        for (name, stats) in statistics(&[]) {
            for (way, counts) in stats.as_object().expect("both ways") {
                for (what, count) in counts.as_object().expect("counters") {
                    let count = count.as_u64().unwrap_or(0);
                    if count > 0 && !NOT_LOST.contains(&what.as_str()) {
                        lost.insert(format!("{name} {way} {what}"), count);
                    }
                }
            }
        }
        lost
    }

    /// Packets that have come to an interface.
    pub fn arrived(&self, interface: &str) -> u64 {
        statistics(&["dev", interface])[0].1["rx"]["packets"].as_u64().expect("a number")
    }
}

/// The kernel's statistics by interface.
fn statistics(of: &[&str]) -> Vec<(String, Value)> {
    let text = run(&[&["ip", "-json", "-stats", "-stats", "link", "show"], of].concat());
    let links: Vec<Value> = serde_json::from_str(&text).expect("JSON of ip");
    links
        .iter()
        .map(|link| (link["ifname"].as_str().expect("a name").to_owned(), link["stats64"].clone()))
        .collect()
}

/// Devargs of an AF_PACKET NIC on `interface`; each in a process has another number.
pub fn nic_device(number: usize, interface: &str) -> String {
    format!("net_af_packet{number},iface={interface},framesz=2048,blocksz=4096,framecnt=512,qpairs=1")
}

/// Devargs of a NIC whose other end is the kernel's interface `interface`; it comes and goes with the daemon.
pub fn tap_device(interface: &str) -> String {
    format!("net_tap0,iface={interface}")
}
