//! Guests are added, connected to and removed.

use std::path::Path;
use std::time::Duration;

use snapshot::Port;
use tests::bare_guest::{BareGuest, FROM, TO};
use tests::daemon::{self, Daemon, drops};
use tests::link_socket::LinkSocket;
use vhost::VhostBackend;

use crate::witness::{Witness, idle_fds, settled, wait_exactly};

/// Packets that show that there is traffic.
const SOME: u64 = 5_000;

/// What `guest` has sent is all at `backend`, or among its drops.
fn assert_accounted(guest: &Port, backend: &Port) {
    assert_eq!(guest.held, 0, "{guest:?}");
    assert_eq!(guest.rx_packets, backend.tx_packets + drops(guest), "{guest:?}, {backend:?}");
    assert_eq!(
        backend.rx_packets,
        guest.tx_packets + backend.held + drops(backend),
        "{guest:?}, {backend:?}"
    );
}

#[test]
fn a_guest_is_added_used_and_removed_under_load() {
    let witness = Witness::start(|_, scene| scene.nic("wire0", "net_null0,size=64,copy=1", 1, ""));
    let daemon = &witness.daemon;
    let socket = witness.scene.socket("vm1");
    let path = socket.to_str().expect("a path");
    let idle_fds = idle_fds(daemon);
    let before = daemon.port("wire0");
    assert_eq!((before.rx_packets, before.tx_packets), (0, 0));
    let (mut sent, mut taken, mut lost) = (0, 0, 0);
    for round in 0..5 {
        let arguments =
            ["port", "add", "guest", "vm1", "--socket", path, "--backend", "wire0", "--socket-mode", "0600"];
        let added = witness.answer(&arguments);
        let part = daemon::guest(&added);
        assert_eq!((added.state.as_str(), part.backend.as_str()), ("disconnected", "wire0"));
        assert_eq!(part.frontend.socket_file.map(|file| file.mode), Some(0o600));
        let guest = BareGuest::connect(&socket, 64);
        assert!(guest.frontend().get_features().is_ok(), "it is served");
        let load = guest.load([0, 0]);
        daemon.wait_count("vm1", "rx", 20, SOME, |port| port.rx_packets);
        daemon.wait_count("vm1", "tx", 20, SOME, |port| port.tx_packets);
        // In the middle of its traffic, and with its frontend connected.
        let last = witness.answer(&["port", "remove", "vm1"]);
        assert!(!socket.exists(), "its socket is removed");
        assert!(daemon.status().ports.iter().all(|port| port.name != "vm1"));
        let mut guest = load.end();
        assert!(guest.frontend().get_features().is_err(), "its frontend is hung up on");
        guest.turn();
        assert_eq!(
            guest.rings[FROM].total, last.rx_packets,
            "round {round}: chains returned, and packets counted"
        );
        assert_eq!(guest.rings[TO].total, last.tx_packets, "round {round}");
        assert!(
            guest.rings.iter().all(|ring| ring.wrong.is_empty()),
            "{:?}",
            guest.rings.each_ref().map(|r| &r.wrong)
        );
        (sent, taken, lost) = (sent + last.rx_packets, taken + last.tx_packets, lost + drops(&last));
        let wire0 = daemon.port("wire0");
        assert_eq!((wire0.tx_packets, wire0.rx_packets), (sent - lost, taken + wire0.held + drops(&wire0)));
        let fds = settled(|| daemon.child.fds(), |fds| *fds == idle_fds);
        assert_eq!(fds, idle_fds, "descriptors after round {round}");
    }
    witness.end(&[]);
}

/// Connects vm1, which sends ten frames to `host`, and takes one from there.
fn exchange(daemon: &Daemon, socket: &Path, host: &LinkSocket) -> BareGuest {
    let mut guest = BareGuest::connect(socket, 64);
    [TO, FROM].into_iter().for_each(|ring| guest.start_ring(ring, 0));
    guest.post(TO);
    (0..10).for_each(|_| guest.post_one(FROM));
    for _ in 0..10 {
        assert_eq!(host.receive(Duration::from_secs(10)).expect("a frame of the guest's").len(), 64);
    }
    assert!(host.send(&[0x5a; 60]));
    wait_exactly(daemon, "vm1", "tx", 1, |port| port.tx_packets);
    guest
}

#[test]
fn a_guest_comes_with_an_interface_and_goes_with_it() {
    let witness = Witness::start(|lan, _| lan.veth("raw0"));
    let daemon = &witness.daemon;
    let host = LinkSocket::bind("raw0b");
    let socket = witness.scene.socket("vm1");
    witness.client(&["port", "add", "raw", "raw0", "--interface", "raw0"]);
    witness.client(&[
        "port",
        "add",
        "guest",
        "vm1",
        "--socket",
        socket.to_str().expect("a path"),
        "--backend",
        "raw0",
    ]);
    let guest = exchange(daemon, &socket, &host);
    let guest_was = witness.answer(&["port", "remove", "vm1"]);
    let raw0 = witness.answer(&["port", "remove", "raw0"]);
    assert_eq!((guest_was.rx_packets, guest_was.tx_packets), (10, 1));
    assert_accounted(&guest_was, &raw0);
    drop(guest);
    witness.end(&["frontend dropped"]);
}

/// A guest's exception path ends with it, and its tap is an ordinary one again.
#[test]
fn an_exception_path_goes_with_its_guest() {
    let witness = Witness::start(|lan, scene| {
        lan.tap("host0", &[]);
        scene.nic("wire0", "net_null0,no-rx=1", 1, "");
        scene.socket_port("tap", "host0", "host0", "");
    });
    let daemon = &witness.daemon;
    let host = LinkSocket::bind("host0");
    let socket = witness.scene.socket("vm1");
    let path = socket.to_str().expect("a path");
    for round in 1..=3 {
        // Where a bare guest's frames go to.
        let punt = ["--punt", "host0", "--punt-classes", "lldp", "--punt-mac", "02:00:00:00:00:01"];
        let add = ["port", "add", "guest", "vm1", "--socket", path, "--backend", "wire0"];
        witness.client(&[add.as_slice(), &punt].concat());
        let refused = daemon.client(&["port", "remove", "host0"]);
        assert_eq!(
            String::from_utf8_lossy(&refused.stderr),
            "ringwire: host0 is the exception path of vm1: give that another one first\n"
        );
        let _guest = exchange(daemon, &socket, &host);
        let last = witness.answer(&["port", "remove", "vm1"]);
        assert_eq!((last.rx_packets, last.tx_packets, drops(&last), last.held), (10, 1, 0, 0));
        let tap = daemon.port("host0");
        assert_eq!((tap.tx_packets, tap.rx_packets, tap.held), (10 * round, round, 0));
        // It can be a backend now.
        witness.client(&["port", "add", "guest", "vm1", "--socket", path, "--backend", "host0"]);
        witness.client(&["port", "remove", "vm1"]);
    }
    witness.client(&["port", "remove", "host0"]);
    witness.client(&["port", "remove", "wire0"]);
    witness.end(&["frontend dropped"]);
}
