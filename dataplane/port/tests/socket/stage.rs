//! A network of our own for one test, and what moves frames in it.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::libc::iovec;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use port::socket::{
    Arrived, Fault, HEADER_LEN, SocketKind, SocketOptions, SocketPair, SocketPort, SocketPortError, Source,
};

/// What is in front of a frame.
pub type Header = [u8; HEADER_LEN];
/// One that asks for nothing.
pub const PLAIN: Header = [0; HEADER_LEN];
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Puts this thread, and the programs that it starts, in a network of its own, with its own /sys. `false` if that
/// cannot be, and it says why.
pub fn alone() -> bool {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
        eprintln!("skipped: no network namespace of our own: {errno}");
        return false;
    }
    run("mount --make-rprivate /");
    run("mount -t sysfs none /sys");
    // No neighbour discovery in what is counted.
    run("for kind in all default; do echo 1 >/proc/sys/net/ipv6/conf/$kind/disable_ipv6; done");
    true
}

/// Runs `act` in a thread of its own, as a user without privileges.
pub fn as_nobody<T: Send>(user: u32, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let drop_and_act = || {
            // The system call itself changes this thread alone; the capabilities go with it.
            // SAFETY: numbers only.
            let status = unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, user, user, user) };
            assert_eq!(status, 0);
            act()
        };
        scope.spawn(drop_and_act).join().unwrap()
    })
}

/// Runs a command and gives what it says.
pub fn run(command: &str) -> String {
    let (ok, said) = try_run(command);
    assert!(ok, "{command}: {said}");
    said
}

/// Whether it succeeds, and what it says.
pub fn try_run(command: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Two ends of a cable, both up.
pub fn cable(a: &str, b: &str) {
    run(&format!("ip link add {a} type veth peer name {b} && ip link set {a} up && ip link set {b} up"));
}

/// To open by name.
pub fn by_name(kind: SocketKind, interface: &str, queues: u16) -> SocketOptions {
    SocketOptions { source: Source::Name(interface.to_owned()), queues, ..plain(kind) }
}

/// To take descriptors.
pub fn handed_in(fds: Vec<std::os::fd::OwnedFd>) -> SocketOptions {
    SocketOptions { source: Source::Open(fds), ..plain(SocketKind::Tap) }
}

fn plain(kind: SocketKind) -> SocketOptions {
    let (name, source) = ("port0".to_owned(), Source::Open(Vec::new()));
    SocketOptions { name, kind, source, queues: 1, user: None, group: None, mtu: None }
}

/// Opens a port of one pair.
pub fn open(kind: SocketKind, interface: &str) -> (SocketPort, SocketPair) {
    let (port, mut pairs) = SocketPort::open(&by_name(kind, interface, 1)).unwrap();
    assert_eq!(pairs.len(), 1);
    (port, pairs.remove(0))
}

/// The text of the error that it must be.
pub fn refused(options: &SocketOptions) -> String {
    let error: SocketPortError = SocketPort::open(options).map(drop).unwrap_err();
    assert!(!error.to_string().contains('\n'));
    error.to_string()
}

/// An Ethernet frame of `len` bytes: to all, from 02:00:00:00:00:`from`, of an experimental type.
pub fn frame(from: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, from, 0x88, 0xb5]);
    frame.extend((14..len).map(|i| (i * 7 + i / 256) as u8));
    frame
}

/// The same to one address. (What is for all is copied here and there, and counted twice.)
pub fn to_one(from: u8, len: usize) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 9], &frame(from, len)[6..]].concat()
}

/// Sends a frame that is taken at once.
#[track_caller]
pub fn send(pair: &mut SocketPair, header: Header, frame: &[u8]) {
    try_send(pair, header, frame).unwrap();
}

/// Sends a frame.
pub fn try_send(pair: &mut SocketPair, header: Header, frame: &[u8]) -> Result<(), Fault> {
    let piece = iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
    // SAFETY: the kernel only reads the frame, which outlives the call.
    unsafe { pair.send(&header, [piece]) }.map_err(|error| Fault::of(&error))
}

/// Reads a frame, if there is one.
pub fn try_receive(pair: &mut SocketPair) -> Result<(Header, Vec<u8>), Fault> {
    let mut room = vec![0; 70_000];
    let piece = iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    // SAFETY: all of a vector that outlives the call.
    match unsafe { pair.receive([piece]) }.map_err(|error| Fault::of(&error))? {
        Arrived::Placed { header, len } => {
            room.truncate(len);
            Ok((header, room))
        }
        Arrived::Held => {
            let held = (*pair.held.header(), pair.held.frame().to_vec());
            pair.release_held();
            Ok(held)
        }
    }
}

/// Waits for the next frame.
#[track_caller]
pub fn receive(pair: &mut SocketPair) -> (Header, Vec<u8>) {
    wait_for(|| match try_receive(pair) {
        Err(Fault::Again) => {
            let mut readable = [PollFd::new(pair.fd(), PollFlags::POLLIN)];
            poll(&mut readable, PollTimeout::from(50u16)).unwrap();
            None
        }
        received => Some(received.unwrap()),
    })
}

/// Waits for as many frames, and one moment more: all that came, by queue.
#[track_caller]
pub fn collect(pairs: &mut [SocketPair], count: usize) -> Vec<Vec<Vec<u8>>> {
    let mut got: Vec<Vec<Vec<u8>>> = pairs.iter().map(|_| Vec::new()).collect();
    wait_for(|| {
        let enough = got.iter().map(Vec::len).sum::<usize>() >= count;
        for (pair, got) in pairs.iter_mut().zip(&mut got) {
            got.extend(std::iter::from_fn(|| try_receive(pair).ok()).map(|(_, frame)| frame));
        }
        enough.then_some(())
    });
    got
}

/// Throws away what is there.
pub fn discard(pairs: &mut [SocketPair]) {
    for pair in pairs {
        pair.discard();
    }
}

/// Waits until there is something.
#[track_caller]
pub fn wait_for<T>(mut find: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "nothing came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the socket says that it can be written to.
pub fn writable(pair: &SocketPair, timeout: Duration) -> bool {
    let mut fds = [PollFd::new(pair.fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::try_from(timeout).unwrap()).unwrap() == 1
}
