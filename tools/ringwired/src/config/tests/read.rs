//! Good files.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use engine::config::{
    Classes, GuestConfig, HugepagePolicy, NicConfig, PuntConfig, SocketConfig, SocketKind, all_offloads,
};

use super::{FULL, parse};
use crate::config::{ApiConfig, allowed_cores};

#[test]
fn a_full_file_is_read() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.api.socket, Path::new("/run/ringwire/api.sock"));
    assert_eq!(config.api.mode, 0o600);
    assert_eq!((config.api.owner, config.api.group), (Some(1), Some(4)));
    let datapath = config.datapath;
    assert_eq!(datapath.eal_args, ["--no-pci"]);
    assert!(matches!(datapath.hugepages, HugepagePolicy::Require));
    assert_eq!(datapath.cores, [1, 6]);
}

#[test]
fn its_nics_are_read() {
    let nics = [
        NicConfig {
            name: "wire0".into(),
            device: "0000:03:00.0".into(),
            queues: 4,
            mtu: Some(9000),
            promiscuous: false,
            lro: false,
        },
        NicConfig {
            name: "wire1".into(),
            device: "net_af_packet0,iface=eth1".into(),
            queues: 1,
            mtu: None,
            promiscuous: true,
            lro: false,
        },
    ];
    assert_eq!(parse(FULL).unwrap().datapath.nics, nics);
}

#[test]
fn its_guests_are_read() {
    let guest = |name: &str| GuestConfig {
        name: name.into(),
        socket: format!("/run/ringwire/{name}.sock").into(),
        socket_mode: None,
        socket_group: None,
        queues: 1,
        assign: BTreeMap::new(),
        backend: None,
        fallback: None,
        punt: None,
        fallback_hold: Duration::from_secs(3),
        mac: None,
        mtu: None,
        offloads: all_offloads(),
    };
    let classes = Classes { arp: true, lldp: true, mac: Some([2, 0, 0, 0, 0, 9]), ..Classes::default() };
    let guests = [
        GuestConfig {
            socket_mode: Some(0o660),
            socket_group: Some(3),
            queues: 2,
            backend: Some("wire0".into()),
            mac: Some([0x52, 0x54, 0, 0x12, 0x34, 0xff]),
            mtu: Some(1500),
            offloads: 1 << 0 | 1 << 11,
            ..guest("vm1")
        },
        guest("vm2"),
        GuestConfig {
            assign: BTreeMap::from([(0, 6)]),
            backend: Some("vm2".into()),
            fallback: Some("raw0".into()),
            punt: Some(PuntConfig { port: "tap2".into(), classes }),
            fallback_hold: Duration::ZERO,
            offloads: 0,
            ..guest("vm3")
        },
    ];
    assert_eq!(parse(FULL).unwrap().datapath.guests, guests);
}

#[test]
fn its_taps_and_raw_ports_are_read() {
    let socket = |kind, name: &str, interface: &str| SocketConfig {
        name: name.into(),
        kind,
        interface: interface.into(),
        descriptors: Vec::new(),
        queues: 1,
        user: None,
        group: None,
    };
    let sockets = [
        SocketConfig {
            queues: 2,
            user: Some(0),
            group: Some(1234),
            ..socket(SocketKind::Tap, "tap0", "rw-tap0")
        },
        SocketConfig { descriptors: vec![5], ..socket(SocketKind::Tap, "tap1", "") },
        socket(SocketKind::Tap, "tap2", "rw-tap2"),
        socket(SocketKind::Raw, "raw0", "eth2"),
    ];
    assert_eq!(parse(FULL).unwrap().datapath.sockets, sockets);
}

#[test]
fn the_smallest_file_has_a_core() {
    let config = parse("datapath.cores = [0]").unwrap();
    assert_eq!(config.api, ApiConfig::default());
    assert_eq!(config.datapath.cores, [0]);
    assert!(config.datapath.nics.is_empty() && config.datapath.guests.is_empty());
}

#[test]
fn queue_pairs_are_assigned_in_a_table_of_any_form() {
    let forms =
        ["assign = { 1 = 6, 0 = 1 }", "assign.0 = 1\nassign.\"1\" = 6", "[guest.assign]\n1 = 6\n0 = 0x1"];
    for form in forms {
        let config = parse(&FULL.replacen("offloads = [\"csum\", \"host_tso4\"]", form, 1)).unwrap();
        assert_eq!(config.datapath.guests[0].assign, BTreeMap::from([(0, 1), (1, 6)]), "{form}");
    }
}

#[test]
fn the_ends_of_the_ranges_are_allowed() {
    let text = FULL.replace("queues = 4", "queues = 128").replace("mtu = 9000", "mtu = 68");
    assert!(parse(&text).is_ok());
}

#[test]
fn a_nic_is_asked_for_lro() {
    let config = parse(&FULL.replace("promiscuous = false", "lro = true")).unwrap();
    assert_eq!(config.datapath.nics.iter().map(|nic| nic.lro).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn this_process_may_run_somewhere() {
    assert!(!allowed_cores().is_empty());
}
