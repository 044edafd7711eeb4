//! Bad files, with the exact line they are answered with.

use std::io::Write;

use super::{CORES, FULL, parse};
use crate::config::Config;

/// The line that a bad file is answered with.
fn refusal(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

/// A change of one line of [`FULL`], by its text, and the refusal from the line number on.
const ONE_LINE_CHANGES: &[(&str, &str, &str)] = &[
    // Syntax.
    ("[api]", "[api", "1: api: invalid TOML: unclosed table, expected `]`"),
    (
        "cores = [1, 6]",
        "cores = [1, 6",
        "13: datapath.idle: invalid TOML: missing comma between array elements, expected `,`",
    ),
    (
        "queues = 4",
        "queues =",
        "18: nic[0].queues: invalid TOML: string values must be quoted, expected literal string",
    ),
    ("idle = \"poll\"", "cores = [1]", "13: datapath.cores: invalid TOML: duplicate key"),
    // Unknown keys and sections.
    ("[eal]", "[dpdk]", "7: dpdk: unknown key (allowed: api, eal, datapath, nic, tap, raw, guest)"),
    (
        "[[guest]]",
        "[[guests]]",
        "26: guests: unknown key; did you mean \"guest\"? (allowed: api, eal, datapath, nic, tap, raw, \
         guest)",
    ),
    (
        "hugepages = \"require\"",
        "huge_pages = \"require\"",
        "9: eal.huge_pages: unknown key; did you mean \"hugepages\"? (allowed: args, hugepages)",
    ),
    (
        "queues = 4",
        "que = 4",
        "18: nic[0].que: unknown key (allowed: name, device, queues, mtu, promiscuous, lro)",
    ),
    (
        "queues = 2",
        "\"a b\" = 2",
        "30: guest[0].\"a b\": unknown key (allowed: name, socket, socket_mode, socket_group, mode, \
         queues, assign, backend, fallback, fallback_hold, offloads, punt, punt_classes, punt_mac, mac, mtu)",
    ),
    // Wrong types and shapes of sections.
    ("[eal]", "[[eal]]", "7: eal: expected a section, [eal], found a TOML array"),
    // [api]
    (
        "mode = \"0600\"",
        "mode = 660",
        "4: api.mode: expected an octal string, \"0000\" to \"0777\", found the integer 660",
    ),
    (
        "mode = \"0600\"",
        "mode = \"0o600\"",
        "4: api.mode: expected an octal string, \"0000\" to \"0777\", found \"0o600\"",
    ),
    (
        "mode = \"0600\"",
        "mode = \"1777\"",
        "4: api.mode: expected an octal string, \"0000\" to \"0777\", found \"1777\"",
    ),
    ("group = \"adm\"", "group = \"\"", "5: api.group: is empty (expected a group's name or number)"),
    ("owner = \"daemon\"", "owner = \"nobody-has\"", "2: api.owner: no user is called \"nobody-has\""),
    ("group = \"adm\"", "group = \"nobody-has\"", "5: api.group: no group is called \"nobody-has\""),
    (
        "socket = \"/run/ringwire/api.sock\"",
        "socket = \"/run/ringwire/\"",
        "3: api.socket: \"/run/ringwire/\" names no file",
    ),
    (
        "socket = \"/run/ringwire/api.sock\"",
        "socket = \"/run/\\u0000\"",
        "3: api.socket: has a control character (expected the path of a unix socket)",
    ),
    // [eal]
    (
        "hugepages = \"require\"",
        "hugepages = true",
        "9: eal.hugepages: expected \"auto\", \"require\", \"never\", found true",
    ),
    (
        "hugepages = \"require\"",
        "hugepages = \"required\"",
        "9: eal.hugepages: unknown value \"required\"; did you mean \"require\"? (allowed: auto, \
         require, never)",
    ),
    (
        "args = [\"--no-pci\"]",
        "args = \"--no-pci\"",
        "8: eal.args: expected an array of strings such as [\"--no-pci\"], found the string \"--no-pci\"",
    ),
    (
        "args = [\"--no-pci\"]",
        "args = [\"-m\", 64]",
        "8: eal.args[1]: expected an EAL argument, found the integer 64",
    ),
    // [datapath]
    (
        "cores = [1, 6]",
        "",
        "11: datapath.cores: missing (one worker is pinned to each core, such as cores = [1])",
    ),
    (
        "cores = [1, 6]",
        "cores = []",
        "12: datapath.cores: is empty (one worker is pinned to each core, such as cores = [1])",
    ),
    (
        "cores = [1, 6]",
        "cores = [1, 3]",
        "12: datapath.cores[1]: this process may not run on core 3 (allowed: 0-2, 6)",
    ),
    (
        "cores = [1, 6]",
        "cores = [1, 1]",
        "12: datapath.cores[1]: same as datapath.cores[0] on line 12: each core gets one worker",
    ),
    (
        "cores = [1, 6]",
        "cores = [-1]",
        "12: datapath.cores[0]: expected an integer from 0 to 65535, found the integer -1",
    ),
    (
        "cores = [1, 6]",
        "cores = 1",
        "12: datapath.cores: expected an array of core numbers, found the integer 1",
    ),
    (
        "idle = \"poll\"",
        "idle = \"sleep\"",
        "13: datapath.idle: unknown value \"sleep\" (allowed: poll, adaptive)",
    ),
    (
        "idle = \"poll\"",
        "burst = 65",
        "13: datapath.burst: expected an integer from 1 to 64, found the integer 65",
    ),
    // [[nic]]
    ("name = \"wire0\"", "", "15: nic[0].name: missing (every port has one)"),
    (
        "name = \"wire0\"",
        "name = \"none\"",
        "16: nic[0].name: \"none\" stands for no backend and cannot be a name",
    ),
    (
        "name = \"wire0\"",
        "name = \"wire/0\"",
        "16: nic[0].name: \"wire/0\" cannot be a name (allowed: 1 to 64 of A-Z a-z 0-9 _ . -)",
    ),
    (
        "name = \"wire0\"",
        "name = \"..\"",
        "16: nic[0].name: \"..\" cannot be a name (allowed: 1 to 64 of A-Z a-z 0-9 _ . -)",
    ),
    ("device = \"0000:03:00.0\"", "", "15: nic[0].device: missing (a PCI address or vdev devargs)"),
    (
        "device = \"0000:03:00.0\"",
        "device = \",iface=eth0\"",
        "17: nic[0].device: \",iface=eth0\" is no device (allowed: a PCI address such as \
         \"0000:03:00.0\", or a vdev such as \"net_af_packet0,iface=eth1\")",
    ),
    (
        "device = \"0000:03:00.0\"",
        "device = \"net_af_packet0,iface=eth0\"",
        "24: nic[1].device: same as nic[0].device on line 17: a device is one nic; vdev names are unique \
         (net_pcap0, net_pcap1, ...)",
    ),
    (
        "queues = 4",
        "queues = 129",
        "18: nic[0].queues: expected an integer from 1 to 128, found the integer 129",
    ),
    ("mtu = 9000", "mtu = 67", "19: nic[0].mtu: expected an integer from 68 to 9600, found the integer 67"),
    (
        "mtu = 9000",
        "mtu = 0xffff_ffff_ffff_ffff_ffff",
        "19: nic[0].mtu: expected an integer from 68 to 9600, found the integer \
         0xffffffffffffffffffff",
    ),
    (
        "promiscuous = false",
        "promiscuous = \"no\"",
        "20: nic[0].promiscuous: expected true or false, found the string \"no\"",
    ),
    ("promiscuous = false", "lro = 1", "20: nic[0].lro: expected true or false, found the integer 1"),
    // [[guest]]
    (
        "name = \"vm1\"",
        "name = \"wire1\"",
        "27: guest[0].name: same as nic[1].name on line 23: port names are unique",
    ),
    (
        "socket = \"/run/ringwire/vm1.sock\"",
        "",
        "26: guest[0].socket: missing (the vhost-user socket's path)",
    ),
    (
        "socket = \"/run/ringwire/vm1.sock\"",
        "socket = \"/run//ringwire/api.sock\"",
        "28: guest[0].socket: same as api.socket on line 3: each socket is listened on once",
    ),
    (
        "mode = \"server\"",
        "mode = \"client\"",
        "29: guest[0].mode: \"client\" is not supported in this version (allowed: \"server\")",
    ),
    (
        "mode = \"server\"",
        "fallback = \"vm2\"",
        "29: guest[0].fallback: no nic, tap or raw port has the name \"vm2\" (allowed: wire0, wire1, tap0, tap1, \
         tap2, raw0)",
    ),
    (
        "mode = \"server\"",
        "punt = \"raw0\"",
        "29: guest[0].punt: no tap has the name \"raw0\" (allowed: tap1, tap2)",
    ),
    (
        "mode = \"server\"",
        "punt_mac = \"02:00:00:00:00:01\"",
        "29: guest[0].punt_mac: says nothing without punt, the tap that it is about",
    ),
    (
        "mode = \"server\"",
        "punt = \"tap1\"\npunt_classes = [\"ndp\"]",
        "30: guest[0].punt_classes[0]: unknown value \"ndp\"; did you mean \"nd\"? (allowed: arp, nd, lldp, lacp)",
    ),
    (
        "mode = \"server\"",
        "fallback_hold = 3601",
        "29: guest[0].fallback_hold: expected an integer from 0 to 3600, found the integer 3601",
    ),
    (
        "mode = \"server\"",
        "assign = { 0 = 6, 2 = 1 }",
        "29: guest[0].assign.2: is no queue pair of the guest (allowed: 0-1)",
    ),
    (
        "mode = \"server\"",
        "assign = { 00 = 6 }",
        "29: guest[0].assign.00: is no queue pair of the guest (allowed: 0-1)",
    ),
    (
        "mode = \"server\"",
        "assign = { 1 = 2 }",
        "29: guest[0].assign.1: core 2 has no worker (allowed: 1, 6)",
    ),
    (
        "mode = \"server\"",
        "assign = { 1 = \"any\" }",
        "29: guest[0].assign.1: expected an integer from 0 to 65535, found the string \"any\"",
    ),
    (
        "mode = \"server\"",
        "assign = [1]",
        "29: guest[0].assign: expected a table of queue pairs and cores, such as { 0 = 1 }, found a TOML array",
    ),
    (
        "queues = 2",
        "queues = 0",
        "30: guest[0].queues: expected an integer from 1 to 128, found the integer 0",
    ),
    (
        "queues = 2",
        "queues = 1.5",
        "30: guest[0].queues: expected an integer from 1 to 128, found a TOML float",
    ),
    (
        "backend = \"wire0\"",
        "backend = \"wier0\"",
        "31: guest[0].backend: no port has the name \"wier0\"; did you mean \"wire0\"? (allowed: wire0, \
         wire1, tap0, tap1, tap2, raw0, vm2, vm3, none)",
    ),
    ("backend = \"wire0\"", "backend = \"vm1\"", "31: guest[0].backend: is the guest itself"),
    ("backend = \"wire0\"", "backend = \"vm3\"", "31: guest[0].backend: has another backend itself: \"vm2\""),
    (
        "socket_mode = \"0660\"",
        "socket_mode = \"rw\"",
        "32: guest[0].socket_mode: expected an octal string, \"0000\" to \"0777\", found \"rw\"",
    ),
    (
        "mac = \"52:54:00:12:34:Ff\"",
        "mac = \"52:54:00:12:34\"",
        "34: guest[0].mac: expected a hardware address such as \"52:54:00:12:34:56\", found \
         \"52:54:00:12:34\"",
    ),
    (
        "mac = \"52:54:00:12:34:Ff\"",
        "mac = \"01:00:5e:00:00:01\"",
        "34: guest[0].mac: \"01:00:5e:00:00:01\" is not a unicast address",
    ),
    (
        "[\"csum\", \"host_tso4\"]",
        "\"on\"",
        "36: guest[0].offloads: unknown value \"on\" (allowed: auto, off), or an array of offloads",
    ),
    (
        "[\"csum\", \"host_tso4\"]",
        "3",
        "36: guest[0].offloads: expected \"auto\", \"off\" or an array of offloads, found the integer 3",
    ),
    (
        "\"host_tso4\"",
        "\"host_tso\"",
        "36: guest[0].offloads[1]: unknown value \"host_tso\"; did you mean \"host_tso4\"? (allowed: csum, \
         guest_csum, guest_tso4, guest_tso6, guest_ecn, guest_ufo, guest_uso4, guest_uso6, host_tso4, host_tso6, \
         host_ecn, host_ufo, host_uso)",
    ),
    (
        "mtu = 1500",
        "mtu = 9601",
        "35: guest[0].mtu: expected an integer from 68 to 9600, found the integer 9601",
    ),
    (
        "socket = \"/run/ringwire/vm2.sock\"",
        "socket = \"/run/ringwire/vm1.sock\"",
        "40: guest[1].socket: same as guest[0].socket on line 28: each socket is listened on once",
    ),
    (
        "socket = \"/run/ringwire/vm2.sock\"",
        "socket = \"/v2\"\nbackend = \"wire0\"",
        "41: guest[1].backend: same as guest[0].backend on line 31: a port is the backend of one guest",
    ),
    (
        "name = \"vm2\"",
        "name = \"vm1\"",
        "39: guest[1].name: same as guest[0].name on line 27: port names are unique",
    ),
];

#[test]
fn a_bad_file_is_answered_with_its_line_and_key() {
    let mut wrong = Vec::new();
    for (from, to, refused) in ONE_LINE_CHANGES {
        assert!(FULL.contains(from), "{from}");
        let line = refusal(&FULL.replacen(from, to, 1));
        let expected = format!("rw.toml:{refused}");
        if line != expected {
            wrong.push(format!("{from} -> {to}\n  is: {line}\n  not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_bad_tap_or_raw_port_is_answered_with_its_line_and_key() {
    let file = |keys: &str| format!("datapath.cores = [1]\n[[tap]]\nname = \"x\"\n{keys}\n");
    for (keys, refused) in [
        ("", "2: tap[0].interface: missing (the kernel's name of it, such as \"eth2\")"),
        (
            "interface = \"a-name-of-16-byte\"",
            "4: tap[0].interface: \"a-name-of-16-byte\": no interface can have this name: it is longer than 15 bytes",
        ),
        (
            "interface = \"a%d\"",
            "4: tap[0].interface: \"a%d\": no interface can have this name: it has a blank, a control character or \
             one of / : % in it",
        ),
        (
            "fds = [4]\ninterface = \"a\"",
            "5: tap[0].interface: cannot be combined with fds: open descriptors have their interface",
        ),
        ("fds = [4]\nqueues = 2", "4: tap[0].fds: has 1 descriptors, but queues is 2"),
        ("fds = [-1]", "4: tap[0].fds[0]: expected an integer from 0 to 65535, found the integer -1"),
        ("interface = \"a\"\nuser = \"no-such-user\"", "5: tap[0].user: no user is called \"no-such-user\""),
        (
            "interface = \"a\"\n[[raw]]\nname = \"y\"\ninterface = \"a\"",
            "7: raw[0].interface: same as tap[0].interface on line 4: an interface is one port",
        ),
        (
            "interface = \"a\"\n[[raw]]\nname = \"y\"\nuser = \"root\"",
            "7: raw[0].user: unknown key (allowed: name, interface, fds, queues)",
        ),
    ] {
        assert_eq!(refusal(&file(keys)), format!("rw.toml:{refused}"));
    }
}

#[test]
fn where_nothing_can_be_named_that_is_said() {
    let alone = "datapath.cores = [1]\n[[guest]]\nname = \"a\"\nsocket = \"/a\"\n";
    for (key, line) in [
        (
            "fallback",
            "rw.toml:5: guest[0].fallback: no nic, tap or raw port has the name \"b\" (there is none)",
        ),
        ("punt", "rw.toml:5: guest[0].punt: no tap has the name \"b\" (there is none)"),
    ] {
        assert_eq!(refusal(&format!("{alone}{key} = \"b\"\n")), line);
    }
}

/// Such as a file of another program.
#[test]
fn a_line_without_end_is_not_shown_in_full() {
    let line = refusal(&format!("[api]\n{} = 1\n", "é[".repeat(5000)));
    assert!(line.starts_with("rw.toml:2: api.") && line.len() < 400, "{line}");
}

#[test]
fn a_section_with_the_wrong_brackets_says_which_ones() {
    let expected = "rw.toml:2: nic: expected a repeatable section, [[nic]], found a TOML table";
    assert_eq!(refusal("datapath.cores = [1]\n[nic]\nname = \"a\""), expected);
}

#[test]
fn an_empty_file_lacks_cores() {
    let expected = "rw.toml:1: datapath.cores: missing (one worker is pinned to each core, such as \
                    cores = [1])";
    assert_eq!(refusal(""), expected);
}

#[test]
fn a_socket_path_of_108_bytes_is_too_long() {
    let path = |length: usize| format!("/{}", "x".repeat(length - 1));
    let text = |length| FULL.replace("/run/ringwire/vm1.sock", &path(length));
    assert!(parse(&text(107)).is_ok());
    let expected = "rw.toml:28: guest[0].socket: 108 bytes are too long for a unix socket (allowed: 107)";
    assert_eq!(refusal(&text(108)), expected);
}

#[test]
fn a_pci_address_without_domain_is_the_same_device() {
    let text = FULL.replace("net_af_packet0,iface=eth1", "03:00.0,arg=1");
    assert!(refusal(&text).starts_with("rw.toml:24: nic[1].device: same as nic[0].device on line 17"));
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rw.toml");
    let refusal = || Config::load(&file, &CORES).unwrap_err().to_string();
    let name = file.display();
    let missing = format!("{name}: cannot be read: No such file or directory (os error 2)");
    assert_eq!(refusal(), missing);
    std::fs::write(&file, b"[api]\ngroup = \"k\xffvm\"\n").unwrap();
    assert_eq!(refusal(), format!("{name}:2: api.group: not UTF-8 text"));
}

#[test]
fn a_pipe_is_read_while_somebody_writes_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("rw.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = Config::load(&pipe, &CORES).unwrap_err().to_string();
    assert!(error.contains("datapath.cores: missing"), "{error}");
    // Opened for both, it waits for no reader.
    let mut writer = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let written = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        writer.write_all(FULL.as_bytes()).unwrap();
    });
    let config = Config::load(&pipe, &CORES).unwrap();
    written.join().unwrap();
    assert_eq!(config.datapath.cores, [1, 6]);
}
