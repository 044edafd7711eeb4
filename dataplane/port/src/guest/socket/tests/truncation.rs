//! A frontend truncates the file behind its memory: the kernel finds nothing there, and says EFAULT. What ends the
//! frontend's session is the SIGBUS of whoever touches it next; here its handler counts.
#![allow(unsafe_code)] // a mapping, and a signal handler

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::libc;
use virtqueue::testing::{RINGS, USER};
use virtqueue::{Memory, Region};

use super::*;

const PAGE: usize = 0x1000;
const LEN: usize = 16 * PAGE;

static LOST: AtomicUsize = AtomicUsize::new(0);

/// Puts zeroes in place of a page that is gone, as the daemon's does.
extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the kernel says where; the page is the test's mapping, and nobody relies on what is in it.
    unsafe {
        let page = (*info).si_addr().map_addr(|addr| addr & !(PAGE - 1));
        libc::mmap(page, PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
    }
    LOST.fetch_add(1, Ordering::Relaxed);
}

/// A mapping for as long as the process lives.
fn map(file: &File) -> *mut u8 {
    // SAFETY: a fresh mapping, and a handler that does what a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let at = libc::mmap(std::ptr::null_mut(), LEN, both, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(at, libc::MAP_FAILED);
        at.cast()
    }
}

/// A guest whose buffers are in a file.
fn bench(format: Format) -> (Bench, File) {
    let file = tempfile();
    file.set_len(LEN as u64).unwrap();
    let host = map(&file);
    let ring = |side: &Side, index| {
        let guest = side.poster.guest().clone();
        let rings = guest.memory.regions()[0].len();
        let at = guest.memory.guest_to_host(RINGS, rings).unwrap();
        // SAFETY: the rings are where the guest has them, and the buffers in a mapping that stays.
        let regions = unsafe {
            [
                Region::new(RINGS, RINGS + USER, rings, at, Arc::new(guest)),
                Region::new(DATA, DATA + USER, LEN as u64, host, Arc::new(())),
            ]
        };
        let memory = Arc::new(Memory::new(regions.into()).unwrap());
        Ring::start(RingConfig { index, memory, ..side.poster.config() }).unwrap()
    };
    let mut bench = Bench::new(Setup::new(format, F_VERSION_1));
    bench.pair = GuestPair::new("vm", ring(&bench.sends, 1), ring(&bench.receives, 0), &bench.guest);
    (bench, file)
}

fn tempfile() -> File {
    // SAFETY: a name, and a descriptor that nobody else has.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(libc::memfd_create(c"guest".as_ptr(), 0)) }
}

/// The first page, with the header, is still there.
fn truncate(file: &File) {
    file.set_len(PAGE as u64).unwrap();
    LOST.store(0, Ordering::Relaxed);
}

#[test]
fn what_cannot_be_read_is_sent_as_zeroes() {
    for format in [Format::Split, Format::Packed] {
        let (mut bench, file) = bench(format);
        let chain = [out(DATA, 12), out(DATA + 2 * PAGE as u64, 100)];
        let id = bench.sends.poster.post(&chain, None).unwrap();
        bench.sends.posted.push((id, chain.to_vec()));
        truncate(&file);
        let turn = bench.send_to(TURN);
        assert_eq!((turn.stop, turn.moved.packets, LOST.load(Ordering::Relaxed)), (Stop::GuestEmpty, 1, 1));
        assert_eq!(bench.far_receives(), Some(([0; HEADER_LEN], vec![0; 100])));
    }
}

#[test]
fn what_cannot_be_written_is_lost_and_counted() {
    for format in [Format::Split, Format::Packed] {
        let (mut bench, file) = bench(format);
        let chain = [into(DATA, 12), into(DATA + 2 * PAGE as u64, 3 * PAGE as u32)];
        bench.receives.poster.post(&chain, None).unwrap();
        bench.far_sends(&[0; HEADER_LEN], &pattern(1, 5000));
        bench.far_sends(&[0; HEADER_LEN], &pattern(2, 60));
        truncate(&file);
        // The second one finds what the signal has put there.
        let turn = bench.receive_from(TURN);
        assert_eq!((turn.stop, turn.moved.packets, LOST.load(Ordering::Relaxed)), (Stop::GuestEmpty, 2, 3));
        assert_eq!(Bench::drops(&bench.counters, DropReason::SocketError), 1);
        assert_eq!(bench.guest.pair.tx.packets.get(), 1);
    }
}
