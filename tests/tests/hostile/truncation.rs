//! Guest memory that is taken away while ringwired uses it: touching it raises SIGBUS in whoever touches it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tests::hostile::client::{Answer, code};
use tests::hostile::guest::{END, HIGH, Hostile, LOW, Ram, SEAM, feature, good, table};
use tests::hostile::ring::{Buf, Ring};
use tests::hostile::stage::{Bench, Log, Stage, meanwhile, repeat};

const ROW: &str = "fd truncated later (SIGBUS)";
const LOST: &str = "the frontend has truncated the guest's memory";

#[test]
fn truncation() {
    let mut stage = Stage::start("memory that is taken away");
    for (format, features) in [("split", 0), ("packed", feature::PACKED)] {
        rings(&mut stage, format, features);
        buffers(&mut stage, format, features);
    }
    many(&mut stage);
    huge_pages(&mut stage);
    stage.finish();
}

/// A guest whose buffers are in a file of their own, with receive buffers and frames to send in it.
fn with_buffers(bench: &Bench, features: u64, buffers: &File) -> Hostile {
    let mut hostile = Hostile::ready(&bench.socket(), features);
    let high = [HIGH[0], HIGH[1], HIGH[2], 0];
    let fds = [hostile.ram.file.as_raw_fd(), buffers.as_raw_fd()];
    assert_eq!(hostile.client.tell(code::SET_MEM_TABLE, &table(&[LOW, high]), &fds), Answer::Done);
    (0..2).for_each(|ring| hostile.set_up(ring));
    hostile
}

/// Keeps a ring full of buffers all over the second region.
fn fill(index: usize, ring: &mut Ring, round: u64) {
    let Buf { len, flags, .. } = good(index);
    let pages = (END - SEAM) / 4096;
    let at = SEAM + (round * 7 + index as u64) % pages * 4096;
    ring.fill(&[Buf { at, len, flags }]);
}

fn rings(stage: &mut Stage, format: &str, features: u64) {
    // The worker polls the rings all the time: it is the one that touches what is gone.
    stage.case(ROW, &format!("{format}: the rings, while they are polled"), Log::Says(&[LOST]), |bench| {
        let mut hostile = Hostile::running(&bench.socket(), features);
        hostile.assert_serves();
        hostile.ram.file.set_len(0).expect("a memfd's size");
        hostile.client.until_closed();
        "hung up".to_owned()
    });
    stage.case(ROW, &format!("{format}: all, and back at once, 200 times"), Log::Any, |bench| {
        let mut hostile = Hostile::running(&bench.socket(), features);
        for _ in 0..200 {
            hostile.ram.file.set_len(0).expect("a memfd's size");
            hostile.ram.file.set_len(END).expect("a memfd's size");
        }
        let closed = !hostile.client.is_served();
        if closed { "hung up".to_owned() } else { "rings of zeroes".to_owned() }
    });
    stage.case(ROW, &format!("{format}: before the rings start"), Log::Says(&[LOST]), |bench| {
        let mut hostile = Hostile::ready(&bench.socket(), features);
        hostile.prepare(0);
        hostile.ram.file.set_len(0).expect("a memfd's size");
        // The session's own thread is the first to touch it.
        hostile.client.tell(code::SET_VRING_ENABLE, &[0, 0, 0, 0, 1, 0, 0, 0], &[]);
        hostile.client.until_closed();
        "hung up".to_owned()
    });
}

fn buffers(stage: &mut Stage, format: &str, features: u64) {
    let sent = format!("{format}: buffers, while they are copied both ways");
    stage.case(ROW, &sent, Log::Says(&[LOST]), |bench| {
        let memory = Ram::new(END - SEAM);
        let mut hostile = with_buffers(bench, features, &memory.file);
        let mut rings = std::mem::take(&mut hostile.rings);
        let traffic = |round| {
            rings.iter_mut().take(2).enumerate().for_each(|(index, ring)| fill(index, ring, round));
        };
        meanwhile(traffic, || {
            std::thread::sleep(Duration::from_millis(30));
            memory.file.set_len(0).expect("a memfd's size");
            hostile.client.until_closed();
        });
        "hung up".to_owned()
    });
    let sent = format!("{format}: holes punched into buffers while they are copied");
    stage.case(ROW, &sent, Log::Silent, |bench| {
        let memory = Ram::new(END - SEAM);
        let mut hostile = with_buffers(bench, features, &memory.file);
        let mut rings = std::mem::take(&mut hostile.rings);
        let traffic = |round| {
            rings.iter_mut().take(2).enumerate().for_each(|(index, ring)| fill(index, ring, round));
        };
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let len = (END - SEAM) as i64;
        let count = meanwhile(traffic, || {
            repeat(Duration::from_millis(300), |_| fallocate(&memory.file, punch, 0, len).expect("a hole"))
        });
        hostile.rings = rings;
        (0..2).for_each(|ring| hostile.wait_used(ring));
        hostile.assert_serves();
        format!("{count} times, zeroes are sent, rings go on")
    });
}

/// Sessions that end so leave nothing behind, in whatever number.
fn many(stage: &mut Stage) {
    stage.case(ROW, "200 frontends one after the other", Log::Says(&[LOST]), |bench| {
        for round in 0..200 {
            let features = if round % 2 == 0 { 0 } else { feature::PACKED };
            let mut hostile = Hostile::running(&bench.socket(), features);
            (0..2).for_each(|ring| hostile.post(ring));
            hostile.ram.file.set_len(0).expect("a memfd's size");
            hostile.client.until_closed();
        }
        "hung up each time".to_owned()
    });
}

/// hugetlbfs promises no memory where none was reserved: the first touch raises SIGBUS.
fn huge_pages(stage: &mut Stage) {
    let sent = "buffers in huge pages that do not exist";
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let memory = memfd_create(c"huge", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_HUGETLB).map(File::from);
    match (free.as_deref().map(str::trim), &memory) {
        (Ok("0"), Ok(memory)) => stage.case(ROW, sent, Log::Says(&[LOST]), |bench| {
            memory.set_len(END - SEAM).expect("a memfd's size");
            let mut hostile = with_buffers(bench, 0, memory);
            fill(1, &mut hostile.rings[1], 0);
            hostile.client.until_closed();
            "hung up".to_owned()
        }),
        _ => stage.skip(ROW, sent, "this machine has huge pages left, or none at all"),
    }
}
