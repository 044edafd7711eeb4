//! A guest's virtqueues: set up, enabled, kicked off, sound, owned, and with receive buffers in them.

use snapshot::{Guest, Port, Queue, RingState};

use super::Check;
use super::frontend::quoted;
use super::sight::Seen;

const PARKED: &str = "parked";
/// So many queues are told by their numbers.
const SHOWN: usize = 8;
/// The check for receive buffers: without any, what the guest sends may pass all the same.
pub const BUFFERS: &str = "buffers";

/// Whether each pair that the guest uses runs.
pub fn started(port: Seen<Port>) -> Vec<Check> {
    let Some(guest) = port.guest() else { return Vec::new() };
    let pairs = guest.queues.chunks(2).filter(|pair| pair.len() == 2);
    let (mut checks, mut running, mut offered) = (Vec::new(), 0, 0);
    for pair in pairs {
        offered += 1;
        if offered > 1 && pair.iter().all(is_unused) {
            continue;
        }
        let problems: Vec<Check> = pair.iter().filter_map(|queue| problem(port, guest, queue)).collect();
        running += usize::from(problems.is_empty());
        checks.extend(problems);
    }
    if checks.is_empty() {
        let found = format!("queue pairs that run: {running}, offered: {offered}");
        checks.push(Check::ok("rings", port.name(), found));
    }
    checks
}

/// A guest need not use all pairs that it is offered.
fn is_unused(queue: &Queue) -> bool {
    !queue.enabled || !queue.ring.kick
}

fn way(queue: &Queue) -> String {
    let way = if queue.index.is_multiple_of(2) { "the guest receives" } else { "the guest sends" };
    format!("queue {} ({way})", queue.index)
}

/// Why a virtqueue does not run.
fn problem(port: Seen<Port>, guest: &Guest, queue: &Queue) -> Option<Check> {
    let way = way(queue);
    let fail = |check, found: &str, advice: &str| {
        Some(Check::fail(check, port.name(), format!("{way} {found}"), advice))
    };
    if let Some(violation) = &queue.violation {
        let found = format!("was stopped, because the guest broke the protocol: {violation}");
        let advice = "reset the device (in the guest: unbind and bind its driver), or reconnect; it is a bug of the \
                      guest's driver, or of the VMM";
        return fail("violation", &found, advice);
    }
    let RingState { addresses, kick, started, .. } = queue.ring;
    let refused = quoted(guest, &["SET_VRING", "SET_MEM_TABLE", "SET_FEATURES", "ADD_MEM_REG"]);
    match () {
        () if started => None,
        () if !addresses && !kick => {
            let found = format!("is not set up: the guest's driver is not up{refused}");
            fail("driver", &found, "let the guest boot, and load its driver (Linux: modprobe virtio_net)")
        }
        () if !addresses => {
            let advice = "the frontend must send SET_VRING_ADDR; see its log";
            fail("rings", &format!("has no addresses{refused}"), advice)
        }
        () if !kick => {
            let found =
                "was never kicked off: SET_VRING_KICK has not come, or GET_VRING_BASE has stopped it since";
            fail(
                "rings",
                found,
                "let the guest run (a paused VM stops its rings), and its driver start the device",
            )
        }
        () if !queue.enabled => {
            let advice =
                "in the guest: ip link set DEVICE up; with several queues: ethtool -L DEVICE combined N";
            fail("rings", "is disabled by the frontend (SET_VRING_ENABLE)", advice)
        }
        () => {
            let advice = "its addresses must lie in the memory that the guest shares, and its size be valid";
            fail("rings", &format!("cannot start{refused}"), advice)
        }
    }
}

/// Whether there is room for what the guest is to receive. A guest that is merely slow uses buffers.
pub fn buffers(port: Seen<Port>) -> Vec<Check> {
    let queues = port.queues();
    let receiving = queues.iter().filter(|queue| queue.now.ring.started && queue.now.index.is_multiple_of(2));
    let receiving: Vec<_> = receiving.collect();
    let is_bare = |queue: &&&Seen<Queue>| {
        queue.stays(|queue| queue.ring.posted == Some(false)) && queue.moved(|queue| queue.used) == 0
    };
    let bare: Vec<String> =
        receiving.iter().filter(is_bare).map(|queue| queue.now.index.to_string()).collect();
    let numbers = match bare.len().saturating_sub(SHOWN) {
        0 => bare.join(", "),
        more => format!("{} and {more} more", bare[..SHOWN].join(", ")),
    };
    let advice = "the guest's driver must fill its receive rings: is its interface up, has it memory?";
    vec![match bare.len() {
        0 => Check::ok(BUFFERS, port.name(), "the guest has posted receive buffers"),
        some if some < receiving.len() => {
            let found = format!("the guest has posted no receive buffers in queues: {numbers}");
            Check::note(BUFFERS, port.name(), found, advice)
        }
        _ => {
            let used = receiving.iter().any(|queue| queue.now.used > 0);
            let more = if used { "no more " } else { "no " };
            let found = format!("the guest has posted {more}receive buffers in queue {numbers}");
            Check::fail(BUFFERS, port.name(), found, advice)
        }
    }]
}

/// Rings that run, and nobody serves, though nothing is missing that we know of.
pub fn unowned(port: Seen<Port>) -> Option<Check> {
    let started = |queue: &&Queue| queue.ring.started && queue.enabled;
    let mut queues = port.guest()?.queues.iter().filter(started);
    let parked = queues.find(|queue| queue.owner == PARKED)?;
    let found = format!("{} is ready, but nobody serves it", way(parked));
    Some(Check::fail(
        "owner",
        port.name(),
        found,
        "the other queue of its pair must run, too; see ringwired's log",
    ))
}
