//! EAL: once per process, many processes per host, and the caller's affinity is left alone.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{eal, pool};
use dpdk::eal::{Eal, EalArgs, EalError, HugepagePolicy, register_thread};
use dpdk::ethdev::{Device, DeviceError};
use dpdk::mempool::{Mempool, MempoolError};

/// "Cpus_allowed_list" of the calling thread.
fn affinity() -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap();
    line.to_owned()
}

isolated_tests! {
    fn affinity_is_unchanged() {
        let before = affinity();
        let eal = eal();
        assert_eq!(affinity(), before);
        let other = std::thread::spawn(affinity).join().unwrap();
        assert_eq!(other, before, "of a thread started afterwards");
        drop(eal);
        assert_eq!(affinity(), before);
    }

    fn affinity_is_unchanged_even_if_lcores_are_given() {
        let before = affinity();
        let eal = Eal::init(&EalArgs {
            hugepages: HugepagePolicy::Never,
            extra: vec!["--lcores=0@0".into()],
            ..EalArgs::default()
        });
        assert!(eal.is_ok(), "{eal:?}");
        assert_eq!(affinity(), before);
    }

    fn eal_is_initialised_once() {
        let first = eal();
        assert!(!first.hugepages());
        assert!(first.args().iter().any(|arg| arg == "--no-huge"));
        let second = Eal::init(&EalArgs::default());
        assert!(matches!(second, Err(EalError::AlreadyInitialised)), "{second:?}");
        drop(first);
        let third = Eal::init(&EalArgs::default());
        assert!(matches!(third, Err(EalError::AlreadyInitialised)), "{third:?}");
    }

    fn nothing_works_before_eal() {
        let pool = Mempool::new("pool", 63, 2048, 0, -1);
        assert!(matches!(pool, Err(MempoolError::Eal(EalError::NotInitialised))), "{pool:?}");
        let device = Device::probe("net_null0");
        assert!(matches!(device, Err(DeviceError::Eal(EalError::NotInitialised))), "{device:?}");
        let thread = register_thread();
        assert!(matches!(thread, Err(EalError::NotInitialised)), "{thread:?}");
    }

    fn bad_arguments_are_an_error_that_shows_them() {
        let error = Eal::init(&EalArgs {
            hugepages: HugepagePolicy::Never,
            // An option DPDK does not know would not do: from 25.11 EAL ends the process then.
            extra: vec!["--main-lcore=77".into()],
            ..EalArgs::default()
        })
        .unwrap_err();
        assert!(error.to_string().contains("--main-lcore=77"), "{error}");
    }

    fn no_files_are_left_behind() {
        let _eal = eal();
        let name = format!("ringwire-{}", std::process::id());
        // Root's place; others have theirs in $XDG_RUNTIME_DIR or /tmp.
        assert!(!Path::new("/var/run/dpdk").join(&name).exists());
        // A device can be made without it.
        let device = Device::probe("net_null0").unwrap();
        assert_eq!(device.info().name, "net_null0");
        drop(device);
        assert!(!Path::new("/var/run/dpdk").join(&name).exists());
    }

    fn a_mempool_keeps_eal_alive() {
        let eal = eal();
        let pool = pool();
        drop(eal);
        let mut mbuf = pool.alloc().unwrap();
        mbuf.set_single_len(2048);
        mbuf.data_mut().fill(7);
        assert_eq!(mbuf.data()[2047], 7);
        drop(mbuf);
        assert_eq!(pool.in_use(), 0);
    }

    fn threads_get_an_lcore_and_its_cache() {
        let _eal = eal();
        // All mbufs are in one cache once they were freed by an lcore.
        let pool = Mempool::new("cached", 63, 2048, 32, -1).unwrap();
        for _ in 0..200 {
            // More threads one after another than there are lcore ids: ids are given back.
            let pool = pool.clone();
            std::thread::spawn(move || {
                let _lcore = register_thread().unwrap();
                let _again = register_thread().unwrap();
                drop(pool.alloc().unwrap());
            })
            .join()
            .unwrap();
        }
        let main = register_thread().unwrap();
        drop(main);
        assert_eq!(pool.in_use(), 0);
    }

    #[ignore = "a part of two_processes_at_once"]
    fn holds_eal_until_stdin_closes() {
        let _eal = eal();
        let pool = pool();
        let _mbuf = pool.alloc().unwrap();
        println!("ready");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
    }
}

#[test]
fn two_processes_at_once() {
    use std::io::{BufRead, BufReader};

    let mut children: Vec<_> = (0..2)
        .map(|_| {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["holds_eal_until_stdin_closes", "--exact", "--nocapture", "--ignored"])
                .env("RINGWIRE_DPDK_TEST_CHILD", "1")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let stdout = BufReader::new(child.stdout.take().unwrap());
            (child, stdout)
        })
        .collect();
    for (_, stdout) in &mut children {
        let ready = stdout.lines().any(|line| line.is_ok_and(|line| line.ends_with("ready")));
        assert!(ready, "a process did not get as far as a mempool");
    }
    for (mut child, mut stdout) in children {
        drop(child.stdin.take());
        std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}
