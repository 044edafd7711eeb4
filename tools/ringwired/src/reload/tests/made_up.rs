//! A datapath that is nothing but its configuration, and as strict as the real one.

use std::sync::Mutex;

use engine::config::{Config, GuestConfig, SocketConfig};

use crate::reload::{Change, Fallback, PortConfig, Running};

/// What runs, what was asked of it, and which requests fail whatever they are, by number.
pub struct MadeUp {
    pub config: Mutex<Config>,
    pub asked: Mutex<Vec<Change>>,
    pub failing: Vec<usize>,
}

impl MadeUp {
    pub fn new(config: Config, failing: Vec<usize>) -> MadeUp {
        MadeUp { config: Mutex::new(config), asked: Mutex::default(), failing }
    }
}

impl Running for MadeUp {
    fn config(&self) -> Config {
        self.config.lock().unwrap().clone()
    }

    fn change(&self, change: &Change) -> Result<(), String> {
        let mut asked = self.asked.lock().unwrap();
        asked.push(change.clone());
        if self.failing.contains(&(asked.len() - 1)) {
            return Err("it fails".to_owned());
        }
        make(&mut self.config.lock().unwrap(), change);
        Ok(())
    }
}

/// Panics where the real one would refuse.
fn make(config: &mut Config, change: &Change) {
    match change {
        Change::Add(port) => add(config, port),
        Change::Remove(port) => remove(config, port),
        Change::Backend { guest, from, to } => connect(config, guest, from, to),
        Change::Fallback { guest, from, to } => {
            let is_port = |name: &String| {
                config.nics.iter().any(|nic| nic.name == *name)
                    || config.sockets.iter().any(|socket| socket.name == *name)
            };
            assert!(to.port.iter().all(is_port), "{change}");
            let guest = find(config, guest);
            let now = Fallback { port: guest.fallback.clone(), hold: guest.fallback_hold };
            assert_eq!(now, *from);
            (guest.fallback, guest.fallback_hold) = (to.port.clone(), to.hold);
        }
        Change::Offloads { guest, from, to } => {
            let guest = find(config, guest);
            assert_eq!(guest.offloads, *from);
            guest.offloads = *to;
        }
        Change::Assign { guest, from, to } => {
            assert!(to.values().all(|core| config.cores.contains(core)), "{change}: {to:?}");
            let guest = find(config, guest);
            assert_eq!(guest.assign, *from);
            assert!(to.keys().all(|pair| *pair < guest.queues), "{change}: {to:?}");
            guest.assign = to.clone();
        }
        Change::Polling { from, to } => {
            assert_eq!(config.polling, *from);
            config.polling = *to;
        }
        Change::AddWorker(core) => {
            assert!(!config.cores.contains(core));
            config.cores.push(*core);
        }
        Change::RemoveWorker(core) => {
            assert!(config.cores.contains(core) && config.cores.len() > 1);
            let assigned = |guest: &GuestConfig| guest.assign.values().any(|to| to == core);
            assert!(!config.guests.iter().any(assigned), "{change}: the assignment would be lost");
            config.cores.retain(|other| other != core);
        }
    }
}

fn find<'c>(config: &'c mut Config, guest: &str) -> &'c mut GuestConfig {
    config.guests.iter_mut().find(|found| found.name == guest).expect("a guest")
}

/// Names of all ports.
fn names(config: &Config) -> Vec<&str> {
    let nics = config.nics.iter().map(|nic| nic.name.as_str());
    let sockets = config.sockets.iter().map(|socket| socket.name.as_str());
    nics.chain(sockets).chain(config.guests.iter().map(|guest| guest.name.as_str())).collect()
}

/// Who is connected to a port, or has it as exception path.
fn user<'c>(config: &'c Config, port: &str) -> Option<&'c str> {
    let uses = |guest: &&GuestConfig| {
        guest.backend.as_deref() == Some(port) || guest.punt.as_ref().is_some_and(|punt| punt.port == port)
    };
    config.guests.iter().find(uses).map(|guest| guest.name.as_str())
}

fn add(config: &mut Config, port: &PortConfig) {
    assert!(!names(config).contains(&port.name()), "{port} is there already");
    let nics = config.nics.iter().map(|nic| Some(nic.thing()));
    let sockets = config.sockets.iter().map(SocketConfig::thing);
    let guests = config.guests.iter().map(|guest| Some(guest.thing()));
    let mut things = nics.chain(sockets).chain(guests).flatten();
    assert!(things.all(|thing| Some(thing) != port.thing()), "{port}: {:?} is in use", port.thing());
    match port {
        PortConfig::Nic(nic) => {
            config.nics.push(nic.clone());
        }
        PortConfig::Socket(socket) => {
            config.sockets.push(socket.clone());
        }
        PortConfig::Guest(guest) => {
            assert_eq!((&guest.backend, &guest.fallback), (&None, &None), "they come later");
            assert!(
                guest.assign.values().all(|core| config.cores.contains(core)),
                "{port}: {:?}",
                guest.assign
            );
            if let Some(punt) = &guest.punt {
                assert!(
                    config.sockets.iter().any(|tap| tap.name == punt.port),
                    "{port} without {}",
                    punt.port
                );
                assert_eq!(user(config, &punt.port), None, "{}", punt.port);
            }
            config.guests.push(guest.clone());
        }
    }
}

fn remove(config: &mut Config, port: &PortConfig) {
    let name = port.name();
    assert_eq!(user(config, name), None, "{port} is in use");
    assert!(
        config.guests.iter().all(|guest| guest.fallback.as_deref() != Some(name)),
        "{port} is a fallback"
    );
    let count = names(config).len();
    match port {
        PortConfig::Nic(nic) => config.nics.retain(|other| other != nic),
        PortConfig::Socket(socket) => config.sockets.retain(|other| other != socket),
        PortConfig::Guest(guest) => config.guests.retain(|other| other != guest),
    }
    assert_eq!(names(config).len(), count - 1, "{port}, just so, was there");
}

fn connect(config: &mut Config, guest: &str, from: &Option<String>, to: &Option<String>) {
    assert_eq!(find(config, guest).backend, *from);
    let partner = |config: &mut Config, name: &Option<String>, backend: Option<String>| {
        let guests = config.guests.iter_mut();
        guests
            .filter(|other| Some(&other.name) == name.as_ref())
            .for_each(|other| other.backend = backend.clone());
    };
    if let Some(to) = to {
        assert!(names(config).contains(&to.as_str()) && to != guest, "{guest} -> {to}");
        assert_eq!(user(config, to), None, "{guest} -> {to}");
        if let Some(other) = config.guests.iter().find(|other| other.name == *to) {
            assert_eq!(other.backend, None, "{guest} -> {to}");
        }
    }
    partner(config, from, None);
    partner(config, to, Some(guest.to_owned()));
    find(config, guest).backend = to.clone();
}
