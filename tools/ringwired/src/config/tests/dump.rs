//! What is read, as a file again.

use super::{CORES, FULL, parse};
use crate::config::Config;
use crate::config::file::File;

const DUMPED: &str = r#"[api]
socket = "/run/ringwire/api.sock"
mode = "0600"
owner = "daemon"
group = "adm"

[eal]
args = ["--no-pci"]
hugepages = "require"

[datapath]
cores = [1, 6]
idle = "poll"
burst = 64

[[nic]]
name = "wire0"
device = "0000:03:00.0"
queues = 4
mtu = 9000
promiscuous = false
lro = false

[[nic]]
name = "wire1"
device = "net_af_packet0,iface=eth1"
queues = 1
promiscuous = true
lro = false

[[tap]]
name = "tap0"
interface = "rw-tap0"
queues = 2
user = "root"
group = "1234"

[[tap]]
name = "tap1"
fds = [5]
queues = 1

[[tap]]
name = "tap2"
interface = "rw-tap2"
queues = 1

[[raw]]
name = "raw0"
interface = "eth2"
queues = 1

[[guest]]
name = "vm1"
socket = "/run/ringwire/vm1.sock"
socket_mode = "0660"
socket_group = "sys"
queues = 2
backend = "wire0"
fallback_hold = 3
mac = "52:54:00:12:34:ff"
mtu = 1500
offloads = ["csum", "host_tso4"]

[[guest]]
name = "vm2"
socket = "/run/ringwire/vm2.sock"
queues = 1
backend = "vm3"
fallback_hold = 3
offloads = "auto"

[[guest]]
name = "vm3"
socket = "/run/ringwire/vm3.sock"
queues = 1
backend = "vm2"
fallback = "raw0"
fallback_hold = 0
punt = "tap2"
punt_classes = ["arp", "lldp"]
punt_mac = "02:00:00:00:00:09"
offloads = "off"

[guest.assign]
0 = 6
"#;

#[test]
fn a_file_is_dumped_with_all_its_keys_and_read_again() {
    let text = File::of(&parse(FULL).unwrap().canonical()).text();
    assert_eq!(text, DUMPED);
    let again = Config::parse("dump", &text, &CORES).unwrap().canonical();
    assert_eq!(File::of(&again).text(), DUMPED);
}

/// `ringwire backend set` can connect a guest to its fallback.
#[test]
fn a_fallback_may_be_the_backend_itself() {
    let text = DUMPED.replace("backend = \"wire0\"", "backend = \"wire0\"\nfallback = \"wire0\"");
    assert!(parse(&text).is_ok());
}
