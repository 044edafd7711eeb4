//! Every precondition, broken in a snapshot of a healthy datapath.

use snapshot::{DropReason, Interface, PortKind, Queue, RingState, SocketFile, WorkerThread};

use super::*;
use crate::host::made_up::MadeUp;

/// wire0 and vm1, which carry traffic. Counters are those of the earlier look.
fn healthy() -> Status {
    let text = include_str!("../../../ringwired/tests/common/status.json");
    let mut status: Status = serde_json::from_str(text).unwrap();
    status.ports.retain(|port| ["wire0", "vm1"].contains(&port.name.as_str()));
    status.ports.iter_mut().for_each(|port| port.drops.clear());
    let thread = WorkerThread { id: 5, cores: vec![1], ..WorkerThread::default() };
    status.workers[0].thread = Some(thread);
    let guest = status.ports[1].guest.as_mut().unwrap();
    guest.frontend.since_seconds = Some(125.0);
    guest.frontend.socket_file = Some(SocketFile { mode: 0o755, user: 0, group: 0 });
    for queue in &mut guest.queues {
        queue.ring = RingState {
            addresses: true,
            kick: true,
            call: true,
            started: true,
            posted: Some(queue.index == 0),
            avail_index: Some(256),
            used_index: Some(0),
        };
    }
    status
}

/// What 300 ms do to it.
fn later(status: &Status) -> Status {
    let mut later = status.clone();
    later.workers[0].busy_rounds += 1000;
    later.workers[0].thread.as_mut().unwrap().run_ns += 299_000_000;
    for port in &mut later.ports {
        port.rx_packets += 100;
        port.tx_packets += 100;
        for queue in port.guest.iter_mut().flat_map(|guest| &mut guest.queues) {
            queue.used += 100;
        }
    }
    later
}

fn report_of(name: &str, before: &Status, now: &Status) -> Report {
    let made = MadeUp::new(&[]);
    let sight = Sight::new(before, now, BETWEEN);
    let port = sight.port(name).unwrap();
    report(name, walk::walk(&sight, port, &made.host()), &flow::passing(&sight, port))
}

/// The report about `name` after `change` to both looks.
fn with(name: &str, change: impl Fn(&mut Status)) -> Report {
    let mut before = healthy();
    let mut now = later(&before);
    change(&mut before);
    change(&mut now);
    report_of(name, &before, &now)
}

/// The report where nothing moves, but the worker.
fn still(name: &str, change: impl Fn(&mut Status)) -> Report {
    let mut before = healthy();
    change(&mut before);
    let mut now = before.clone();
    now.workers = later(&before).workers;
    report_of(name, &before, &now)
}

/// Asserts the mark, the cause, and words of the verdict.
#[track_caller]
fn assert_verdict(report: &Report, mark: Mark, cause: &str, words: &str) {
    assert_eq!((report.mark, report.cause), (mark, Some(cause)), "{}", view::text(report));
    assert!(report.verdict.contains(words), "no {words:?} in: {}", report.verdict);
    assert_eq!(report.checks.iter().filter(|check| check.mark == mark && check.advice.is_none()).count(), 0);
}

fn guest(status: &mut Status) -> &mut snapshot::Guest {
    status.ports[1].guest.as_mut().unwrap()
}

fn queue(status: &mut Status, index: usize) -> &mut snapshot::Queue {
    &mut guest(status).queues[index]
}

fn nic(status: &mut Status) -> &mut snapshot::Nic {
    status.ports[0].nic.as_mut().unwrap()
}

#[test]
fn a_healthy_wire_is_so_from_either_end() {
    for name in ["vm1", "wire0"] {
        let report = with(name, |_| ());
        assert_eq!((report.mark, report.cause), (Mark::Ok, None), "{}", view::text(&report));
        let verdict = format!("{name} carries traffic (rx 333 pps, tx 333 pps), and nothing is in the way");
        assert_eq!(report.verdict, verdict);
        let idle = still(name, |_| ());
        assert_eq!(idle.mark, Mark::Ok, "{}", view::text(&idle));
        assert!(idle.verdict.contains("can carry traffic, though none passed just now"));
    }
}

