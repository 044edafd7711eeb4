//! The order in which preconditions are asked about.

use snapshot::Port;

use super::sight::{Seen, Sight};
use super::{Check, Mark, backend, daemon, drops, features, flow, frontend, link, rings, worker};
use crate::host::Host;

/// Everything between the daemon and the packets of `port`: the port itself, and what is at its wire's other end.
pub fn walk(sight: &Sight, port: Seen<Port>, host: &Host) -> Vec<Check> {
    let peer = sight.peer(port);
    let ends: Vec<Seen<Port>> = [Some(port), peer].into_iter().flatten().collect();
    let mut checks = vec![daemon::reached(sight.now)];
    checks.extend(worker::workers(sight, &ends));
    checks.extend(set_up(sight, port, host));
    checks.push(backend::backend(sight, port));
    checks.extend(peer.into_iter().flat_map(|peer| set_up(sight, peer, host)));
    // Why nothing passes is known, if something is missing: what follows is no news.
    if checks.iter().all(|check| check.mark != Mark::Fail) {
        checks.extend(ends.iter().flat_map(|end| rings::unowned(*end)));
    }
    checks.extend(drops::drops(port, peer));
    checks.extend(peer.into_iter().flat_map(|peer| drops::drops(peer, Some(port))));
    checks.extend(ends.iter().flat_map(|end| link::counters(*end)));
    if checks.iter().all(|check| check.mark != Mark::Fail) {
        checks.extend(flow::flow(sight, &ends));
    }
    checks
}

/// A port by itself: is all there that it needs to run?
fn set_up(sight: &Sight, port: Seen<Port>, host: &Host) -> Vec<Check> {
    if port.guest().is_none() {
        return vec![link::link(port)];
    }
    // Each rests on those before it.
    let steps: [&dyn Fn() -> Vec<Check>; 6] = [
        &|| frontend::socket(port, host),
        &|| frontend::frontend(port, host),
        &|| features::features(sight, port),
        &|| frontend::memory(port),
        &|| rings::started(port),
        &|| rings::buffers(port),
    ];
    let mut checks = Vec::new();
    for step in steps {
        checks.extend(step());
        if checks.iter().any(|check: &Check| check.mark == Mark::Fail) {
            break;
        }
    }
    checks.extend(frontend::messages(port, &checks));
    checks
}
