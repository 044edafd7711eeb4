//! `idle = "adaptive"`: a guest that does nothing costs next to nothing, and the first packet afterwards is forwarded.

use std::time::{Duration, Instant};

use tests::bare_guest::{BareGuest, FROM, TO};
use tests::cores;
use tests::daemon::Daemon;
use tests::lan::{Lan, nic_device};
use tests::link_socket::LinkSocket;
use tests::pktgen::Reflect;
use tests::scene::Scene;
use tests::threads::Thread;
use tests::wait;

/// Packets each way, one by one. `RINGWIRE_IDLE_PACKETS` may ask for more.
const PACKETS: u64 = 500;
/// Microseconds of such a pause: a worker is about to go to sleep then.
const PAUSE: std::ops::Range<u64> = 0..600;
/// Each arrives within this time, or not at all: the next one is only sent afterwards.
const LIMIT: Duration = Duration::from_secs(5);
/// For so long a guest is idle,
const IDLE: Duration = Duration::from_secs(3);
/// and of a core it may take this part.
const SHARE: f64 = 0.02;
/// Bytes of a frame.
pub const FRAME: usize = 64;

/// What the guest is connected to, and where its packets come out.
#[derive(Clone, Copy, Debug)]
pub enum Backend {
    /// A nic without interrupts, whose veth's other end is the host's.
    AfPacket,
    /// The slow path's tap.
    Tap,
}

/// A guest, its backend, and the host at the other end.
pub struct Stage {
    _lan: Lan,
    daemon: Daemon,
    pub guest: BareGuest,
    pub host: LinkSocket,
    /// Whoever owns the guest's queues.
    owner: Thread,
    /// Last, because the others' logs are in its directory.
    _scene: Scene,
}

pub fn adaptive() -> (Lan, Scene) {
    let lan = Lan::enter("10.79.3.1/24");
    let mut scene = Scene::new();
    scene.add("idle = \"adaptive\"\n");
    (lan, scene)
}

fn owner(daemon: &Daemon, backend: Backend) -> Thread {
    let name = match backend {
        Backend::Tap => "slow-path".to_owned(),
        Backend::AfPacket => format!("worker:{}", cores::worker()),
    };
    Thread::find(daemon.child.pid(), &name)
}

impl Stage {
    pub fn set(backend: Backend, event_idx: bool) -> Stage {
        let (lan, mut scene) = adaptive();
        let host = match backend {
            Backend::AfPacket => {
                lan.veth("wire0");
                scene.nic("port0", &nic_device(0, "wire0"), 1, "");
                "wire0b"
            }
            Backend::Tap => {
                lan.tap("wire0", &[]);
                scene.socket_port("tap", "port0", "wire0", "");
                "wire0"
            }
        };
        scene.guest("vm1", "port0", 1);
        let daemon = scene.start();
        lan.set_up(host, true);
        let host = LinkSocket::bind(host);
        let mut guest = BareGuest::connect_with(&scene.socket("vm1"), FRAME, event_idx);
        [TO, FROM].into_iter().for_each(|ring| guest.start_ring(ring, 0));
        wait::until("the guest's queues run", 10, || {
            let port = daemon.port("vm1");
            let link = daemon.port("port0").state;
            if port.state == "up" && link == "up" { Ok(()) } else { Err(format!("{}, {link}", port.state)) }
        });
        let owner = owner(&daemon, backend);
        Stage { _lan: lan, _scene: scene, daemon, guest, host, owner }
    }

    pub fn end(mut self) {
        self.guest.turn();
        assert!(self.guest.rings.iter().all(|ring| ring.wrong.is_empty()));
        drop(self.guest);
        assert!(self.daemon.stop(Duration::from_secs(5)).success());
        assert_eq!(self.daemon.complaints(), [""; 0]);
    }
}

fn packets() -> u64 {
    std::env::var("RINGWIRE_IDLE_PACKETS").map_or(PACKETS, |count| count.parse().expect("a number"))
}

