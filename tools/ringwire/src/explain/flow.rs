//! What passes, and what waits though nothing known is in its way.

use snapshot::{Port, Queue};

use super::Check;
use super::sight::{Seen, Sight};
use crate::units::{count, rate};

/// What passes through a port.
#[derive(Default)]
pub struct Passing {
    /// Whether anything does.
    pub any: bool,
    /// In words that follow the port's name.
    pub text: String,
}

/// What passes through `port`.
pub fn passing(sight: &Sight, port: Seen<Port>) -> Passing {
    let per_second = |packets: u64| rate(packets as f64 / sight.elapsed.as_secs_f64(), "pps");
    let (rx, tx) = (port.moved(|port| port.rx_packets), port.moved(|port| port.tx_packets));
    let any = rx > 0 || tx > 0;
    let text = match any {
        true => format!("carries traffic (rx {}, tx {})", per_second(rx), per_second(tx)),
        false => "can carry traffic, though none passed just now".to_owned(),
    };
    Passing { any, text }
}

/// Whether packets wait at either end that nobody takes; otherwise how many passed.
pub fn flow(sight: &Sight, ends: &[Seen<Port>]) -> Vec<Check> {
    let [near, far] = ends else { return Vec::new() };
    let waits = [(near, far), (far, near)].map(|(from, to)| waiting(*from, *to));
    let waits: Vec<Check> = waits.into_iter().flatten().collect();
    if !waits.is_empty() {
        return waits;
    }
    let seconds = sight.elapsed.as_secs_f64();
    let passed = |from: &Seen<Port>| {
        let (now, ever) = (from.moved(|port| port.rx_packets), from.now.rx_packets);
        let found = match ever {
            0 => "nothing has entered here yet: nobody has sent anything".to_owned(),
            _ => format!("{} packets entered here in {seconds:.1} s, {} so far", count(now), count(ever)),
        };
        Check::ok("traffic", from.name(), found)
    };
    ends.iter().map(passed).collect()
}

fn waiting(from: Seen<Port>, to: Seen<Port>) -> Option<Check> {
    if to.moved(|port| port.tx_packets) > 0 || from.moved(|port| port.rx_packets) > 0 {
        return None;
    }
    if from.stays(|port| port.held > 0) {
        let found =
            format!("{} packets wait to leave through {}, which takes none", count(from.now.held), to.name());
        let advice = format!("what is behind {} is full or gone: ringwire explain {0}", to.name());
        return Some(Check::fail("held", from.name(), found, advice));
    }
    // Of packed rings it cannot be told for sure.
    let waits = |queue: &Queue| queue.ring.posted == Some(true) && queue.ring.avail_index.is_some();
    let is_stuck = |queue: &Seen<Queue>| {
        !queue.now.index.is_multiple_of(2) && queue.stays(waits) && queue.moved(|queue| queue.used) == 0
    };
    let queue = from.queues().into_iter().find(is_stuck)?;
    let found = format!("what the guest has sent waits in queue {}, and nobody takes it", queue.now.index);
    let advice = format!("{} takes nothing: look at what is behind it; then at ringwired's log", to.name());
    Some(Check::fail("held", from.name(), found, advice))
}
