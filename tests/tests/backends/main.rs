//! A guest's backend changes while the guest runs: nic, tap, raw socket, another guest, none.
//!
//! Each test is in a network of its own ([`tests::lan`]), in which a bridge joins all backends, so that whatever the
//! guest is connected to it reaches the same others.

mod announce;
mod fallback;
mod guests;
mod idle;
mod interfaces;
mod link;
mod punt;
mod refused;
mod segments;
mod sequence;
mod stream;
mod traffic;

use tests::cores;

/// Who owns the queues of a guest with this backend.
fn owner_with(backend: &str) -> String {
    match backend {
        "none" => "parked".to_owned(),
        _ if backend.starts_with("wire") => format!("worker:{}", cores::worker()),
        _ => "slow-path".to_owned(),
    }
}