/// Sends one packet after the other by `send`, and waits until it `arrives`: each other one when `owner` is asleep, the
/// others after a random pause, in which it may be about to.
fn one_by_one(what: &str, owner: &Thread, mut send: impl FnMut(), mut arrives: impl FnMut() -> bool) {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut asleep, mut slowest) = (0, Duration::ZERO);
    let count = packets();
    for sent in 0..count {
        if sent % 2 == 0 {
            std::thread::sleep(Duration::from_micros(random.u64(PAUSE)));
        } else {
            wait::poll(LIMIT, || owner.sleeps().then_some(()))
                .unwrap_or_else(|| panic!("{what}: it never sleeps"));
        }
        asleep += u64::from(owner.sleeps());
        let start = Instant::now();
        send();
        assert!(arrives(), "{what}: packet {sent} was not forwarded within {LIMIT:?}");
        slowest = slowest.max(start.elapsed());
    }
    println!(
        "{what}: {count} of {count} forwarded, {asleep} of them to a sleeper; the slowest after {slowest:?}"
    );
}

/// Whether `ring` has one more used entry in time.
fn used(guest: &mut BareGuest, ring: usize) -> bool {
    let wanted = guest.rings[ring].total + 1;
    let end = Instant::now() + LIMIT;
    loop {
        guest.rings[ring].collect();
        if guest.rings[ring].total == wanted {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn forwards_the_first(backend: Backend, event_idx: bool) {
    let mut stage = Stage::set(backend, event_idx);
    let Stage { guest, host, owner, .. } = &mut stage;
    let what = format!("{backend:?}, event_idx {event_idx}");
    one_by_one(
        &format!("{what}, from the guest"),
        owner,
        || guest.post_one(FROM),
        || host.receive(LIMIT).is_some_and(|frame| frame.len() == FRAME),
    );
    used(guest, FROM);
    let mut frame = [0x5a; FRAME];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    let guest = std::cell::RefCell::new(guest);
    one_by_one(
        &format!("{what}, to the guest"),
        owner,
        || {
            // The one buffer there is, so that its arrival wakes, too.
            guest.borrow_mut().post_one(TO);
            assert!(host.send(&frame));
        },
        || used(&mut guest.borrow_mut(), TO),
    );
    stage.end();
}

#[test]
fn first_packet_after_idle_is_forwarded_af_packet() {
    forwards_the_first(Backend::AfPacket, false);
}

#[test]
fn first_packet_after_idle_is_forwarded_tap() {
    forwards_the_first(Backend::Tap, true);
}

/// Two guests that are each other's backend; the first with EVENT_IDX.
pub fn guests(scene: &mut Scene) -> (Daemon, [BareGuest; 2]) {
    scene.guest("vm1", "vm2", 1);
    scene.guest("vm2", "none", 1);
    let daemon = scene.start();
    let guests = [("vm1", true), ("vm2", false)].map(|(name, event_idx)| {
        let mut guest = BareGuest::connect_with(&scene.socket(name), FRAME, event_idx);
        [TO, FROM].into_iter().for_each(|ring| guest.start_ring(ring, 0));
        guest
    });
    wait::until("both run", 10, || {
        let states = ["vm1", "vm2"].map(|name| daemon.port(name).state);
        if states == ["up", "up"] { Ok(()) } else { Err(states.join(", ")) }
    });
    (daemon, guests)
}

#[test]
fn first_packet_after_idle_is_forwarded_guest_to_guest() {
    let (_lan, mut scene) = adaptive();
    let (mut daemon, [mut first, mut second]) = guests(&mut scene);
    let owner = owner(&daemon, Backend::AfPacket);
    for _ in 0..2 {
        let receiver = std::cell::RefCell::new(&mut second);
        one_by_one(
            "guest to guest",
            &owner,
            || {
                receiver.borrow_mut().post_one(TO);
                first.post_one(FROM);
            },
            || used(&mut receiver.borrow_mut(), TO),
        );
        std::mem::swap(&mut first, &mut second);
    }
    drop((first, second));
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

/// A nic with interrupts, which returns what it is sent: virtio-user, behind which somebody reflects. The worker hears
/// of both ways, and need not look from time to time; so too where the nic was opened while workers polled, by `set`.
fn hears_of_a_nic(mut scene: Scene, set: impl FnOnce(&mut Scene, &str) -> Daemon) {
    let socket = scene.path("reflect.sock");
    let reflect = Reflect::start(&socket, &scene.path("reflect.log"));
    let device = format!("net_virtio_user0,path={},queue_size=256", socket.display());
    let mut daemon = set(&mut scene, &device);
    let mut guest = BareGuest::connect_with(&scene.socket("vm1"), FRAME, true);
    [TO, FROM].into_iter().for_each(|ring| guest.start_ring(ring, 0));
    wait::until("the guest's queues run", 10, || {
        let state = daemon.port("vm1").state;
        if state == "up" { Ok(()) } else { Err(state) }
    });
    let owner = owner(&daemon, Backend::AfPacket);
    let cell = std::cell::RefCell::new(&mut guest);
    let send = || {
        cell.borrow_mut().post_one(TO);
        cell.borrow_mut().post_one(FROM);
    };
    one_by_one("to a nic that interrupts, and back", &owner, send, || used(&mut cell.borrow_mut(), TO));
    std::thread::sleep(Duration::from_millis(500));
    let before = owner.slept();
    std::thread::sleep(Duration::from_secs(1));
    let naps = owner.slept() - before;
    println!("a nic that interrupts: an idle worker wakes up {naps} times a second");
    assert!(naps < 50);
    drop(guest);
    // The driver asks it where the rings are, and waits for the answer: for ever, if it is not gone.
    drop(reflect);
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

#[test]
fn first_packet_after_idle_is_forwarded_by_a_nic_that_interrupts() {
    let (_lan, scene) = adaptive();
    hears_of_a_nic(scene, |scene, device| {
        scene.nic("port0", device, 1, "");
        scene.guest("vm1", "port0", 1);
        scene.start()
    });
}

/// Has the workers sleep from now on.
fn sleep(daemon: &Daemon) {
    let output = daemon.client(&["idle", "adaptive"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn first_packet_after_idle_is_forwarded_by_a_nic_opened_before_workers_were_to_sleep() {
    hears_of_a_nic(Scene::new(), |scene, device| {
        scene.nic("port0", device, 1, "");
        scene.guest("vm1", "port0", 1);
        let daemon = scene.start();
        sleep(&daemon);
        daemon
    });
}

#[test]
fn first_packet_after_idle_is_forwarded_by_a_nic_added_before_workers_were_to_sleep() {
    hears_of_a_nic(Scene::new(), |scene, device| {
        scene.guest("vm1", "none", 1);
        let daemon = scene.start();
        let output = daemon.client(&["port", "add", "nic", "port0", "--device", device]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        daemon.set_backend("vm1", "port0");
        sleep(&daemon);
        daemon
    });
}

fn costs_little(backend: Backend) {
    let stage = Stage::set(backend, true);
    // Whatever there was to do when it started is done.
    std::thread::sleep(Duration::from_secs(1));
    let (start, ran) = (Instant::now(), stage.owner.ran());
    std::thread::sleep(IDLE);
    let share = (stage.owner.ran() - ran).as_secs_f64() / start.elapsed().as_secs_f64();
    println!("{backend:?}: an idle guest takes {:.2}% of a core", 100.0 * share);
    assert!(share < SHARE);
    stage.end();
}

#[test]
fn an_idle_guest_costs_little_af_packet() {
    costs_little(Backend::AfPacket);
}

#[test]
fn an_idle_guest_costs_little_tap() {
    costs_little(Backend::Tap);
}
