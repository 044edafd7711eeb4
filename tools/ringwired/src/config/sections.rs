//! The sections of the file, one function each, and what must hold between them.

use std::path::PathBuf;

use engine::config::{GuestConfig, HugepagePolicy, NicConfig};

use super::document::{Document, Table, Value, suggest};
use super::shapes::{self, Unique};
use super::{ApiConfig, Config, ConfigError};

const SECTIONS: [&str; 7] = ["api", "eal", "datapath", "nic", "tap", "raw", "guest"];
const NIC_KEYS: [&str; 5] = ["name", "device", "queues", "mtu", "promiscuous"];
const GUEST_KEYS: [&str; 10] =
    ["name", "socket", "socket_mode", "socket_group", "mode", "queues", "backend", "fallback", "mac", "mtu"];

/// Queue pairs of one port.
const QUEUES: std::ops::RangeInclusive<u16> = 1..=128;
/// Smallest IPv4 MTU (RFC 791; virtio 1.3 section 5.1.4.1 asks the same) to what jumbo NICs take.
const MTU: std::ops::RangeInclusive<u16> = 68..=9600;

/// What is unique over the whole file.
struct Claims {
    names: Unique<String>,
    sockets: Unique<PathBuf>,
    devices: Unique<String>,
    backends: Unique<String>,
}

/// Reads the whole file.
pub(super) fn read(document: &Document<'_>, cores: &[usize]) -> Result<Config, ConfigError> {
    let parsed = document.parse()?;
    let root = document.root(parsed.get_ref());
    root.only(&SECTIONS)?;
    let mut claims = Claims {
        names: Unique::new("port names are unique"),
        sockets: Unique::new("each socket is listened on once"),
        devices: Unique::new("a device is one nic; vdev names are unique (net_pcap0, net_pcap1, ...)"),
        backends: Unique::new("a nic is the backend of one guest"),
    };
    let api = api(&root, &mut claims)?;
    let (eal_args, hugepages) = eal(&root)?;
    let cores = datapath(&root, cores)?;
    let nics = root.sections("nic")?;
    let nics = nics.iter().map(|table| nic(table, &mut claims));
    let nics = nics.collect::<Result<Vec<_>, _>>()?;
    for kind in ["tap", "raw"] {
        if let Some(table) = root.sections(kind)?.first() {
            return Err(table.error(&format!(
                "{kind} ports are not supported in this version (a backend is a nic or \"none\")"
            )));
        }
    }
    let tables = root.sections("guest")?;
    let guest_names: Vec<Value<'_>> = tables.iter().filter_map(|t| t.get("name")).collect();
    let guests = tables.iter().map(|table| guest(table, &nics, &guest_names, &mut claims));
    let guests = guests.collect::<Result<Vec<_>, _>>()?;
    let datapath = engine::config::Config { eal_args, hugepages, cores, nics, guests };
    Ok(Config { api, datapath })
}

fn api(root: &Table<'_>, claims: &mut Claims) -> Result<ApiConfig, ConfigError> {
    let mut api = ApiConfig::default();
    let Some(table) = root.section("api")? else {
        return Ok(api);
    };
    table.only(&["socket", "mode", "group"])?;
    if let Some(value) = table.get("socket") {
        api.socket = shapes::socket(&value)?;
        claims.sockets.take(api.socket.clone(), &value)?;
    }
    if let Some(value) = table.get("mode") {
        api.mode = shapes::mode(&value)?;
    }
    api.group = group(table.get("group"))?;
    Ok(api)
}

