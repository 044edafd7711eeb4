//! The sections of the file, one function each, and what must hold between them.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::config::{
    BURST_MAX, Classes, GuestConfig, HugepagePolicy, Idle, NicConfig, OFFLOADS, Polling, PuntConfig,
    SocketConfig, SocketKind, Thing, all_offloads, check_interface,
};

use super::document::{Document, Table, Value, suggest};
use super::shapes::{self, Accounts, Unique};
use super::{ApiConfig, Config, ConfigError};

const SECTIONS: [&str; 7] = ["api", "eal", "datapath", "nic", "tap", "raw", "guest"];
pub(crate) const NIC_KEYS: [&str; 6] = ["name", "device", "queues", "mtu", "promiscuous", "lro"];
const TAP_KEYS: [&str; 6] = ["name", "interface", "fds", "queues", "user", "group"];
const RAW_KEYS: [&str; 4] = ["name", "interface", "fds", "queues"];
pub(crate) const GUEST_KEYS: [&str; 16] = [
    "name",
    "socket",
    "socket_mode",
    "socket_group",
    "mode",
    "queues",
    "assign",
    "backend",
    "fallback",
    "fallback_hold",
    "offloads",
    "punt",
    "punt_classes",
    "punt_mac",
    "mac",
    "mtu",
];

/// Queue pairs of one port.
const QUEUES: std::ops::RangeInclusive<u16> = 1..=128;
/// Smallest IPv4 MTU (RFC 791; virtio 1.3 section 5.1.4.1 asks the same) to what jumbo NICs take.
const MTU: std::ops::RangeInclusive<u16> = 68..=9600;

/// Seconds that a backend must have a link again before its guest returns to it.
const FALLBACK_HOLD: std::ops::RangeInclusive<u16> = 0..=3600;
const FALLBACK_HOLD_DEFAULT: u16 = 3;

/// What is unique over the whole file.
pub(super) struct Claims {
    names: Unique<String>,
    things: Unique<Thing>,
    backends: Unique<String>,
}

impl Claims {
    /// Nothing is taken yet.
    pub fn new() -> Claims {
        Claims {
            names: Unique::new(|_| "port names are unique"),
            things: Unique::new(Thing::rule),
            backends: Unique::new(|_| "a port is the backend of one guest"),
        }
    }
}

/// What a guest can name: ports, to be connected to, and the cores that have a worker.
pub(super) struct Names<'t> {
    pub ports: Vec<String>,
    /// Those of them that are taps with one queue pair.
    pub taps: Vec<String>,
    pub guests: Vec<&'t str>,
    pub cores: Vec<usize>,
}

/// Reads the whole file.
pub(super) fn read(document: &Document<'_>, cores: &[usize]) -> Result<Config, ConfigError> {
    let parsed = document.parse()?;
    let root = document.root(parsed.get_ref());
    root.only(&SECTIONS)?;
    let mut claims = Claims::new();
    let api = api(&root, &mut claims)?;
    let (eal_args, hugepages) = eal(&root)?;
    let (cores, polling) = datapath(&root, cores)?;
    let nics = root.sections("nic")?;
    let nics = nics.iter().map(|table| nic(table, &mut claims));
    let nics = nics.collect::<Result<Vec<_>, _>>()?;
    let taps = root.sections("tap")?;
    let taps = taps.iter().map(|table| socket_port(table, SocketKind::Tap, &mut claims));
    let mut sockets = taps.collect::<Result<Vec<_>, _>>()?;
    for table in root.sections("raw")? {
        sockets.push(socket_port(&table, SocketKind::Raw, &mut claims)?);
    }
    let tables = root.sections("guest")?;
    let names = Names {
        ports: nics
            .iter()
            .map(|nic| &nic.name)
            .chain(sockets.iter().map(|port| &port.name))
            .cloned()
            .collect(),
        taps: sockets
            .iter()
            .filter(|port| port.kind == SocketKind::Tap && port.queues == 1)
            .map(|port| port.name.clone())
            .collect(),
        guests: tables.iter().filter_map(|t| t.get("name")?.string("").ok()).collect(),
        cores: cores.clone(),
    };
    let guests = tables.iter().map(|table| guest(table, &names, &mut claims));
    let guests = guests.collect::<Result<Vec<_>, _>>()?;
    check_pairs(&tables, &guests)?;
    let datapath = engine::config::Config { eal_args, hugepages, cores, polling, nics, sockets, guests };
    Ok(Config { api, datapath })
}

