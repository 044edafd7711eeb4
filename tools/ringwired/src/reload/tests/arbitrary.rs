//! Any two configurations: the way from one to the other, and back from wherever it ends.

use std::sync::Arc;
use std::time::Duration;

use engine::config::{
    Classes, Config as Datapath, GuestConfig, HugepagePolicy, Idle, NicConfig, Polling, PuntConfig,
    SocketConfig, SocketKind, all_offloads,
};
use proptest::prelude::*;

use super::made_up::MadeUp;
use super::{CORES, Stage};
use crate::config::file::File;
use crate::config::{ApiConfig, Config};
use crate::reload::{Change, PortConfig, ReloadError};

/// Names of ports, which two configurations may use for different kinds.
const NAMES: usize = 7;
/// Interfaces, devices and guests' sockets: fewer than ports, so that they move from one to another.
const THINGS: usize = 4;

/// Choices, taken from bytes; the first one when they are used up.
struct Choices<'b>(std::slice::Iter<'b, u8>);

impl Choices<'_> {
    fn below(&mut self, count: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % count
    }

    fn yes(&mut self) -> bool {
        self.below(2) == 1
    }

    /// One of `things`, which is taken out.
    fn take<T>(&mut self, things: &mut Vec<T>) -> Option<T> {
        let at = self.below(things.len() + 1);
        (at > 0).then(|| things.remove(at - 1))
    }
}

/// A valid configuration.
fn config(bytes: &[u8]) -> Config {
    let mut choices = Choices(bytes.iter());
    let cores: Vec<usize> = CORES.into_iter().filter(|_| choices.yes()).collect();
    let mut datapath = Datapath {
        eal_args: vec!["--no-pci".to_owned()],
        hugepages: HugepagePolicy::Never,
        cores: if cores.is_empty() { vec![CORES[0]] } else { cores },
        polling: Polling {
            idle: if choices.yes() { Idle::Adaptive } else { Idle::Poll },
            burst: if choices.yes() { 8 } else { 64 },
        },
        nics: Vec::new(),
        sockets: Vec::new(),
        guests: Vec::new(),
    };
    ports(&mut datapath, &mut choices);
    connect(&mut datapath, &mut choices);
    Config { api: ApiConfig::default(), datapath }.canonical()
}

fn ports(datapath: &mut Datapath, choices: &mut Choices<'_>) {
    let mut things: [Vec<usize>; 3] = std::array::from_fn(|_| (0..THINGS).collect());
    for name in (0..NAMES).map(|name| format!("p{name}")) {
        let kind = choices.below(5);
        let Some(thing) = choices.take(&mut things[kind % 3]) else { continue };
        match kind {
            0 | 3 => datapath.guests.push(guest(name, thing, &datapath.cores, choices)),
            1 | 4 => datapath.sockets.push(SocketConfig {
                name,
                kind: if kind == 1 { SocketKind::Tap } else { SocketKind::Raw },
                interface: format!("i{thing}"),
                descriptors: Vec::new(),
                queues: 1 + choices.below(2) as u16,
                user: (kind == 1 && choices.yes()).then_some(7),
                group: None,
            }),
            _ => datapath.nics.push(NicConfig {
                name,
                device: format!("net_null{thing}"),
                queues: 1 + choices.below(2) as u16,
                mtu: choices.yes().then_some(1500),
                promiscuous: choices.yes(),
                lro: choices.yes(),
            }),
        }
    }
}

fn guest(name: String, socket: usize, cores: &[usize], choices: &mut Choices<'_>) -> GuestConfig {
    let queues = 1 + choices.below(2) as u16;
    let assign = (0..queues).filter_map(|pair| Some((pair, choices.take(&mut cores.to_vec())?))).collect();
    GuestConfig {
        name,
        socket: format!("/s{socket}").into(),
        socket_mode: choices.yes().then_some(0o660),
        socket_group: choices.yes().then_some(36),
        queues,
        assign,
        backend: None,
        fallback: None,
        fallback_hold: Duration::from_secs(choices.below(3) as u64),
        punt: None,
        mac: choices.yes().then_some([2, 0, 0, 0, 0, 1]),
        mtu: choices.yes().then_some(1500),
        offloads: [all_offloads(), 0, 1, 1 << 11 | 1][choices.below(4)],
    }
}

/// Gives guests exception paths, backends and fallbacks.
fn connect(datapath: &mut Datapath, choices: &mut Choices<'_>) {
    let is_tap = |socket: &&SocketConfig| socket.kind == SocketKind::Tap && socket.queues == 1;
    let mut taps: Vec<String> = datapath.sockets.iter().filter(is_tap).map(|tap| tap.name.clone()).collect();
    let mut free: Vec<String> = datapath.nics.iter().map(|nic| nic.name.clone()).collect();
    free.extend(datapath.sockets.iter().map(|socket| socket.name.clone()));
    let ports = free.clone();
    for at in 0..datapath.guests.len() {
        let guest = &mut datapath.guests[at];
        if choices.yes()
            && let Some(port) = choices.take(&mut taps)
        {
            free.retain(|other| *other != port);
            let classes = Classes { arp: choices.yes(), nd: choices.yes(), ..Classes::default() };
            guest.punt = Some(PuntConfig { port, classes });
        }
        guest.fallback = choices.take(&mut ports.clone());
    }
    let mut guests: Vec<usize> = (0..datapath.guests.len()).collect();
    while let Some(at) = guests.pop() {
        let others = guests.len();
        let partner = choices.below(others + 2);
        if partner < others && choices.yes() {
            let other = guests.remove(partner);
            datapath.guests[at].backend = Some(datapath.guests[other].name.clone());
        } else {
            datapath.guests[at].backend = choices.take(&mut free);
        }
    }
}

