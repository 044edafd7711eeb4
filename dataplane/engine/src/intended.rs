//! What each guest is meant to be connected to, whatever its link does at the moment.

use crate::guest::Route;

/// A guest as it is connected now.
pub struct Connected {
    /// Its name.
    pub name: String,
    /// Where it is meant to be.
    pub route: Route,
    /// Where it is.
    pub to: Option<String>,
}

/// The backend of each: what it is connected to, or, while its fallback is in force, what it returns to, if that is
/// nobody else's by now.
pub fn backends(guests: &[Connected]) -> Vec<Option<String>> {
    let mut taken: Vec<&str> = guests.iter().filter_map(|guest| guest.to.as_deref()).collect();
    let busy = |name: &str| guests.iter().any(|guest| guest.name == name && guest.to.is_some());
    let mut backends = Vec::with_capacity(guests.len());
    for guest in guests {
        let wanted = guest.returns_to().filter(|port| !taken.contains(port) && !busy(port));
        taken.extend(wanted);
        backends.push(wanted.or(guest.to.as_deref()).map(str::to_owned));
    }
    backends
}

impl Connected {
    /// The port that its fallback stands in for.
    fn returns_to(&self) -> Option<&str> {
        let Route { wanted, fallback, .. } = &self.route;
        wanted.as_deref().filter(|_| self.to.is_some() && self.to == *fallback && self.to != *wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(name: &str, to: &str, wanted: &str, fallback: &str) -> Connected {
        let port = |name: &str| (name != "none").then(|| name.to_owned());
        let route = Route { wanted: port(wanted), fallback: port(fallback), ..Route::default() };
        Connected { name: name.to_owned(), route, to: port(to) }
    }

    fn of(guests: &[Connected]) -> Vec<String> {
        backends(guests).into_iter().map(|backend| backend.unwrap_or_else(|| "none".to_owned())).collect()
    }

    #[test]
    fn a_fallback_in_force_stands_for_the_backend() {
        assert_eq!(of(&[guest("vm1", "tap0", "wire0", "tap0")]), ["wire0"]);
        assert_eq!(of(&[guest("vm1", "wire0", "wire0", "tap0")]), ["wire0"]);
        assert_eq!(of(&[guest("vm1", "tap0", "tap0", "tap0")]), ["tap0"]);
        assert_eq!(of(&[guest("vm1", "none", "none", "tap0")]), ["none"]);
    }

    #[test]
    fn what_is_another_guests_by_now_is_not_returned_to() {
        let lost = || guest("vm1", "tap0", "wire0", "tap0");
        assert_eq!(of(&[lost(), guest("vm2", "wire0", "wire0", "none")]), ["tap0", "wire0"]);
        // Both are away from it.
        assert_eq!(of(&[lost(), guest("vm2", "tap1", "wire0", "tap1")]), ["wire0", "tap1"]);
    }

    #[test]
    fn of_two_guests_each_has_the_other() {
        let pair = [guest("vm1", "vm2", "vm2", "none"), guest("vm2", "vm1", "none", "none")];
        assert_eq!(of(&pair), ["vm2", "vm1"]);
        // The other left.
        let left = [guest("vm1", "none", "vm2", "none"), guest("vm2", "raw0", "raw0", "none")];
        assert_eq!(of(&left), ["none", "raw0"]);
        let fell_back = [guest("vm1", "tap0", "vm2", "tap0"), guest("vm2", "raw0", "raw0", "none")];
        assert_eq!(of(&fell_back), ["tap0", "raw0"]);
        let waits = [guest("vm1", "tap0", "vm2", "tap0"), guest("vm2", "none", "none", "none")];
        assert_eq!(of(&waits), ["vm2", "none"]);
    }
}