#[test]
fn the_way_to_a_frontend() {
    let gone = with("vm1", |status| {
        guest(status).frontend.socket_file = None;
        guest(status).connected = false;
    });
    assert_verdict(&gone, Mark::Fail, "socket", "/run/ringwire/vm1.sock is gone");
    // No other guest is disturbed.
    let advice =
        gone.checks.iter().find(|check| check.check == "socket").and_then(|check| check.advice.as_deref());
    assert_eq!(advice, Some("ringwire port remove vm1, then ringwire reload or port add: it is made anew"));
    let absent = with("vm1", |status| guest(status).connected = false);
    assert_verdict(
        &absent,
        Mark::Fail,
        "frontend",
        "no frontend is connected to /run/ringwire/vm1.sock (so far: 3; the last one left 2 min 5 s ago)",
    );
    let never = with("vm1", |status| {
        let guest = guest(status);
        (guest.connected, guest.connections, guest.frontend.since_seconds) = (false, 0, None);
    });
    assert_verdict(&never, Mark::Fail, "frontend", "vm1.sock (none ever was)");
    let left = with("vm1", |status| {
        guest(status).connected = false;
        guest(status).frontend.hung_up = Some("a message has flags 0x7".into());
    });
    assert_verdict(&left, Mark::Fail, "frontend", "hung up on the last one: a message has flags 0x7");
    let mut before = healthy();
    guest(&mut before).connected = false;
    let mut now = later(&before);
    guest(&mut now).connections += 4;
    let dying = report_of("vm1", &before, &now);
    assert_verdict(&dying, Mark::Fail, "frontend", "frontends come and go: 4 came while this was looked at");
    guest(&mut now).connected = true;
    let loops = report_of("vm1", &before, &now);
    assert_verdict(&loops, Mark::Note, "frontend", "frontends come and go: 4 came while this was looked at");
    let second = with("vm1", |status| guest(status).frontend.waiting = true);
    let words = "connected for 2 min 5 s (frontends so far: 3); another one has connected";
    assert_verdict(&second, Mark::Note, "frontend", words);
    // The nic's own report names it, too.
    let far = with("wire0", |status| guest(status).connected = false);
    assert_verdict(&far, Mark::Fail, "frontend", "wire0 carries no traffic: vm1: no frontend");
}

#[test]
fn a_frontend_that_may_not_open_its_socket() {
    let status = "Name:\tqemu\nUid:\t64\t64\t64\t64\nGid:\t5\t5\t5\t5\nGroups:\t\nCapEff:\t0\n";
    let made = MadeUp::new(&[
        ("/proc/1000001/cmdline", "qemu\0socket,path=/run/ringwire/vm1.sock\0"),
        ("/proc/1000001/status", status),
    ]);
    let mut before = healthy();
    guest(&mut before).connected = false;
    let now = later(&before);
    let sight = Sight::new(&before, &now, BETWEEN);
    let checks = walk::walk(&sight, sight.port("vm1").unwrap(), &made.host());
    let report = report("vm1", checks, &Passing::default());
    assert_verdict(&report, Mark::Fail, "socket", "qemu (pid 1000001) of user 64 may not open its socket");
    assert!(report.verdict.contains("mode 0755, user 0, group 0"), "{}", report.verdict);
}

