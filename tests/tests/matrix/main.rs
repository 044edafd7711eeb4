//! Checksums and segments that are left to do, between any two ports: what arrives, of frames of each kind and size, is
//! judged by scapy, cell by cell.
//!
//! What leaves them is a guest of our own, whose virtio-net headers say exactly what a test wants; DPDK's virtio-user; or
//! Linux, that sends or forwards. In the tables, "46 finished" are frames with nothing left to do, "1 to cut" is a frame
//! whose header says rightly how to cut it, and "1 to sum" one whose header says where its checksum belongs.

mod cells;
mod control;
mod stage;
mod streams;
mod verdict;
mod want;

use std::process::Command;

use cells::Cell;
use stage::{Backend, Linux, Sender, Taker};
use verdict::{assert_right, judge, without_scapy};
use want::Want;

/// All cells, with what is wanted of each.
fn wants(want: impl Fn(&Cell) -> Want) -> Vec<(Cell, Want)> {
    Cell::all().into_iter().map(|cell| (cell, want(&cell))).collect()
}

fn from_guest(sender: Sender, backend: Backend) {
    if without_scapy() {
        return;
    }
    let wants = wants(|cell| match sender {
        Sender::Prepared => Want::behind(backend, cell),
        Sender::VirtioUser => Want::of_testpmd(backend, cell),
    });
    let (scene, arrived) = stage::guest_to(sender, backend, &wants);
    assert_right(
        &format!("guest ({sender:?}) -> {backend:?}"),
        &judge(&scene.path(""), true, &wants, &arrived),
    );
}

fn between_guests(taker: Taker) {
    if without_scapy() {
        return;
    }
    let wants = wants(|cell| Want::of(taker, cell));
    let (scene, arrived) = stage::guest_to_guest(taker, &wants);
    assert_right(
        &format!("guest -> guest that takes {taker:?}"),
        &judge(&scene.path(""), true, &wants, &arrived),
    );
}

/// Whether the kernel can have VLAN interfaces. Tried in a network that is gone then.
fn has_vlans() -> bool {
    let mut tried = Command::new("unshare");
    tried.args(["--net", "ip", "link", "add", "link", "lo", "name", "vlan0", "type", "vlan", "id", "5"]);
    tried.output().expect("unshare, of util-linux").status.success()
}

fn from_linux(linux: Linux, backend: Backend, taker: Taker) {
    if without_scapy() {
        return;
    }
    let vlans = has_vlans();
    let wants = wants(|cell| match linux {
        Linux::Sends => Want::of_kernel(backend, taker, vlans, cell),
        Linux::Forwards => Want::of_forwarded(backend, taker, cell),
    });
    let (scene, arrived) = stage::linux_to_guest(linux, backend, taker, &wants);
    let title = format!("Linux {linux:?} -> {backend:?} -> guest that takes {taker:?}");
    // What its stack sends has our payload, but headers of its own.
    let exact = linux == Linux::Forwards;
    assert_right(&title, &judge(&scene.path(""), exact, &wants, &arrived));
}

/// Each line is a test.
macro_rules! tests {
    ($($name:ident: $function:ident($($argument:path),*);)*) => {
        $(#[test]
        fn $name() {
            $function($($argument),*);
        })*
    };
}

tests! {
    matrix_guest_to_af_packet: from_guest(Sender::Prepared, Backend::AfPacket);
    matrix_guest_to_pcap: from_guest(Sender::Prepared, Backend::Pcap);
    matrix_guest_to_net_tap: from_guest(Sender::Prepared, Backend::NetTap);
    matrix_guest_to_tap: from_guest(Sender::Prepared, Backend::Tap);
    matrix_guest_to_raw: from_guest(Sender::Prepared, Backend::Raw);
    matrix_virtio_user_to_af_packet: from_guest(Sender::VirtioUser, Backend::AfPacket);
    matrix_virtio_user_to_net_tap: from_guest(Sender::VirtioUser, Backend::NetTap);
    matrix_virtio_user_to_tap: from_guest(Sender::VirtioUser, Backend::Tap);
    matrix_virtio_user_to_raw: from_guest(Sender::VirtioUser, Backend::Raw);
    matrix_guest_to_guest_whole: between_guests(Taker::Whole);
    matrix_guest_to_guest_merged: between_guests(Taker::Merged);
    matrix_guest_to_guest_sums: between_guests(Taker::Sums);
    matrix_guest_to_guest_nothing: between_guests(Taker::Nothing);
    matrix_linux_through_tap_whole: from_linux(Linux::Sends, Backend::Tap, Taker::Whole);
    matrix_linux_through_tap_merged: from_linux(Linux::Sends, Backend::Tap, Taker::Merged);
    matrix_linux_through_tap_sums: from_linux(Linux::Sends, Backend::Tap, Taker::Sums);
    matrix_linux_through_tap_nothing: from_linux(Linux::Sends, Backend::Tap, Taker::Nothing);
    matrix_linux_through_raw_whole: from_linux(Linux::Sends, Backend::Raw, Taker::Whole);
    matrix_linux_through_raw_merged: from_linux(Linux::Sends, Backend::Raw, Taker::Merged);
    matrix_linux_through_raw_sums: from_linux(Linux::Sends, Backend::Raw, Taker::Sums);
    matrix_linux_through_raw_nothing: from_linux(Linux::Sends, Backend::Raw, Taker::Nothing);
    matrix_linux_through_af_packet_merged: from_linux(Linux::Sends, Backend::AfPacket, Taker::Merged);
    matrix_linux_through_af_packet_nothing: from_linux(Linux::Sends, Backend::AfPacket, Taker::Nothing);
    matrix_linux_through_net_tap_merged: from_linux(Linux::Sends, Backend::NetTap, Taker::Merged);
    matrix_linux_through_net_tap_nothing: from_linux(Linux::Sends, Backend::NetTap, Taker::Nothing);
    matrix_forwarded_through_tap_merged: from_linux(Linux::Forwards, Backend::Tap, Taker::Merged);
    matrix_forwarded_through_tap_sums: from_linux(Linux::Forwards, Backend::Tap, Taker::Sums);
    matrix_forwarded_through_tap_nothing: from_linux(Linux::Forwards, Backend::Tap, Taker::Nothing);
    matrix_forwarded_through_raw_whole: from_linux(Linux::Forwards, Backend::Raw, Taker::Whole);
    matrix_forwarded_through_raw_merged: from_linux(Linux::Forwards, Backend::Raw, Taker::Merged);
    matrix_forwarded_through_raw_sums: from_linux(Linux::Forwards, Backend::Raw, Taker::Sums);
    matrix_forwarded_through_raw_nothing: from_linux(Linux::Forwards, Backend::Raw, Taker::Nothing);
    matrix_forwarded_through_af_packet_nothing: from_linux(Linux::Forwards, Backend::AfPacket, Taker::Nothing);
}
