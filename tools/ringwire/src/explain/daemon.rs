//! Is ringwired there?

use std::path::Path;

use snapshot::Status;

use super::Check;
use crate::host::{Host, Process};
use crate::units::duration;

/// It answered.
pub fn reached(status: &Status) -> Check {
    let Status { version, pid, .. } = status;
    let found = format!("ringwired {version}, pid {pid}, up {}", duration(status.uptime_seconds));
    Check::ok("daemon", "ringwired", found)
}

/// It did not, and `problem` says why. What on this host may have kept it from starting is said, too: it is not there
/// to be asked.
pub fn unreachable(socket: &Path, problem: &str, host: &Host) -> Check {
    let mut found = format!("cannot be reached on {}: {problem}", socket.display());
    if !socket.exists() && !has_hugepages(host) {
        found.push_str(
            "; no hugepages are reserved, without which it does not start if [eal] hugepages = \"require\"",
        );
    }
    let running = host.processes_naming("ringwired").into_iter().find(|process| process.name == "ringwired");
    let advice = match running {
        Some(Process { pid, .. }) => {
            format!("a ringwired runs as pid {pid}: its [api] socket is another one, or this user may not use it")
        }
        None => "no ringwired runs here: start it, and see its log for why it has ended (ringwired --config FILE says \
                 it in one line)"
            .to_owned(),
    };
    Check::fail("daemon", "ringwired", found, advice)
}

fn has_hugepages(host: &Host) -> bool {
    const SIZES: &str = "/sys/kernel/mm/hugepages";
    let reserved = |size: &String| host.number(&format!("{SIZES}/{size}/nr_hugepages")).unwrap_or(0);
    host.list(SIZES).iter().any(|size| reserved(size) > 0)
}