#[test]
fn features_memory_and_messages() {
    let none = |status: &mut Status| guest(status).features.clear();
    assert_verdict(&with("vm1", none), Mark::Fail, "driver", "the guest's driver is not up");
    let refused =
        |text: &'static str| move |status: &mut Status| guest(status).frontend.refused = Some(text.into());
    let wrong = with("vm1", |status| {
        guest(status).features.clear();
        refused("SET_FEATURES: features never offered: VIRTIO_NET_F_CSUM")(status);
    });
    assert_verdict(&wrong, Mark::Fail, "features", "never offered: VIRTIO_NET_F_CSUM");
    let legacy = with("vm1", |status| guest(status).features = vec!["VIRTIO_NET_F_MRG_RXBUF".into()]);
    assert_verdict(&legacy, Mark::Note, "features", "VIRTIO_F_VERSION_1 was not negotiated");
    let jumbo = with("vm1", |status| {
        guest(status).features = vec!["VIRTIO_F_VERSION_1".into()];
        nic(status).mtu = 9000;
    });
    assert_verdict(&jumbo, Mark::Note, "features", "wire0 has an MTU of 9000");
    let private = with("vm1", |status| {
        guest(status).memory_regions = 0;
        refused("SET_MEM_TABLE: region 0 cannot be mapped")(status);
    });
    assert_verdict(&private, Mark::Fail, "memory", "region 0 cannot be mapped");
    let more = with("vm1", refused("SET_VRING_NUM: ring 2 is none of the 2 offered"));
    assert_verdict(&more, Mark::Note, "messages", "ring 2 is none of the 2 offered");
}

#[test]
fn rings() {
    let change = |index, change: fn(&mut RingState)| {
        with("vm1", move |status| {
            queue(status, index).ring.started = false;
            change(&mut queue(status, index).ring);
        })
    };
    let unkicked = change(0, |ring| ring.kick = false);
    assert_verdict(&unkicked, Mark::Fail, "rings", "queue 0 (the guest receives) was never kicked off");
    let nowhere = change(1, |ring| ring.addresses = false);
    assert_verdict(&nowhere, Mark::Fail, "rings", "queue 1 (the guest sends) has no addresses");
    let neither = change(0, |ring| (ring.addresses, ring.kick) = (false, false));
    assert_verdict(&neither, Mark::Fail, "driver", "is not set up: the guest's driver is not up");
    let disabled = with("vm1", |status| {
        queue(status, 0).ring.started = false;
        queue(status, 0).enabled = false;
    });
    assert_verdict(&disabled, Mark::Fail, "rings", "queue 0 (the guest receives) is disabled");
    let invalid = with("vm1", |status| {
        queue(status, 0).ring.started = false;
        let why = "SET_VRING_ENABLE: ring 0 cannot start: used ring is not within one memory region";
        guest(status).frontend.refused = Some(why.into());
    });
    assert_verdict(&invalid, Mark::Fail, "rings", "used ring is not within one memory region");
    let broken = with("vm1", |status| queue(status, 1).violation = Some("avail index jumped".into()));
    assert_verdict(&broken, Mark::Fail, "violation", "queue 1 (the guest sends) was stopped");
    let parked = with("vm1", |status| queue(status, 0).owner = "parked".into());
    assert_verdict(
        &parked,
        Mark::Fail,
        "owner",
        "queue 0 (the guest receives) is ready, but nobody serves it",
    );
}

#[test]
fn pairs_that_the_guest_leaves_alone_are_no_matter() {
    let report = with("vm1", |status| {
        for index in [2, 3] {
            let unused =
                snapshot::Queue { index, enabled: false, ..queue(status, usize::from(index) - 2).clone() };
            guest(status).queues.push(unused);
        }
    });
    assert_eq!(report.mark, Mark::Ok, "{}", view::text(&report));
}

#[test]
fn receive_buffers() {
    let empty = |status: &mut Status| queue(status, 0).ring.posted = Some(false);
    let never = |status: &mut Status| {
        empty(status);
        queue(status, 0).used = 0;
    };
    assert_verdict(&still("vm1", never), Mark::Fail, "buffers", "has posted no receive buffers in queue 0");
    assert_verdict(
        &still("wire0", empty),
        Mark::Fail,
        "buffers",
        "has posted no more receive buffers in queue 0",
    );
    // It is merely slow.
    assert_eq!(with("vm1", empty).mark, Mark::Ok);
}

