//! The way from a frontend to us: socket, connection, features, memory.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use tests::child::Child;
use tests::daemon::{Daemon, guest};
use tests::hostile::client::{self, Client, code, longs};
use tests::hostile::guest::{GUEST, Hostile, LOW, PROTOCOL, RING, USER, feature, good};
use tests::scene::Scene;
use tests::wait;

use crate::table::Answer::{Fail, Hindered, Note};
use crate::table::Table;

/// A nic that takes everything and has nothing for the guest.
pub const SINK: &str = "net_null0,size=64,no-rx=1";

/// A guest, vm1, on such a nic.
pub fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.nic("wire0", SINK, 1, "");
    scene.guest("vm1", "wire0", 1);
    scene
}

/// A guest whose rings run, with receive buffers in them.
pub fn running(scene: &Scene, name: &str) -> Hostile {
    let mut guest = Hostile::running(&scene.socket(name), feature::MRG_RXBUF);
    guest.rings[0].post_all(&[good(0); 64]);
    guest
}

/// Ends a connection, and waits until that is seen.
pub fn leave(daemon: &Daemon, name: &str, connection: impl Sized) {
    drop(connection);
    daemon.wait_connected(name, false);
}

#[test]
fn the_way_of_a_frontend() {
    let mut table = Table::start("the way of a frontend");
    let scene = scene();
    let mut daemon = scene.start();
    let socket = scene.socket("vm1");
    table.ask("no frontend", &daemon, "vm1", Fail("frontend"), "no frontend is connected");
    table.ask("no frontend, asked about the nic", &daemon, "wire0", Fail("frontend"), "vm1: no frontend");

    let barred = barred(&scene);
    let words = "of user 65534 may not open its socket";
    table.ask("socket permission", &daemon, "vm1", Fail("socket"), words);
    assert_eq!(guest(&daemon.port("vm1")).connections, 0, "it could connect");
    drop(barred);

    std::fs::rename(&socket, scene.path("elsewhere")).expect("renamed");
    table.ask("socket removed", &daemon, "vm1", Fail("socket"), "is gone: somebody has removed it");
    std::fs::rename(scene.path("elsewhere"), &socket).expect("renamed");

    let mut silent = Client::connect(&socket);
    assert!(silent.is_served());
    table.ask("guest driver not up", &daemon, "vm1", Fail("driver"), "the guest's driver is not up");
    leave(&daemon, "vm1", silent);

    let mut wrong = Client::connect(&socket);
    assert!(wrong.is_served());
    let never = feature::VERSION_1 | feature::LOG_ALL;
    assert!(wrong.send(code::SET_PROTOCOL_FEATURES, 0, &longs(&[PROTOCOL]), &[]));
    assert_eq!(wrong.tell(code::SET_FEATURES, &longs(&[never]), &[]), client::Answer::Refused(1));
    table.ask("wrong feature set", &daemon, "vm1", Fail("features"), "never offered: VHOST_F_LOG_ALL");
    leave(&daemon, "vm1", wrong);

    let first = running(&scene, "vm1");
    let second = Client::connect(&socket);
    table.ask("a second frontend waits", &daemon, "vm1", Note("frontend"), "another one has connected");
    drop(second);
    leave(&daemon, "vm1", first);

    let dying = dying(&scene);
    table.ask("frontends die in a loop", &daemon, "vm1", Hindered("frontend"), "frontends come and go");
    drop(dying);

    memory(&mut table, &daemon, &scene);

    let rude = Client::connect(&socket);
    assert!(rude.raw(&[0xff; 12], &[]));
    wait::until("ringwired hangs up", 10, || {
        let port = daemon.port("vm1");
        let hung_up = &guest(&port).frontend.hung_up;
        if hung_up.is_some() { Ok(()) } else { Err(port.state) }
    });
    table.ask(
        "a frontend that speaks no vhost-user",
        &daemon,
        "vm1",
        Fail("frontend"),
        "hung up on the last one",
    );
    table.end();
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

/// A process of another user that wants to be the frontend, and tries all the time.
fn barred(scene: &Scene) -> Child {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-e"]);
    // It ends by itself, should nobody end it.
    command.arg(
        "use IO::Socket::UNIX; alarm 60; \
         while (1) { IO::Socket::UNIX->new(Peer => $ARGV[0]) or print STDERR \"$!\\n\"; sleep 1 }",
    );
    command.arg(scene.socket("vm1"));
    let child = Child::start("a frontend of another user", command, &scene.path("barred.log"));
    wait::until("it tries", 10, || {
        let said = child.log();
        if said.contains("Permission denied") { Ok(()) } else { Err(said) }
    });
    child
}

/// A frontend that ends as soon as it is connected, and is started again.
fn dying(scene: &Scene) -> Child {
    let mut command = Command::new("perl");
    command.args(["-e", "use IO::Socket::UNIX; $| = 1; alarm 60; my $n; \
         while (1) { IO::Socket::UNIX->new(Peer => $ARGV[0]) and $n++; print STDERR \"$n\n\"; select(undef, undef, undef, 0.05) }"]);
    command.arg(scene.socket("vm1"));
    let child = Child::start("a frontend that dies", command, &scene.path("dying.log"));
    wait::until("it has died", 10, || {
        let said = child.log();
        if said.lines().count() > 3 { Ok(()) } else { Err(said) }
    });
    child
}

fn memory(table: &mut Table, daemon: &Daemon, scene: &Scene) {
    let socket = scene.socket("vm1");
    let mut private = Hostile::connect(&socket);
    private.negotiate(feature::VERSION_1 | feature::PROTOCOL);
    table.ask("no memory shared", daemon, "vm1", Fail("memory"), "has shared no memory");
    let null = File::open("/dev/zero").expect("/dev/zero");
    let payload = tests::hostile::guest::table(&[LOW]);
    let refused = private.client.tell(code::SET_MEM_TABLE, &payload, &[null.as_raw_fd()]);
    assert_eq!(refused, client::Answer::Refused(1));
    table.ask("memory that cannot be shared", daemon, "vm1", Fail("memory"), "refused SET_MEM_TABLE");
    leave(daemon, "vm1", private);

    // The rings of the first pair, but for the end of the second.
    let mut small = Hostile::connect(&socket);
    small.negotiate(feature::VERSION_1 | feature::PROTOCOL);
    assert_eq!(small.set_table(&[[GUEST, RING + 0x5000, USER, 0]]), client::Answer::Done);
    small.set_up(0);
    small.prepare(1);
    assert_eq!(small.tell_ring(code::SET_VRING_ENABLE, 1, 1), client::Answer::Refused(1));
    table.ask("memory too small", daemon, "vm1", Fail("rings"), "used ring of 2054 bytes at");
    leave(daemon, "vm1", small);

    let mut more = running(scene, "vm1");
    assert_eq!(more.tell_ring(code::SET_VRING_NUM, 2, 256), client::Answer::Refused(1));
    let words = "ring 2 is none of the 2 offered";
    table.ask("queue count mismatch", daemon, "vm1", Note("messages"), words);
    leave(daemon, "vm1", more);
}
