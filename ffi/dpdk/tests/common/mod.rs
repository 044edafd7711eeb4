//! What all tests of this crate share.
//!
//! EAL can be initialised once in a process, so each test runs its body in a process of its own,
//! under cargo-nextest and under `cargo test` alike.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use dpdk::eal::{Eal, EalArgs, HugepagePolicy};
use dpdk::mempool::Mempool;

/// Set in the process that runs a test's body.
const CHILD: &str = "RINGWIRE_DPDK_TEST_CHILD";

/// Runs `body` in a new process, as the test called `name`; true in that process.
pub fn isolated(name: &str, body: fn()) {
    if env::var_os(CHILD).is_some() {
        body();
        return;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--include-ignored"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{name}: {}\n{stdout}\n{stderr}",
        output.status
    );
}

/// Defines tests whose bodies run in processes of their own.
#[macro_export]
macro_rules! isolated_tests {
    ($($(#[$attribute:meta])* fn $name:ident() $body:block)*) => {$(
        #[test]
        $(#[$attribute])*
        fn $name() {
            fn body() $body
            $crate::common::isolated(stringify!($name), body);
        }
    )*};
}

/// EAL without hugepages, whatever the host has.
pub fn eal() -> Eal {
    Eal::init(&EalArgs { hugepages: HugepagePolicy::Never, memory_mb: 128, ..EalArgs::default() }).unwrap()
}

/// A pool of 2047 mbufs of 2048 bytes.
#[allow(dead_code, reason = "not used by all test files")]
pub fn pool() -> Mempool {
    Mempool::new("pool", 2047, 2048, 0, -1).unwrap()
}

/// A directory of this test's own.
#[allow(dead_code, reason = "not used by all test files")]
pub fn scratch_dir() -> PathBuf {
    let dir = env::temp_dir().join(format!("ringwire-dpdk-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// `len` bytes that differ from those of any other `seed`.
#[allow(dead_code, reason = "not used by all test files")]
pub fn frame(seed: usize, len: usize) -> Vec<u8> {
    let mut state = (seed as u32).wrapping_mul(2_654_435_761) ^ len as u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}
