//! Rows of memory regions: tables that lie, files that are no memory, and tables that change under traffic.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tests::hostile::client::{Answer, code};
use tests::hostile::guest::{
    DATA, END, GUEST, HIGH, Hostile, LOW, Ram, Region, SEAM, USER, feature, good, single, table,
};
use tests::hostile::ring::Buf;
use tests::hostile::stage::{Bench, Log, Stage, meanwhile, repeat};

use crate::refused;

/// Where a further region may be, in the guest and in the frontend.
const FURTHER: u64 = GUEST + (1 << 32);
const FURTHER_USER: u64 = USER + (1 << 32);

#[test]
fn memory() {
    let mut stage = Stage::start("memory");
    lies(&mut stage);
    files(&mut stage);
    too_many(&mut stage);
    for (format, features) in [("split", 0), ("packed", feature::PACKED)] {
        changes(&mut stage, format, features);
    }
    slow(&mut stage);
    stage.finish();
}

fn add(hostile: &mut Hostile, region: Region, fd: RawFd) -> Answer {
    hostile.client.tell(code::ADD_MEM_REG, &single(region), &[fd])
}

fn lies(stage: &mut Stage) {
    let row = "memory region";
    let max = u64::MAX;
    let bad: &[(&str, &[Region])] = &[
        ("size 0", &[[FURTHER, 0, FURTHER_USER, 0]]),
        (
            "fd shorter than the region",
            &[
                [FURTHER, END + 1, FURTHER_USER, 0],
                [FURTHER, END, FURTHER_USER, 1],
                [FURTHER, 1 << 62, FURTHER_USER, 0],
                [FURTHER, max - 0xfff, FURTHER_USER, 0],
            ],
        ),
        (
            "offset + size overflow",
            &[
                [FURTHER, END, FURTHER_USER, max],
                [FURTHER, END, FURTHER_USER, max - END + 1],
                [FURTHER, max, FURTHER_USER, 0x1000],
            ],
        ),
        ("guest address + size overflow", &[[max - 0xfff, END, FURTHER_USER, 0], [max, 2, FURTHER_USER, 0]]),
        ("frontend address + size overflow", &[[FURTHER, END, max - 0xfff, 0], [FURTHER, 2, max, 0]]),
        (
            "overlapping another by a byte",
            &[
                [GUEST - 0xfff, 0x1000, FURTHER_USER, 0],
                [GUEST + END - 1, 0x1000, FURTHER_USER, 0],
                [GUEST + SEAM - 1, 2, FURTHER_USER, 0],
            ],
        ),
    ];
    for (what, regions) in bad {
        refused(stage, row, &format!("{what}: ADD_MEM_REG"), &["ADD_MEM_REG"], 0, |hostile| {
            let fd = hostile.ram.file.as_raw_fd();
            regions.iter().map(|region| add(hostile, *region, fd)).collect()
        });
        stage.case(row, &format!("{what}: SET_MEM_TABLE"), Log::Says(&["SET_MEM_TABLE"]), |bench| {
            let mut hostile = Hostile::running(&bench.socket(), 0);
            hostile.assert_serves();
            for region in *regions {
                assert_eq!(hostile.set_table(&[LOW, HIGH, *region]), Answer::Refused(1), "{region:x?}");
            }
            // There is no memory then, and rings stand still; with a good table they go on.
            assert_eq!(hostile.set_table(&[LOW, HIGH]), Answer::Done);
            hostile.assert_serves();
            format!("{} x ack 1, rings wait for a good table", regions.len())
        });
    }
}