fn group(value: Option<Value<'_>>) -> Result<Option<String>, ConfigError> {
    value.map(|value| Ok(value.string("a group's name or number")?.to_owned())).transpose()
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

fn datapath(root: &Table<'_>, allowed: &[usize]) -> Result<Vec<usize>, ConfigError> {
    let what = "one worker is pinned to each core, such as cores = [1]";
    let Some(table) = root.section("datapath")? else {
        return Err(root.missing("datapath.cores", what));
    };
    table.only(&["cores", "idle"])?;
    if let Some(value) = table.get("idle") {
        let supported = value.word(&[("poll", true), ("adaptive", false)])?;
        if !supported {
            let problem = "\"adaptive\" is not supported in this version (allowed: \"poll\")";
            return Err(value.error(problem));
        }
    }
    let value = table.require("cores", what)?;
    let elements = value.elements("an array of core numbers")?;
    if elements.is_empty() {
        return Err(value.error(format!("is empty ({what})")));
    }
    let mut unique = Unique::new("each core gets one worker");
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
    Ok(cores)
}

/// `0-3, 6` for 0, 1, 2, 3 and 6.
fn ranges(cores: &[usize]) -> String {
    let runs = cores.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [one] => one.to_string(),
        _ => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    runs.collect::<Vec<_>>().join(", ")
}

fn nic(table: &Table<'_>, claims: &mut Claims) -> Result<NicConfig, ConfigError> {
    table.only(&NIC_KEYS)?;
    let name = port_name(table, claims)?;
    let value = table.require("device", "a PCI address or vdev devargs")?;
    let (device, identity) = shapes::device(&value)?;
    claims.devices.take(identity, &value)?;
    Ok(NicConfig {
        name,
        device,
        queues: queues(table)?,
        mtu: mtu(table)?,
        promiscuous: table.get("promiscuous").map_or(Ok(true), |value| value.boolean())?,
    })
}

fn guest(
    table: &Table<'_>,
    nics: &[NicConfig],
    guest_names: &[Value<'_>],
    claims: &mut Claims,
) -> Result<GuestConfig, ConfigError> {
    table.only(&GUEST_KEYS)?;
    let name = port_name(table, claims)?;
    let value = table.require("socket", "the vhost-user socket's path")?;
    let socket = shapes::socket(&value)?;
    claims.sockets.take(socket.clone(), &value)?;
    if let Some(value) = table.get("mode") {
        let supported = value.word(&[("server", true), ("client", false)])?;
        if !supported {
            let problem = "\"client\" is not supported in this version (allowed: \"server\")";
            return Err(value.error(problem));
        }
    }
    if let Some(value) = table.get("fallback") {
        return Err(value.error("is not supported in this version (remove the key)"));
    }
    let backend = match table.get("backend") {
        None => None,
        Some(value) => backend(&value, nics, guest_names, claims)?,
    };
    Ok(GuestConfig {
        name,
        socket,
        socket_mode: table.get("socket_mode").map(|v| shapes::mode(&v)).transpose()?,
        socket_group: group(table.get("socket_group"))?,
        queues: queues(table)?,
        backend,
        mac: table.get("mac").map(|v| shapes::mac(&v)).transpose()?,
        mtu: mtu(table)?,
    })
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

/// The nic that a guest's virtqueues are connected to.
fn backend(
    value: &Value<'_>,
    nics: &[NicConfig],
    guest_names: &[Value<'_>],
    claims: &mut Claims,
) -> Result<Option<String>, ConfigError> {
    let rule = "the name of a nic, or \"none\"";
    let name = value.string(rule)?;
    if name == "none" {
        return Ok(None);
    }
    if nics.iter().any(|nic| nic.name == name) {
        claims.backends.take(name.to_owned(), value)?;
        return Ok(Some(name.to_owned()));
    }
    if guest_names.iter().any(|guest| guest.string("").is_ok_and(|guest| guest == name)) {
        return Err(value.error(format!(
            "{name:?} is a guest; a guest as backend is not supported in this version (allowed: {rule})"
        )));
    }
    let names = nics.iter().map(|nic| nic.name.as_str()).chain(["none"]);
    Err(value.error(format!("no nic has the name {name:?}{}", suggest(name, names))))
}