fn api(root: &Table<'_>, claims: &mut Claims) -> Result<ApiConfig, ConfigError> {
    let mut api = ApiConfig::default();
    let Some(table) = root.section("api")? else {
        return Ok(api);
    };
    table.only(&["socket", "mode", "owner", "group"])?;
    if let Some(value) = table.get("socket") {
        api.socket = shapes::socket(&value)?;
        claims.things.take(Thing::Socket(api.socket.clone()), &value)?;
    }
    if let Some(value) = table.get("mode") {
        api.mode = shapes::mode(&value)?;
    }
    api.owner = account(&table, "owner", shapes::USERS)?;
    api.group = account(&table, "group", shapes::GROUPS)?;
    Ok(api)
}

fn account(table: &Table<'_>, key: &str, accounts: Accounts) -> Result<Option<u32>, ConfigError> {
    table.get(key).map(|value| shapes::account(&value, accounts)).transpose()
}

fn eal(root: &Table<'_>) -> Result<(Vec<String>, HugepagePolicy), ConfigError> {
    let Some(table) = root.section("eal")? else {
        return Ok((Vec::new(), HugepagePolicy::Auto));
    };
    table.only(&["args", "hugepages"])?;
    let wanted = "an array of strings such as [\"--no-pci\"]";
    let args = match table.get("args") {
        None => Vec::new(),
        Some(value) => {
            let args = value.elements(wanted)?;
            let args = args.iter().map(|arg| Ok(arg.string("an EAL argument")?.to_owned()));
            args.collect::<Result<Vec<_>, _>>()?
        }
    };
    let hugepages = match table.get("hugepages") {
        None => HugepagePolicy::Auto,
        Some(value) => value.word(&[
            ("auto", HugepagePolicy::Auto),
            ("require", HugepagePolicy::Require),
            ("never", HugepagePolicy::Never),
        ])?,
    };
    Ok((args, hugepages))
}

fn datapath(root: &Table<'_>, allowed: &[usize]) -> Result<(Vec<usize>, Polling), ConfigError> {
    let what = "one worker is pinned to each core, such as cores = [1]";
    let Some(table) = root.section("datapath")? else {
        return Err(root.missing("datapath.cores", what));
    };
    table.only(&["cores", "idle", "burst"])?;
    let mut polling = Polling::default();
    if let Some(value) = table.get("idle") {
        polling.idle = value.word(&[("poll", Idle::Poll), ("adaptive", Idle::Adaptive)])?;
    }
    if let Some(value) = table.get("burst") {
        polling.burst = value.integer(1..=BURST_MAX as u16)?;
    }
    let value = table.require("cores", what)?;
    let elements = value.elements("an array of core numbers")?;
    if elements.is_empty() {
        return Err(value.error(format!("is empty ({what})")));
    }
    let mut unique = Unique::new(|_| "each core gets one worker");
    let mut cores = Vec::with_capacity(elements.len());
    for element in &elements {
        let core = usize::from(element.integer(0..=u16::MAX)?);
        if !allowed.contains(&core) {
            return Err(element
                .error(format!("this process may not run on core {core} (allowed: {})", ranges(allowed))));
        }
        unique.take(core, element)?;
        cores.push(core);
    }
    Ok((cores, polling))
}

/// `0-3, 6` for 0, 1, 2, 3 and 6.
fn ranges(cores: &[usize]) -> String {
    let runs = cores.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [one] => one.to_string(),
        _ => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    runs.collect::<Vec<_>>().join(", ")
}

pub(super) fn nic(table: &Table<'_>, claims: &mut Claims) -> Result<NicConfig, ConfigError> {
    table.only(&NIC_KEYS)?;
    let name = port_name(table, claims)?;
    let value = table.require("device", "a PCI address or vdev devargs")?;
    let device = shapes::device(&value)?;
    claims.things.take(Thing::device(&device), &value)?;
    Ok(NicConfig {
        name,
        device,
        queues: queues(table)?,
        mtu: mtu(table)?,
        promiscuous: table.get("promiscuous").map_or(Ok(true), |value| value.boolean())?,
        lro: table.get("lro").map_or(Ok(false), |value| value.boolean())?,
    })
}

fn socket_port(
    table: &Table<'_>,
    kind: SocketKind,
    claims: &mut Claims,
) -> Result<SocketConfig, ConfigError> {
    let is_tap = kind == SocketKind::Tap;
    table.only(if is_tap { &TAP_KEYS } else { &RAW_KEYS })?;
    let name = port_name(table, claims)?;
    let queues = queues(table)?;
    let descriptors = table.get("fds").map(|value| descriptors(&value, queues)).transpose()?;
    let interface = match (table.get("interface"), &descriptors) {
        (Some(value), None) => interface(&value, claims)?,
        (Some(value), Some(_)) => {
            return Err(value.error("cannot be combined with fds: open descriptors have their interface"));
        }
        (None, Some(_)) => String::new(),
        (None, None) => {
            return Err(table.missing_key("interface", "the kernel's name of it, such as \"eth2\""));
        }
    };
    Ok(SocketConfig {
        name,
        kind,
        interface,
        descriptors: descriptors.unwrap_or_default(),
        queues,
        user: account(table, "user", shapes::USERS)?,
        group: account(table, "group", shapes::GROUPS)?,
    })
}