/// What it sends passes all the same: nobody is told that there is no traffic.
#[test]
fn a_guest_that_only_sends() {
    let report = with("vm1", |status| {
        status.ports[1].tx_packets = 0;
        let first = queue(status, 0);
        (first.ring.posted, first.used) = (Some(false), 0);
        let first = first.clone();
        let queues = &mut guest(status).queues;
        queues.truncate(2);
        for pair in 1..128 {
            queues.push(Queue { index: 2 * pair, ..first.clone() });
            queues.push(Queue { index: 2 * pair + 1, ..queues[1].clone() });
        }
    });
    let words = "vm1 carries traffic (rx 333 pps, tx 0), and one way only: vm1: the guest has posted no receive buffers \
                 in queue 0, 2, 4, 6, 8, 10, 12, 14 and 120 more";
    assert_verdict(&report, Mark::Fail, "buffers", words);
}

#[test]
fn backends() {
    let none = |status: &mut Status| guest(status).backend = "none".into();
    assert_verdict(&with("vm1", none), Mark::Fail, "backend", "it has no backend");
    assert_verdict(&with("wire0", none), Mark::Fail, "backend", "is no guest's backend");
    let fallback = |status: &mut Status| {
        guest(status).fallback = Some("wire0".into());
        guest(status).backend_wanted = "wire9".into();
    };
    assert_verdict(
        &with("vm1", fallback),
        Mark::Note,
        "backend",
        "runs on its fallback wire0, because wire9 has no",
    );
    let punt = with("wire0", |status| {
        none(status);
        guest(status).punt = Some("wire0".into());
    });
    assert_eq!(punt.mark, Mark::Ok, "{}", view::text(&punt));
}

/// vm1's backend is a tap in this state.
fn tap(state: &'static str) -> impl Fn(&mut Status) {
    move |status| {
        let port = &mut status.ports[0];
        (port.kind, port.nic, port.state) = (PortKind::Tap, None, state.into());
        let (driver, kernel_stats) = ("tap".to_owned(), Default::default());
        port.interface =
            Some(Interface { name: "rw-tap0".into(), driver, mtu: 1500, queue_pairs: 1, kernel_stats });
    }
}

#[test]
fn links() {
    let down = with("vm1", |status| nic(status).link_up = false);
    assert_verdict(&down, Mark::Fail, "link", "vm1 carries no traffic: wire0: the link is down");
    assert_eq!(with("vm1", tap("up")).mark, Mark::Ok);
    for (state, words) in [
        ("down", "interface rw-tap0 is down"),
        ("no_carrier", "interface rw-tap0 has no carrier"),
        ("gone", "interface rw-tap0 was removed"),
    ] {
        assert_verdict(&with("vm1", tap(state)), Mark::Fail, "link", words);
        assert_verdict(&with("wire0", tap(state)), Mark::Fail, "link", words);
    }
    assert_verdict(&with("vm1", tap("elsewhere")), Mark::Note, "link", "another network namespace");
}

#[test]
fn the_nics_own_losses() {
    let mut before = healthy();
    nic(&mut before).device_stats.insert("imissed".into(), 5);
    let mut now = later(&before);
    let past = report_of("vm1", &before, &now);
    assert_eq!(past.mark, Mark::Ok);
    assert!(view::text(&past).contains("so far: imissed 5"), "{}", view::text(&past));
    nic(&mut now).device_stats.insert("imissed".into(), 1205);
    assert_verdict(&report_of("vm1", &before, &now), Mark::Note, "device", "just now 1,200: imissed");
}

#[test]
fn workers() {
    let moved = with("vm1", |status| status.workers[0].thread.as_mut().unwrap().cores = vec![0]);
    assert_verdict(&moved, Mark::Note, "worker", "its thread is on core 0, not on core 1");
    let running = |run_ms: u64, rounds: u64| {
        let before = healthy();
        let mut now = later(&before);
        now.workers[0].thread.as_mut().unwrap().run_ns = run_ms * 1_000_000;
        now.workers[0].busy_rounds = before.workers[0].busy_rounds + rounds;
        report_of("vm1", &before, &now)
    };
    assert_eq!(running(280, 9).mark, Mark::Ok);
    assert_verdict(&running(150, 9), Mark::Note, "worker", "worker:1: gets 50.0 % of core 1 only");
    assert_verdict(&running(3, 9), Mark::Note, "worker", "worker:1: gets 1.0 % of core 1 only");
    assert_verdict(&running(0, 0), Mark::Fail, "worker", "worker:1: gets 0.0 % of core 1 only");
    assert_verdict(&running(290, 0), Mark::Fail, "worker", "made no poll round");
    let asleep = with("vm1", |status| {
        status.workers[0].busy_rounds = 0;
        let thread = status.workers[0].thread.as_mut().unwrap();
        (thread.asleep, thread.run_ns) = (true, 0);
    });
    assert_eq!(asleep.mark, Mark::Ok, "{}", view::text(&asleep));
}