fn files(stage: &mut Stage) {
    let row = "memory region's file";
    let region = [FURTHER, 0x1000, FURTHER_USER, 0];
    let sent = "/dev/zero, a pipe, an eventfd, a directory, the socket itself";
    refused(stage, row, sent, &["its file is no regular file"], 0, |hostile| {
        let (pipe, _writer) = std::io::pipe().expect("a pipe");
        let opened = ["/dev/zero", "/"].map(|path| File::open(path).expect(path));
        let fds = [pipe.as_raw_fd(), hostile.wires[0].kick.as_raw_fd(), hostile.client.stream.as_raw_fd()];
        let fds = opened.iter().map(AsRawFd::as_raw_fd).chain(fds);
        fds.map(|fd| add(hostile, region, fd)).collect()
    });
    refused(stage, row, "read-only, sealed against writing", &["ADD_MEM_REG"], 0, |hostile| {
        let own = format!("/proc/self/fd/{}", hostile.ram.file.as_raw_fd());
        let read_only = File::open(own).expect("the memfd once more");
        let sealed: OwnedFd = memfd_create(c"sealed", MFdFlags::MFD_ALLOW_SEALING).expect("a memfd");
        File::from(sealed.try_clone().expect("a descriptor")).set_len(0x1000).expect("a memfd's size");
        fcntl(&sealed, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).expect("a seal");
        [read_only.as_raw_fd(), sealed.as_raw_fd()].map(|fd| add(hostile, region, fd)).into()
    });
}

fn too_many(stage: &mut Stage) {
    let row = "more regions than slots";
    let page = |number: u64| [FURTHER + 0x1000 * number, 0x1000, FURTHER_USER + 0x1000 * number, 0];
    stage.case(row, "ADD_MEM_REG 600 times", Log::Says(&["memory table is full"]), |bench| {
        let mut hostile = Hostile::running(&bench.socket(), 0);
        let fd = hostile.ram.file.as_raw_fd();
        let added = (0..600).filter(|number| add(&mut hostile, page(*number), fd) == Answer::Done).count();
        assert_eq!(added + 2, 509, "as many as GET_MAX_MEM_SLOTS says");
        hostile.assert_serves();
        format!("{added} x ack 0, then ack 1, rings go on")
    });
    refused(stage, row, "9 regions at once, more and fewer than fds", &["SET_MEM_TABLE"], 0, |hostile| {
        let fd = hostile.ram.file.as_raw_fd();
        let nine: Vec<Region> = (0..9).map(page).collect();
        let mut four_billion = table(&nine[..2]);
        four_billion[..4].copy_from_slice(&[0xff; 4]);
        let tables = [(table(&nine), 9), (table(&nine[..2]), 1), (table(&nine[..1]), 2), (four_billion, 2)];
        tables.map(|(table, fds)| hostile.client.tell(code::SET_MEM_TABLE, &table, &vec![fd; fds])).into()
    });
    let sent = "sparse regions of 64 TiB and less, until no address space is left";
    stage.case(row, sent, Log::Says(&["ADD_MEM_REG"]), |bench| {
        let mut hostile = Hostile::running(&bench.socket(), 0);
        let sparse = File::from(memfd_create(c"sparse", MFdFlags::MFD_CLOEXEC).expect("a memfd"));
        sparse.set_len(1 << 46).expect("a memfd's size");
        let (mut at, mut taken) = (FURTHER, 0u64);
        for size in (16..=46).rev().map(|bits| 1u64 << bits) {
            while add(&mut hostile, [at, size, at, 0], sparse.as_raw_fd()) == Answer::Done {
                (at, taken) = (at + size, taken + size);
            }
        }
        hostile.assert_serves();
        bench.assert_admits_others();
        format!("{taken:#x} bytes x ack 0, then ack 1, rings go on, others can connect")
    });
}

