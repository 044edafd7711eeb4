//! What the port is connected to.

use snapshot::{Guest, Port};

use super::Check;
use super::sight::{Seen, Sight};

/// Whether there is anything at the wire's other end.
pub fn backend(sight: &Sight, port: Seen<Port>) -> Check {
    match port.guest() {
        Some(guest) => of_guest(sight, port, guest),
        None => of_backend(sight, port),
    }
}

fn of_guest(sight: &Sight, port: Seen<Port>, guest: &Guest) -> Check {
    let Guest { backend, backend_wanted, .. } = guest;
    let name = port.name();
    let choose = format!("ringwire backend set {name} PORT");
    if backend == "none" {
        let found = "it has no backend: its virtqueues are parked";
        return Check::fail("backend", name, found, choose);
    }
    match sight.port(backend) {
        None => Check::fail("backend", name, format!("its backend {backend} is not there"), choose),
        Some(_) if is_fallback(guest) => {
            let found = format!("it runs on its fallback {backend}, because {backend_wanted} has no link");
            Check::note("backend", name, found, format!("ringwire explain {backend_wanted}"))
        }
        Some(_) => Check::ok("backend", name, backend.clone()),
    }
}

/// Whether the fallback is in the backend's place.
fn is_fallback(guest: &Guest) -> bool {
    guest.fallback.as_ref() == Some(&guest.backend) && guest.backend != guest.backend_wanted
}

fn of_backend(sight: &Sight, port: Seen<Port>) -> Check {
    let name = port.name();
    if let Some(guest) = sight.guest_of(name) {
        return Check::ok("backend", name, format!("is the backend of {}", guest.name));
    }
    let guests =
        || sight.now.ports.iter().filter_map(|port| Some((port.name.as_str(), port.guest.as_ref()?)));
    if let Some((guest, _)) = guests().find(|(_, guest)| guest.punt.as_deref() == Some(name)) {
        return Check::ok("backend", name, format!("is the exception path of {guest}"));
    }
    if let Some((guest, _)) = guests().find(|(_, guest)| is_fallback(guest) && guest.backend_wanted == name) {
        let found = format!("{guest} runs on its fallback, until this has had a link for a while");
        return Check::fail("backend", name, found, "bring the link up");
    }
    if let Some((guest, _)) = guests().find(|(_, guest)| guest.fallback.as_deref() == Some(name)) {
        let found = format!("is {guest}'s fallback, and not in use");
        return Check::fail("backend", name, found, format!("ringwire explain {guest}"));
    }
    let found = "is no guest's backend";
    Check::fail("backend", name, found, format!("ringwire backend set GUEST {name}"))
}