fn interface(value: &Value<'_>, claims: &mut Claims) -> Result<String, ConfigError> {
    let name = value.string("an interface's name")?;
    check_interface(name).map_err(|fault| value.error(format!("{name:?}: {fault}")))?;
    claims.things.take(Thing::Interface(name.to_owned()), value)?;
    Ok(name.to_owned())
}

/// Descriptors that whoever starts us has opened already, one a queue pair.
fn descriptors(value: &Value<'_>, queues: u16) -> Result<Vec<i32>, ConfigError> {
    let elements = value.elements("an array of open descriptors' numbers")?;
    let numbers = elements.iter().map(|element| Ok(i32::from(element.integer(0..=u16::MAX)?)));
    let numbers = numbers.collect::<Result<Vec<i32>, ConfigError>>()?;
    match numbers.len() == usize::from(queues) {
        true => Ok(numbers),
        false => Err(value.error(format!("has {} descriptors, but queues is {queues}", numbers.len()))),
    }
}

pub(super) fn guest(
    table: &Table<'_>,
    names: &Names<'_>,
    claims: &mut Claims,
) -> Result<GuestConfig, ConfigError> {
    table.only(&GUEST_KEYS)?;
    let name = port_name(table, claims)?;
    let value = table.require("socket", "the vhost-user socket's path")?;
    let socket = shapes::socket(&value)?;
    claims.things.take(Thing::Socket(socket.clone()), &value)?;
    if let Some(value) = table.get("mode") {
        let supported = value.word(&[("server", true), ("client", false)])?;
        if !supported {
            let problem = "\"client\" is not supported in this version (allowed: \"server\")";
            return Err(value.error(problem));
        }
    }
    let backend = match table.get("backend") {
        None => None,
        Some(value) => backend(&value, &name, names, claims)?,
    };
    let fallback = table.get("fallback").map(|value| fallback(&value, names)).transpose()?;
    let hold = table.get("fallback_hold").map(|value| value.integer(FALLBACK_HOLD)).transpose()?;
    let queues = queues(table)?;
    Ok(GuestConfig {
        name,
        socket,
        socket_mode: table.get("socket_mode").map(|v| shapes::mode(&v)).transpose()?,
        socket_group: account(table, "socket_group", shapes::GROUPS)?,
        queues,
        assign: table
            .get("assign")
            .map_or(Ok(BTreeMap::new()), |value| assign(&value, queues, &names.cores))?,
        backend,
        fallback,
        punt: punt(table, names, claims)?,
        fallback_hold: Duration::from_secs(hold.unwrap_or(FALLBACK_HOLD_DEFAULT).into()),
        mac: table.get("mac").map(|v| shapes::mac(&v)).transpose()?,
        mtu: mtu(table)?,
        offloads: table.get("offloads").map_or(Ok(all_offloads()), |value| offloads(&value))?,
    })
}

/// Which of a guest's queue pairs is polled by the worker on which of these cores.
fn assign(value: &Value<'_>, queues: u16, cores: &[usize]) -> Result<BTreeMap<u16, usize>, ConfigError> {
    let entries = value.entries("a table of queue pairs and cores, such as { 0 = 1 }")?;
    let assigned = entries.into_iter().map(|(key, value)| {
        let pair = (0..queues).find(|pair| pair.to_string() == key);
        let Some(pair) = pair else {
            let pairs: Vec<usize> = (0..queues.into()).collect();
            return Err(value.error(format!("is no queue pair of the guest (allowed: {})", ranges(&pairs))));
        };
        let core = usize::from(value.integer(0..=u16::MAX)?);
        if !cores.contains(&core) {
            return Err(value.error(format!("core {core} has no worker (allowed: {})", ranges(cores))));
        }
        Ok((pair, core))
    });
    assigned.collect()
}