/// Tables that change while rings run, are polled, and have buffers everywhere.
fn changes(stage: &mut Stage, format: &str, features: u64) {
    let under_traffic = |bench: &Bench, change: fn(&mut Hostile, u64)| {
        let mut hostile = Hostile::running(&bench.socket(), features);
        let mut rings = std::mem::take(&mut hostile.rings);
        let traffic = |_| {
            for (index, ring) in rings.iter_mut().take(2).enumerate() {
                let Buf { at, len, flags } = good(index);
                ring.fill(&[Buf { at: at + SEAM - DATA, len, flags }]);
            }
            std::thread::sleep(Duration::from_micros(50));
        };
        let count =
            meanwhile(traffic, || repeat(Duration::from_millis(300), |round| change(&mut hostile, round)));
        hostile.rings = rings;
        assert_eq!(hostile.set_table(&[LOW, HIGH]), Answer::Done);
        (0..2).for_each(|ring| hostile.wait_used(ring));
        hostile.assert_serves();
        format!("{count} times, rings go on where they were")
    };
    let row = "memory table changed while rings run";
    stage.case(row, &format!("{format}: SET_MEM_TABLE"), Log::Silent, |bench| {
        under_traffic(bench, |hostile, _| assert_eq!(hostile.set_table(&[LOW, HIGH]), Answer::Done))
    });
    stage.case(row, &format!("{format}: SET_MEM_TABLE, good and bad in turn"), Log::Any, |bench| {
        under_traffic(bench, |hostile, round| {
            let tables: [&[Region]; 3] = [&[LOW, HIGH], &[HIGH], &[LOW, [GUEST, 0, 0, 0]]];
            hostile.set_table(tables[round as usize % 3]);
        })
    });
    for (what, region) in [("the buffers' region", HIGH), ("the rings' region", LOW)] {
        stage.case(row, &format!("{format}: {what} removed and added"), Log::Any, |bench| {
            under_traffic(
                bench,
                match region {
                    HIGH => |hostile, _| remove_and_add(hostile, HIGH),
                    _ => |hostile, _| remove_and_add(hostile, LOW),
                },
            )
        });
    }
}

fn remove_and_add(hostile: &mut Hostile, region: Region) {
    // Refused or not (rings may be left without memory), the connection stays and the region is gone.
    assert_ne!(hostile.client.tell(code::REM_MEM_REG, &single(region), &[]), Answer::Closed);
    let fd = hostile.ram.file.as_raw_fd();
    assert_ne!(add(hostile, region, fd), Answer::Closed);
}

/// Memory whose first touch is slow: the longest chains there are, each descriptor on another page.
fn slow(stage: &mut Stage) {
    let row = "chains as long as they may be";
    for (format, features) in [("split", 0), ("packed", feature::PACKED)] {
        stage.case(row, &format!("{format}: over memory that is there"), Log::Any, |bench| {
            let memory = Ram::new(1 << 28);
            memory.file.write_all_at(&vec![1; 1 << 28], 0).expect("memory");
            long_chains(bench, features, &memory.file)
        });
        stage.case(row, &format!("{format}: over memory never touched"), Log::Any, |bench| {
            let memory = Ram::new(1 << 29);
            long_chains(bench, features, &memory.file)
        });
        stage.case(row, &format!("{format}: over a file on a disk, not cached"), Log::Any, |bench| {
            let (path, chunk) = (bench.path("disk"), vec![1; 1 << 20]);
            let open = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
            let file = open.expect("a file");
            (0..256u64).for_each(|mb| file.write_all_at(&chunk, mb << 20).expect("room on the disk"));
            file.sync_all().expect("a disk");
            let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
            nix::fcntl::posix_fadvise(&file, 0, 0, advice).expect("advice");
            std::fs::remove_file(path).expect("a file");
            long_chains(bench, features, &file)
        });
    }
}

/// Sends frames of 1024 bytes, each on a page of its own of `file`, until every page was used.
fn long_chains(bench: &Bench, features: u64, file: &File) -> String {
    let len = file.metadata().expect("a file").len();
    let mut hostile = Hostile::ready(&bench.socket(), features | feature::INDIRECT);
    let region = [FURTHER, len, FURTHER_USER, 0];
    if add(&mut hostile, region, file.as_raw_fd()) != Answer::Done {
        return "refused: no memory".to_owned();
    }
    hostile.rings[1].size = 1024;
    (0..2).for_each(|ring| hostile.set_up(ring));
    let (tables, before) = (len / (1024 * 4096), bench.port().rx_packets);
    let chains: Vec<Buf> = (0..tables.min(256))
        .map(|table| {
            let page = |n: u64| Buf::readable(FURTHER - GUEST + (table * 1024 + n) * 4096, 1);
            hostile.rings[1].table(DATA + table * 1024 * 16, &(0..1024).map(page).collect::<Vec<_>>())
        })
        .collect();
    hostile.rings[1].post_all(&chains);
    hostile.wait_used(1);
    format!("{} frames of 1024 descriptors sent", bench.port().rx_packets - before)
}
