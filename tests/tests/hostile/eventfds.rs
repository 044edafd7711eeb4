//! Rows of eventfds: full ones, ones that block, ones that are none. They are the frontend's, too: it can write
//! to them, read them and change their flags at any time.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tests::hostile::client::{Answer, code};
use tests::hostile::guest::{Hostile, feature, good};
use tests::hostile::stage::{Log, Stage, meanwhile, repeat};

use crate::rings::{FROM, TO};
use crate::{IDLE, refused};

#[test]
fn eventfds() {
    let mut stage = Stage::start("eventfds");
    for (format, features) in [("split", 0), ("packed", feature::PACKED)] {
        full(&mut stage, format, features);
        full_others(&mut stage, format, features);
    }
    others(&mut stage);
    stage.finish();
}

/// Fills an eventfd as far as it goes: who adds to it then waits, if the descriptor blocks.
fn fill(eventfd: &EventFd) {
    let _ = eventfd.write(u64::MAX - 1);
}

/// Has whoever uses the same open file wait where it would not have.
fn make_blocking(eventfd: &EventFd) {
    fcntl(eventfd, FcntlArg::F_SETFL(OFlag::empty())).expect("F_SETFL");
}

fn full(stage: &mut Stage, format: &str, features: u64) {
    let row = "eventfd that is full";
    stage.case(row, &format!("{format}: call, at 2^64-2"), Log::Silent, |bench| {
        let mut hostile = Hostile::running(&bench.socket(), features);
        hostile.wires.iter().take(2).for_each(|wires| fill(&wires.call));
        hostile.assert_serves();
        "rings go on".to_owned()
    });
    // A full blocking eventfd would hold the worker for good: this thread must not touch it with a write.
    stage.case(row, &format!("{format}: call, O_NONBLOCK cleared"), Log::Any, |bench| {
        let mut hostile = Hostile::running(&bench.socket(), features);
        for wires in &hostile.wires[..2] {
            fill(&wires.call);
            make_blocking(&wires.call);
        }
        for _ in 0..20 {
            (0..2).for_each(|ring| hostile.post(ring));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(hostile.client.is_served());
        let moved = [TO, FROM].map(|ring| hostile.rings[ring].collect());
        format!("{moved:?} chains used")
    });
    stage.case(
        row,
        &format!("{format}: call, O_NONBLOCK cleared and set under traffic"),
        Log::Any,
        |bench| {
            let mut hostile = Hostile::running(&bench.socket(), features);
            let mut rings = std::mem::take(&mut hostile.rings);
            let traffic = |_| {
                rings.iter_mut().take(2).enumerate().for_each(|(index, ring)| ring.fill(&[good(index)]));
            };
            meanwhile(traffic, || {
                repeat(Duration::from_millis(300), |_| {
                    for wires in &hostile.wires[..2] {
                        fcntl(&wires.call, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("F_SETFL");
                        fill(&wires.call);
                        make_blocking(&wires.call);
                    }
                });
            });
            assert!(hostile.client.is_served());
            "survived".to_owned()
        },
    );
}

/// The eventfds that are used less often.
fn full_others(stage: &mut Stage, format: &str, features: u64) {
    let row = "eventfd that is full";
    stage.case(row, &format!("{format}: err, O_NONBLOCK cleared, and then a violation"), Log::Any, |bench| {
        let mut hostile = Hostile::running(&bench.socket(), features);
        for wires in &hostile.wires[..2] {
            fill(&wires.err);
            make_blocking(&wires.err);
        }
        hostile.rings[FROM].post(&[good(TO)]);
        hostile.rings[TO].post(&[good(FROM)]);
        std::thread::sleep(Duration::from_millis(200));
        assert!(hostile.client.is_served());
        let stopped = [TO, FROM].map(|ring| bench.violation(ring).is_some());
        assert_eq!(stopped, [true; 2], "both rings are stopped");
        "both rings stopped".to_owned()
    });
    stage.case(row, &format!("{format}: kick, O_NONBLOCK cleared, empty and full"), Log::Silent, |bench| {
        let mut hostile = Hostile::running(&bench.socket(), features);
        hostile.wires.iter().for_each(|wires| make_blocking(&wires.kick));
        hostile.assert_serves();
        hostile.wires.iter().for_each(|wires| fill(&wires.kick));
        hostile.assert_serves();
        "rings go on".to_owned()
    });
}

fn others(stage: &mut Stage) {
    let row = "descriptor that is no eventfd";
    refused(
        stage,
        row,
        "/dev/null, a pipe, a socket, memory",
        &["the descriptor is no eventfd"],
        0,
        |hostile| {
            let null = File::options().write(true).open("/dev/null").expect("/dev/null");
            let (_reader, pipe) = std::io::pipe().expect("a pipe");
            let fds = [null.as_raw_fd(), pipe.as_raw_fd(), hostile.client.stream.as_raw_fd()];
            let fds = fds.into_iter().chain([hostile.ram.file.as_raw_fd()]);
            let codes = [code::SET_VRING_KICK, code::SET_VRING_CALL, code::SET_VRING_ERR];
            let pairs = fds.flat_map(|fd| codes.map(|code| (code, fd)));
            pairs.map(|(code, fd)| hostile.tell_fd(code, IDLE, Some(fd))).collect()
        },
    );
    let row = "eventfd shared";
    stage.case(row, "one for kick, call and err of both rings", Log::Silent, |bench| {
        let mut hostile = Hostile::running(&bench.socket(), 0);
        let one = EventFd::from_flags(EfdFlags::EFD_SEMAPHORE | EfdFlags::EFD_NONBLOCK).expect("an eventfd");
        for ring in 0..2 {
            for code in [code::SET_VRING_KICK, code::SET_VRING_CALL, code::SET_VRING_ERR] {
                assert_eq!(hostile.tell_fd(code, ring, Some(one.as_raw_fd())), Answer::Done);
            }
        }
        hostile.assert_serves();
        "rings go on".to_owned()
    });
}