/// Where a guest's exceptions go, and what is one: everything that has a name, if no names are given.
fn punt(
    table: &Table<'_>,
    names: &Names<'_>,
    claims: &mut Claims,
) -> Result<Option<PuntConfig>, ConfigError> {
    let mac = table.get("punt_mac").map(|value| shapes::mac(&value)).transpose()?;
    let mut classes = Classes { mac, ..Classes::default() };
    match table.get("punt_classes") {
        None => classes = Classes { arp: true, nd: true, lldp: true, lacp: true, mac },
        Some(value) => {
            for element in value.elements("an array of \"arp\", \"nd\", \"lldp\" and \"lacp\"")? {
                match element.word(&[("arp", 0), ("nd", 1), ("lldp", 2), ("lacp", 3)])? {
                    0 => classes.arp = true,
                    1 => classes.nd = true,
                    2 => classes.lldp = true,
                    _ => classes.lacp = true,
                }
            }
        }
    }
    let Some(value) = table.get("punt") else {
        return match table.get("punt_classes").or(table.get("punt_mac")) {
            Some(value) => Err(value.error("says nothing without punt, the tap that it is about")),
            None => Ok(None),
        };
    };
    let port = value.string("the name of a tap")?.to_owned();
    if !names.taps.contains(&port) {
        let hint = suggest(&port, names.taps.iter().map(String::as_str));
        return Err(value.error(format!("no tap has the name {port:?}{hint}")));
    }
    claims.backends.take(port.clone(), &value)?;
    Ok(Some(PuntConfig { port, classes }))
}

/// "auto", "off", or a list of offloads, as feature bits.
fn offloads(value: &Value<'_>) -> Result<u64, ConfigError> {
    if let Ok(word) = value.string("") {
        return match word {
            "auto" => Ok(all_offloads()),
            "off" => Ok(0),
            other => {
                let hint = suggest(other, ["auto", "off"]);
                Err(value.error(format!("unknown value {other:?}{hint}, or an array of offloads")))
            }
        };
    }
    let elements = value.elements("\"auto\", \"off\" or an array of offloads")?;
    let bits = elements.iter().map(|element| element.word(&OFFLOADS));
    let bits = bits.collect::<Result<Vec<u32>, _>>()?;
    Ok(bits.into_iter().fold(0, |all, bit| all | 1 << bit))
}

fn port_name(table: &Table<'_>, claims: &mut Claims) -> Result<String, ConfigError> {
    let value = table.require("name", "every port has one")?;
    let name = shapes::name(&value)?;
    claims.names.take(name.clone(), &value)?;
    Ok(name)
}

fn queues(table: &Table<'_>) -> Result<u16, ConfigError> {
    table.get("queues").map_or(Ok(1), |value| value.integer(QUEUES))
}

fn mtu(table: &Table<'_>) -> Result<Option<u16>, ConfigError> {
    table.get("mtu").map(|value| value.integer(MTU)).transpose()
}

/// The port that a guest's virtqueues are connected to.
fn backend(
    value: &Value<'_>,
    guest: &str,
    names: &Names<'_>,
    claims: &mut Claims,
) -> Result<Option<String>, ConfigError> {
    let name = value.string("the name of a port, or \"none\"")?;
    if name == "none" {
        return Ok(None);
    }
    if name == guest {
        return Err(value.error("is the guest itself"));
    }
    if !names.ports.iter().any(|port| port == name) && !names.guests.contains(&name) {
        let others = names.guests.iter().copied().filter(|other| *other != guest);
        let known = names.ports.iter().map(String::as_str).chain(others).chain(["none"]);
        return Err(value.error(format!("no port has the name {name:?}{}", suggest(name, known))));
    }
    claims.backends.take(name.to_owned(), value)?;
    Ok(Some(name.to_owned()))
}

/// The port that takes the backend's place. It may be the backend itself: `ringwire backend set` can make it so.
fn fallback(value: &Value<'_>, names: &Names<'_>) -> Result<String, ConfigError> {
    let name = value.string("the name of a port")?;
    let known = names.ports.iter().map(String::as_str);
    if !known.clone().any(|port| port == name) {
        return Err(
            value.error(format!("no nic, tap or raw port has the name {name:?}{}", suggest(name, known)))
        );
    }
    Ok(name.to_owned())
}

/// Two guests that are connected have each other as backend, or one of them names none.
fn check_pairs(tables: &[Table<'_>], guests: &[GuestConfig]) -> Result<(), ConfigError> {
    for (table, guest) in tables.iter().zip(guests) {
        let other = guests.iter().find(|other| Some(&other.name) == guest.backend.as_ref());
        let Some(theirs) = other.and_then(|other| other.backend.as_ref()) else { continue };
        if let (true, Some(value)) = (*theirs != guest.name, table.get("backend")) {
            return Err(value.error(format!("has another backend itself: {theirs:?}")));
        }
    }
    Ok(())
}
