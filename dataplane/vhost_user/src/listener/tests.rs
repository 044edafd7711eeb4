use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::*;
use crate::testing::{alone, event, open_fds};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn listens_accepts_and_removes_its_socket() {
    let _alone = alone();
    let before = open_fds();
    let directory = directory();
    let path = directory.path().join("vm1.sock");
    let listener = Listener::bind(&path, Some(0o660), None).unwrap();
    assert_eq!(listener.path(), path);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o660);
    assert!(!listener.is_awaited());
    let frontend = UnixStream::connect(&path).unwrap();
    assert!(listener.is_awaited());
    let stop = event();
    let stream = listener.accept(stop.as_fd()).unwrap().unwrap();
    assert!(!listener.is_awaited());
    drop((listener, stop, stream, frontend));
    assert!(!path.exists());
    assert_eq!(open_fds(), before);
}

#[test]
fn every_mode_and_any_group_is_set_before_anybody_can_connect() {
    let _alone = alone();
    let directory = directory();
    let path = directory.path().join("vm1.sock");
    for mode in [0o600, 0o666, 0o777, 0o770] {
        let listener = Listener::bind(&path, Some(mode), None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        drop(listener);
    }
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("not root: cannot give a socket to another group");
        return;
    }
    let listener = Listener::bind(&path, Some(0o660), Some(4321)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().gid(), 4321);
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn replaces_a_stale_socket_and_refuses_a_live_one() {
    let _alone = alone();
    let directory = directory();
    let path = directory.path().join("vm1.sock");
    drop(UnixListener::bind(&path).unwrap()); // std leaves the file behind
    assert!(path.exists());
    let live = Listener::bind(&path, None, None).unwrap();
    let error = Listener::bind(&path, None, None).err().unwrap();
    assert!(error.to_string().ends_with("vm1.sock: in use by another process"), "{error}");
    // Also with its backlog full.
    let waiting: Vec<_> = std::iter::from_fn(|| {
        let socket = unix_socket().unwrap();
        connect(&socket, &SocketAddrUnix::new(&path).unwrap()).ok().map(|()| socket)
    })
    .collect();
    assert!(waiting.len() >= BACKLOG as usize);
    assert!(matches!(Listener::bind(&path, None, None), Err(SocketError::InUse { .. })));
    drop(live);
    Listener::bind(&path, None, None).unwrap();
}

#[test]
fn leaves_alone_what_is_no_socket() {
    let _alone = alone();
    let directory = directory();
    let path = directory.path().join("notes");
    fs::write(&path, "keep me").unwrap();
    let error = Listener::bind(&path, None, None).err().unwrap();
    assert!(error.to_string().ends_with("notes: exists and is not a socket"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"keep me");
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    assert!(matches!(Listener::bind(&link, None, None), Err(SocketError::NotASocket { .. })));
}

#[test]
fn names_a_missing_directory_and_a_path_that_is_too_long() {
    let _alone = alone();
    let directory = directory();
    let error = Listener::bind(&directory.path().join("gone/vm1.sock"), None, None).err().unwrap();
    assert!(error.to_string().contains("/gone does not exist"), "{error}");
    let error = Listener::bind(&directory.path().join("x".repeat(120)), None, None).err().unwrap();
    assert!(error.to_string().contains("cannot use that path"), "{error}");
}

#[test]
fn does_not_remove_what_somebody_else_put_there() {
    let _alone = alone();
    let directory = directory();
    let path = directory.path().join("vm1.sock");
    let listener = Listener::bind(&path, None, None).unwrap();
    fs::remove_file(&path).unwrap();
    let other = Listener::bind(&path, None, None).unwrap();
    drop(listener);
    assert!(path.exists());
    drop(other);
    assert!(!path.exists());
}

#[test]
fn a_stop_ends_waiting() {
    let _alone = alone();
    let directory = directory();
    let listener = Listener::bind(&directory.path().join("vm1.sock"), None, None).unwrap();
    let stop = event();
    let asked = std::thread::scope(|scope| {
        let accepted = scope.spawn(|| listener.accept(stop.as_fd()).unwrap().is_none());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!accepted.is_finished());
        let asked = Instant::now();
        rustix::io::write(&stop, &1u64.to_ne_bytes()).unwrap();
        assert!(accepted.join().unwrap());
        asked
    });
    assert!(asked.elapsed() < Duration::from_secs(1));
}
