//! A guest's backend changes in the file, under load: what is missing has a name, nothing comes twice or late.

use std::time::Duration;

use tests::daemon;
use tests::lan::Lan;
use tests::pair::{self, Stream};

use crate::stage::{By, Stage};

const SWITCHES: usize = 8;

#[test]
fn numbered_packets_while_the_file_changes_their_backend() {
    let lan = Lan::enter("10.79.10.1/24");
    let mut stage = Stage::start(pair::on_nics(&lan));
    let stream = Stream::start(&lan, &stage.scene, &stage.daemon, &["--rate", "10kpps"]);
    for (turn, by) in
        [By::Client, By::Client, By::Hangup, By::Hangup].into_iter().cycle().take(SWITCHES).enumerate()
    {
        let (from, to) = if turn % 2 == 0 { ("wire0", "tap0") } else { ("tap0", "wire0") };
        stage.edit(&[("backend = \"wire0\"", &format!("backend = {to:?}"))]);
        assert_eq!(stage.reload(by), [format!("guest vm1: backend {from} -> {to}")], "{by:?}");
        assert_eq!(daemon::guest(&stage.daemon.port("vm1")).backend, to);
        let taken = stage.daemon.port("vm1").rx_packets;
        stage.daemon.wait_count("vm1", "rx", 10, taken + 200, |port| port.rx_packets);
    }
    let seen = stream.end(&stage.daemon);
    assert!(seen.iter().all(|guest| guest.received > 2000), "{seen:?}");
    assert_eq!(daemon::guest(&stage.daemon.port("vm1")).connections, 1);
    assert!(stage.daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(stage.daemon.complaints(), [""; 0]);
}

/// A NIC is made anew under a guest, which stays connected.
#[test]
fn a_nic_is_made_anew_under_its_guest() {
    let lan = Lan::enter("10.79.11.1/24");
    let mut stage = Stage::start(pair::on_nics(&lan));
    let stream = Stream::start(&lan, &stage.scene, &stage.daemon, &["--rate", "5kpps"]);
    for by in [By::Client, By::Hangup] {
        for (promiscuous, from, to) in [("promiscuous = false\n", true, false), ("", false, true)] {
            stage.edit(&[("name = \"wire0\"\n", &format!("name = \"wire0\"\n{promiscuous}"))]);
            let line = format!("nic wire0: promiscuous {from} -> {to} (made anew)");
            assert_eq!(stage.reload(by), [line], "{by:?}");
            assert_eq!(daemon::nic(&stage.daemon.port("wire0")).promiscuous, to);
        }
        let (vm1, vm2) = (stage.daemon.port("vm1"), stage.daemon.port("vm2"));
        stage.daemon.wait_count("vm1", "tx", 10, vm1.tx_packets + 200, |port| port.tx_packets);
        stage.daemon.wait_count("vm2", "tx", 10, vm2.tx_packets + 200, |port| port.tx_packets);
        assert_eq!(daemon::guest(&vm1).connections, 1);
    }
    drop(stream);
    assert!(stage.daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(stage.daemon.complaints(), [""; 0]);
}

/// Each packet by itself, a few, and as many as there can be: none is lost by the change.
#[test]
fn workers_move_more_or_fewer_packets_at_a_time() {
    let lan = Lan::enter("10.79.12.1/24");
    let mut stage = Stage::start(pair::on_nics(&lan));
    let stream = Stream::start(&lan, &stage.scene, &stage.daemon, &["--rate", "5kpps"]);
    let mut before = 64;
    for burst in [1, 7, 32, 64] {
        stage.edit(&[("[datapath]\n", &format!("[datapath]\nburst = {burst}\n"))]);
        assert_eq!(stage.reload(By::Client), [format!("workers: burst {before} -> {burst}")]);
        assert_eq!(stage.daemon.status().burst, burst);
        let (vm1, vm2) = (stage.daemon.port("vm1"), stage.daemon.port("vm2"));
        stage.daemon.wait_count("vm1", "tx", 10, vm1.tx_packets + 1000, |port| port.tx_packets);
        stage.daemon.wait_count("vm2", "tx", 10, vm2.tx_packets + 1000, |port| port.tx_packets);
        before = burst;
    }
    let seen = stream.end(&stage.daemon);
    assert!(seen.iter().all(|guest| guest.received > 2000), "{seen:?}");
    assert!(stage.daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(stage.daemon.complaints(), [""; 0]);
}