#[test]
fn packets_that_wait_or_are_dropped() {
    let held = still("vm1", |status| status.ports[1].held = 64);
    assert_verdict(&held, Mark::Fail, "held", "64 packets wait to leave through wire0, which takes none");
    let stuck = still("vm1", |status| queue(status, 1).ring.posted = Some(true));
    assert_verdict(&stuck, Mark::Fail, "held", "waits in queue 1, and nobody takes it");
    let dropping = |packets: u64, passed: bool| {
        let before = healthy();
        let mut now = later(&before);
        now.ports[1].drops.insert("oversize".into(), packets);
        if !passed {
            now.ports[0].tx_packets = before.ports[0].tx_packets;
        }
        report_of("vm1", &before, &now)
    };
    let some = "dropped 7 of 100 packets that entered here as oversize";
    assert_verdict(&dropping(7, true), Mark::Note, "drops", some);
    // Whatever the counters say that were read at another moment.
    for packets in [36, 100, 164] {
        let all = "drops all packets that enter here as oversize";
        assert_verdict(&dropping(packets, false), Mark::Fail, "drops", all);
    }
    let ever = still("vm1", |status| {
        status.ports[0].drops.insert("guest_buffer_too_small".into(), 1000);
        status.ports[1].tx_packets = 0;
    });
    assert_verdict(
        &ever,
        Mark::Fail,
        "drops",
        "wire0: drops all packets that enter here as guest_buffer_too_small",
    );
    for reason in DropReason::ALL {
        let dropped = with("vm1", |status| {
            let earlier = status.ports[1].rx_packets == healthy().ports[1].rx_packets;
            status.ports[1].drops.insert(reason.name().into(), if earlier { 0 } else { 7 });
        });
        let words = format!("that entered here as {}: ", reason.name());
        assert_verdict(&dropped, Mark::Note, "drops", &words);
        assert!(!dropped.verdict.contains("does not know"), "{}", dropped.verdict);
    }
    let past = still("vm1", |status| {
        status.ports[0].drops.insert("not_connected".into(), 1000);
        status.ports[1].tx_packets = 0;
    });
    assert_eq!(past.mark, Mark::Ok, "{}", view::text(&past));
}

#[test]
fn a_daemon_out_of_reach_is_the_first_cross() {
    let socket = Path::new("/run/x.sock");
    let made = MadeUp::new(&[("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0")]);
    let report = report(
        "vm1",
        vec![daemon::unreachable(socket, "the socket does not exist", &made.host())],
        &Passing::default(),
    );
    assert_verdict(
        &report,
        Mark::Fail,
        "daemon",
        "cannot be reached on /run/x.sock: the socket does not exist",
    );
    let text = view::text(&report);
    assert!(report.verdict.contains("no hugepages are reserved"), "{text}");
    assert!(text.starts_with("✗  ringwired  daemon  cannot be reached"), "{text}");
}

#[test]
fn json_has_what_scripts_need() {
    let report = with("vm1", |status| guest(status).connected = false);
    let json: serde_json::Value = serde_json::from_str(&view::json(&report)).unwrap();
    assert_eq!(
        (json["port"].as_str(), json["mark"].as_str(), json["cause"].as_str()),
        (Some("vm1"), Some("fail"), Some("frontend"))
    );
    let checks = json["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["found"].is_string() && check["of"].is_string()));
}
