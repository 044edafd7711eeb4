//! A configuration as a file: the way back from a [`Config`] to what [`Config::parse`] reads.
//!
//! Every key has its value, whether the file said it or not, so that it stays what runs even where another version has
//! another default; keys that stand for nothing when they are absent (`mtu`, `fallback`, ...) are left out.

use std::collections::BTreeMap;

use engine::config::{
    Classes, GuestConfig, HugepagePolicy, NicConfig, OFFLOADS, PuntConfig, SocketConfig, SocketKind,
    all_offloads,
};
use serde::{Serialize, Serializer};
use snapshot::Offered;

use super::{ApiConfig, Config, shapes};

/// The whole file. The order of fields, here and below, is the order of keys.
#[derive(Debug, Serialize)]
pub struct File {
    pub(crate) api: Api,
    pub(crate) eal: Eal,
    pub(crate) datapath: Datapath,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nic: Vec<Nic>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tap: Vec<Socket>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    raw: Vec<Socket>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    guest: Vec<Guest>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Api {
    socket: String,
    mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Eal {
    args: Vec<String>,
    hugepages: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct Datapath {
    cores: Vec<usize>,
    idle: &'static str,
    burst: u16,
}

#[derive(Debug, Serialize)]
pub(crate) struct Nic {
    name: String,
    device: String,
    queues: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    promiscuous: bool,
    lro: bool,
}

/// A tap or raw socket.
#[derive(Debug, Serialize)]
pub(crate) struct Socket {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    interface: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fds: Vec<i32>,
    queues: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Guest {
    name: String,
    socket: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_group: Option<String>,
    queues: u16,
    backend: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<String>,
    fallback_hold: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    punt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    punt_classes: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    punt_mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    offloads: Offered,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    assign: BTreeMap<Number, usize>,
}

/// A key that is a number.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Number(u16);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl File {
    /// What `config` looks like in a file.
    pub fn of(config: &Config) -> File {
        let engine::config::Config { eal_args, hugepages, cores, polling, nics, sockets, guests } =
            &config.datapath;
        let sockets = |raw| {
            let kind = sockets.iter().filter(move |port| (port.kind == SocketKind::Raw) == raw);
            kind.map(Socket::of).collect()
        };
        File {
            api: Api::of(&config.api),
            eal: Eal { args: eal_args.clone(), hugepages: hugepages_word(*hugepages) },
            datapath: Datapath { cores: cores.clone(), idle: polling.idle.name(), burst: polling.burst },
            nic: nics.iter().map(Nic::of).collect(),
            tap: sockets(false),
            raw: sockets(true),
            guest: guests.iter().map(Guest::of).collect(),
        }
    }

    /// As TOML.
    pub fn text(&self) -> String {
        toml::to_string(self).expect("strings, numbers and lists of them are TOML")
    }
}

/// The keys of one section.
pub(crate) fn table(section: &impl Serialize) -> toml::Table {
    toml::Table::try_from(section).expect("strings, numbers and lists of them are TOML")
}

fn hugepages_word(policy: HugepagePolicy) -> &'static str {
    match policy {
        HugepagePolicy::Auto => "auto",
        HugepagePolicy::Require => "require",
        HugepagePolicy::Never => "never",
    }
}

fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}

fn user(number: Option<u32>) -> Option<String> {
    number.map(|number| shapes::USERS.name(number))
}

fn group(number: Option<u32>) -> Option<String> {
    number.map(|number| shapes::GROUPS.name(number))
}

fn address(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl Api {
    fn of(config: &ApiConfig) -> Api {
        let socket = config.socket.display().to_string();
        Api { socket, mode: octal(config.mode), owner: user(config.owner), group: group(config.group) }
    }
}

impl Nic {
    pub fn of(config: &NicConfig) -> Nic {
        let NicConfig { name, device, queues, mtu, promiscuous, lro } = config.clone();
        Nic { name, device, queues, mtu, promiscuous, lro }
    }
}

impl Socket {
    pub fn of(config: &SocketConfig) -> Socket {
        let SocketConfig { name, kind: _, interface, descriptors: fds, queues, .. } = config.clone();
        Socket { name, interface, fds, queues, user: user(config.user), group: group(config.group) }
    }
}

impl Guest {
    pub fn of(guest: &GuestConfig) -> Guest {
        Guest {
            name: guest.name.clone(),
            socket: guest.socket.display().to_string(),
            socket_mode: guest.socket_mode.map(octal),
            socket_group: group(guest.socket_group),
            queues: guest.queues,
            backend: guest.backend.as_deref().unwrap_or("none").to_owned(),
            fallback: guest.fallback.clone(),
            fallback_hold: guest.fallback_hold.as_secs(),
            punt: guest.punt.as_ref().map(|punt| punt.port.clone()),
            punt_classes: guest.punt.as_ref().map(class_names),
            punt_mac: guest.punt.as_ref().and_then(|punt| punt.classes.mac).map(address),
            mac: guest.mac.map(address),
            mtu: guest.mtu,
            offloads: offered(guest.offloads),
            assign: guest.assign.iter().map(|(pair, core)| (Number(*pair), *core)).collect(),
        }
    }
}

fn class_names(punt: &PuntConfig) -> Vec<&'static str> {
    let Classes { arp, nd, lldp, lacp, mac: _ } = punt.classes;
    let classes = [("arp", arp), ("nd", nd), ("lldp", lldp), ("lacp", lacp)];
    classes.into_iter().filter(|(_, chosen)| *chosen).map(|(name, _)| name).collect()
}

fn offered(bits: u64) -> Offered {
    match bits {
        0 => Offered::Word("off".to_owned()),
        bits if bits == all_offloads() => Offered::Word("auto".to_owned()),
        bits => {
            let chosen = OFFLOADS.iter().filter(|(_, bit)| bits & 1 << bit != 0);
            Offered::List(chosen.map(|(name, _)| (*name).to_owned()).collect())
        }
    }
}
