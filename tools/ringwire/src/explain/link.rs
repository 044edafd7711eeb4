//! The far side of a nic, tap or raw port: its link, and what it loses by itself.

use std::collections::BTreeMap;

use snapshot::{Interface, Nic, Port};

use super::Check;
use super::sight::Seen;
use crate::units::{count, rate};

/// Counters of losses, whose they are, and what to do about them.
const LOSSES: [(&str, &str); 6] = [
    (
        "imissed",
        "packets come faster than the guest takes them: more buffers in the guest's rings, more queues, or \
      a core of its own for its worker",
    ),
    (
        "rx_nombuf",
        "the NIC found no packet buffer: report this, ringwired has some for each place one can be in",
    ),
    ("ierrors", "broken frames arrive: the cable, the peer, or longer frames than the MTU allows"),
    ("oerrors", "the NIC could not send: see the driver's counters in ringwire port show"),
    ("missed", "packets came faster than we read them"),
    ("rx_errors", "broken frames: see ip -s link"),
];

/// Whether packets can pass.
pub fn link(port: Seen<Port>) -> Check {
    match (&port.now.nic, &port.now.interface) {
        (Some(nic), _) => of_nic(port.name(), nic),
        (_, Some(interface)) => of_interface(port.now, interface),
        (None, None) => Check::ok("link", port.name(), port.now.state.clone()),
    }
}

fn of_nic(name: &str, nic: &Nic) -> Check {
    let Nic { device, driver, mtu, .. } = nic;
    if !nic.link_up {
        let advice =
            format!("the cable, the port at its other end, or, for {device}, the interface behind it");
        return Check::fail("link", name, format!("the link is down ({driver})"), advice);
    }
    let speed = match nic.link_speed_mbps {
        0 => String::new(),
        speed => format!(", {}", rate(f64::from(speed) * 1e6, "bit/s")),
    };
    Check::ok("link", name, format!("up{speed}, MTU {mtu} ({driver})"))
}

fn of_interface(port: &Port, interface: &Interface) -> Check {
    let Interface { name, driver, mtu, .. } = interface;
    let fail = |found: &str, advice: String| {
        Check::fail("link", &port.name, format!("interface {name} {found}"), advice)
    };
    match port.state.as_str() {
        "up" => Check::ok("link", &port.name, format!("{name} is up, MTU {mtu} ({driver})")),
        "gone" => {
            let advice = format!(
                "connect the guest elsewhere (ringwire backend set), then ringwire port remove {} and port add it",
                port.name
            );
            fail("was removed", advice)
        }
        "no_carrier" => {
            fail("has no carrier", format!("what is at the other end of {name}? ip link show {name}"))
        }
        "elsewhere" => Check::note(
            "link",
            &port.name,
            format!("interface {name} was moved to another network namespace, where we cannot look at it"),
            "look at it there",
        ),
        state => fail(&format!("is {state}"), format!("ip link set {name} up")),
    }
}

/// What was lost before it could enter.
pub fn counters(port: Seen<Port>) -> Vec<Check> {
    let stats = |port: &Port| -> BTreeMap<String, u64> {
        let nic = port.nic.as_ref().map(|nic| nic.device_stats.clone());
        nic.or(port.interface.as_ref().map(|part| part.kernel_stats.clone())).unwrap_or_default()
    };
    let count_of = |name: &'static str| move |port: &Port| stats(port).get(name).copied().unwrap_or(0);
    if port.guest().is_some() {
        return Vec::new();
    }
    let mut checks = Vec::new();
    let mut past = Vec::new();
    for (name, advice) in LOSSES {
        let (moved, total) = (port.moved(count_of(name)), count_of(name)(port.now));
        if moved > 0 {
            let found = format!("it loses packets itself, just now {}: {name}", count(moved));
            checks.push(Check::note("device", port.name(), found, advice));
        } else if total > 0 {
            past.push(format!("{name} {}", count(total)));
        }
    }
    if checks.is_empty() {
        let past = if past.is_empty() { String::new() } else { format!("; so far: {}", past.join(", ")) };
        checks.push(Check::ok("device", port.name(), format!("lost nothing just now{past}")));
    }
    checks
}