/// The same, but for one port.
fn edited(config: &Config, bytes: &[u8]) -> Config {
    let mut choices = Choices(bytes.iter());
    let mut config = config.clone();
    let Datapath { nics, sockets, guests, .. } = &mut config.datapath;
    let at = choices.below(16);
    match choices.below(4) {
        0 if !nics.is_empty() => {
            let at = at % nics.len();
            nics[at].lro = !nics[at].lro;
        }
        1 if !sockets.is_empty() => {
            let at = at % sockets.len();
            sockets[at].interface = "other".to_owned();
        }
        2 if !guests.is_empty() => {
            let gone = guests.remove(at % guests.len()).name;
            let left = guests.iter_mut().filter(|guest| guest.backend.as_ref() == Some(&gone));
            left.for_each(|guest| guest.backend = None);
        }
        3 if !guests.is_empty() => {
            let at = at % guests.len();
            guests[at].queues += 1;
        }
        _ => {}
    }
    config.canonical()
}

fn text(config: &Config) -> String {
    File::of(config).text()
}

fn any_config() -> impl Strategy<Value = Config> {
    prop::collection::vec(any::<u8>(), 0..160).prop_map(|bytes| config(&bytes))
}

/// Whether a change is about this guest.
fn concerns(change: &Change, name: &str) -> bool {
    match change {
        Change::Add(port) | Change::Remove(port) => port.name() == name,
        Change::Backend { guest, from, to } => {
            [Some(guest), from.as_ref(), to.as_ref()].contains(&Some(&name.to_owned()))
        }
        Change::Fallback { guest, .. } | Change::Offloads { guest, .. } | Change::Assign { guest, .. } => {
            guest == name
        }
        _ => false,
    }
}

/// The ports that a guest needs, itself included, and what its partner needs to be there, each with its keys.
fn needs(config: &Config, guest: &GuestConfig) -> Vec<Option<toml::Table>> {
    let Datapath { nics, sockets, guests, .. } = &config.datapath;
    let nics = nics.iter().cloned().map(PortConfig::Nic);
    let sockets = sockets.iter().cloned().map(PortConfig::Socket);
    let ports = nics.chain(sockets).chain(guests.iter().cloned().map(PortConfig::Guest));
    let ports: Vec<PortConfig> = ports.collect();
    let punt = |guest: &GuestConfig| guest.punt.as_ref().map(|punt| punt.port.clone());
    let partner = guests.iter().find(|other| Some(&other.name) == guest.backend.as_ref());
    let names = [
        Some(guest.name.clone()),
        guest.backend.clone(),
        guest.fallback.clone(),
        punt(guest),
        partner.and_then(punt),
    ];
    let keys = |name: &str| Some(ports.iter().find(|port| port.name() == name)?.keys());
    names.into_iter().map(|name| keys(&name?)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_dump_is_read_as_what_it_was_written_of(config in any_config()) {
        let read = Config::parse("dump", &text(&config), &CORES).unwrap();
        prop_assert_eq!(text(&read.canonical()), text(&config));
    }

    #[test]
    fn what_runs_becomes_what_the_file_says(a in any_config(), b in any_config()) {
        let stage = Stage::set(&text(&b));
        let running = Arc::new(MadeUp::new(a.datapath.clone(), Vec::new()));
        let reloader = stage.reloader(running.clone());
        let foretold = reloader.reload(true).unwrap();
        prop_assert_eq!(reloader.running().text(), text(&a), "a dry run changes nothing");
        let changes = reloader.reload(false).unwrap();
        prop_assert_eq!(&changes, &foretold);
        prop_assert_eq!(changes.is_empty(), text(&a) == text(&b), "{:?}", changes);
        prop_assert_eq!(reloader.running().text(), text(&b));
        prop_assert!(reloader.reload(false).unwrap().is_empty());
    }

    #[test]
    fn who_is_not_concerned_is_not_touched(
        a in any_config(),
        edit in prop::collection::vec(any::<u8>(), 2),
    ) {
        let b = edited(&a, &edit);
        let stage = Stage::set(&text(&b));
        let running = Arc::new(MadeUp::new(a.datapath.clone(), Vec::new()));
        stage.reloader(running.clone()).reload(false).unwrap();
        let asked = running.asked.lock().unwrap();
        for guest in &a.datapath.guests {
            let then = b.datapath.guests.iter().find(|then| then.name == guest.name);
            if then.is_some_and(|then| needs(&a, guest) == needs(&b, then)) {
                let touching: Vec<_> = asked.iter().filter(|change| concerns(change, &guest.name)).collect();
                prop_assert!(touching.is_empty(), "{}: {:?}", guest.name, touching);
            }
        }
    }

    #[test]
    fn wherever_it_fails_all_is_as_before(a in any_config(), b in any_config()) {
        let stage = Stage::set(&text(&b));
        for failing in 0.. {
            let running = Arc::new(MadeUp::new(a.datapath.clone(), vec![failing]));
            let reloader = stage.reloader(running.clone());
            match reloader.reload(false) {
                Ok(_) => {
                    prop_assert!(running.asked.lock().unwrap().len() <= failing);
                    break;
                }
                Err(ReloadError::Failed { failure, .. }) => {
                    let asked = running.asked.lock().unwrap();
                    prop_assert_eq!(&failure.change, &asked[failing].to_string());
                    prop_assert_eq!(asked.len(), 2 * failing + 1, "each before it is undone");
                    prop_assert_eq!(failure.left, Vec::<String>::new());
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
            prop_assert_eq!(reloader.running().text(), text(&a), "after change {} failed", failing);
        }
    }
}
