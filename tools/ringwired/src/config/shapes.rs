//! Strings with a shape of their own: names, paths, permission bits, addresses, devices.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::{Path, PathBuf};

use engine::config::{OFFLOADS, all_offloads};
use nix::unistd::{Gid, Group, Uid, User};
use snapshot::Offered;

use super::ConfigError;
use super::document::Value;

/// Longest path that fits into `sockaddr_un` with its terminating NUL.
const SOCKET_PATH_MAX: usize = 107;
/// Longest port name; tables and DPDK's object names stay readable.
const NAME_MAX: usize = 64;

/// Things that must be unique, and where each was first seen.
pub(super) struct Unique<K> {
    rule: fn(&K) -> &'static str,
    seen: HashMap<K, (String, usize)>,
}

impl<K: Eq + Hash> Unique<K> {
    /// `rule` says in the error why there can be only one.
    pub fn new(rule: fn(&K) -> &'static str) -> Self {
        Unique { rule, seen: HashMap::new() }
    }

    /// Notes that `value` takes `key`, or says who has it already.
    pub fn take(&mut self, key: K, value: &Value<'_>) -> Result<(), ConfigError> {
        if let Some((path, line)) = self.seen.get(&key) {
            return Err(value.error(format!("same as {path} on line {line}: {}", (self.rule)(&key))));
        }
        self.seen.insert(key, (value.path().to_owned(), value.line()));
        Ok(())
    }
}

/// A port's name.
pub(super) fn name(value: &Value<'_>) -> Result<String, ConfigError> {
    let name = value.string(NAME_RULE)?;
    check_name(name).map_err(|problem| value.error(problem))?;
    Ok(name.to_owned())
}

const NAME_RULE: &str = "1 to 64 of A-Z a-z 0-9 _ . -";

/// What is wrong with a port's name.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name == "none" {
        return Err("\"none\" stands for no backend and cannot be a name".to_owned());
    }
    // Names are path elements in the API, where "." and ".." mean something else.
    let dots = name == "." || name == "..";
    match (1..=NAME_MAX).contains(&name.len()) && name.chars().all(allowed) && !dots {
        true => Ok(()),
        false => Err(format!("{name:?} cannot be a name (allowed: {NAME_RULE})")),
    }
}

/// Feature bits of the offloads that are asked for, or what is wrong with a name.
pub(crate) fn offload_bits(wanted: &Offered) -> Result<u64, String> {
    let names = match wanted {
        Offered::Word(word) => {
            return match word.as_str() {
                "auto" => Ok(all_offloads()),
                "off" => Ok(0),
                other => Err(format!(
                    "offloads: unknown value {other:?} (allowed: auto, off), or an array of offloads"
                )),
            };
        }
        Offered::List(names) => names,
    };
    names.iter().try_fold(0, |bits, name| match OFFLOADS.iter().find(|(known, _)| known == name) {
        Some((_, bit)) => Ok(bits | 1 << bit),
        None => {
            let known: Vec<&str> = OFFLOADS.iter().map(|(known, _)| *known).collect();
            Err(format!("offloads: unknown value {name:?} (allowed: {})", known.join(", ")))
        }
    })
}

/// Path of a unix socket.
pub(super) fn socket(value: &Value<'_>) -> Result<PathBuf, ConfigError> {
    let path = value.string("the path of a unix socket")?;
    if path.len() > SOCKET_PATH_MAX {
        let length = path.len();
        return Err(value
            .error(format!("{length} bytes are too long for a unix socket (allowed: {SOCKET_PATH_MAX})")));
    }
    match Path::new(path).file_name() {
        Some(_) if !path.ends_with('/') => Ok(PathBuf::from(path)),
        _ => Err(value.error(format!("{path:?} names no file"))),
    }
}

/// Permission bits as an octal string.
pub(super) fn mode(value: &Value<'_>) -> Result<u32, ConfigError> {
    let rule = "an octal string, \"0000\" to \"0777\"";
    let digits = value.string(rule)?;
    let octal = digits.len() <= 4 && digits.chars().all(|c| c.is_digit(8));
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if octal && mode <= 0o777 => Ok(mode),
        _ => Err(value.error(format!("expected {rule}, found {digits:?}"))),
    }
}

/// A hardware address that a guest can have.
pub(super) fn mac(value: &Value<'_>) -> Result<[u8; 6], ConfigError> {
    let rule = "a hardware address such as \"52:54:00:12:34:56\"";
    let text = value.string(rule)?;
    let malformed = || value.error(format!("expected {rule}, found {text:?}"));
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().ok_or_else(malformed)?;
        let hex = part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit());
        *byte = u8::from_str_radix(part, 16).ok().filter(|_| hex).ok_or_else(malformed)?;
    }
    if parts.next().is_some() {
        return Err(malformed());
    }
    if mac[0] & 1 == 1 || mac == [0; 6] {
        return Err(value.error(format!("{text:?} is not a unicast address")));
    }
    Ok(mac)
}

/// Users, or groups.
#[derive(Clone, Copy)]
pub(crate) struct Accounts {
    /// What one is called.
    what: &'static str,
    number: fn(&str) -> Option<u32>,
    name: fn(u32) -> Option<String>,
}

pub(crate) const USERS: Accounts = Accounts {
    what: "user",
    number: |name| Some(User::from_name(name).ok()??.uid.as_raw()),
    name: |number| Some(User::from_uid(Uid::from_raw(number)).ok()??.name),
};
pub(crate) const GROUPS: Accounts = Accounts {
    what: "group",
    number: |name| Some(Group::from_name(name).ok()??.gid.as_raw()),
    name: |number| Some(Group::from_gid(Gid::from_raw(number)).ok()??.name),
};

impl Accounts {
    /// Number of the one of this name or number, or that there is none.
    pub fn number(self, name: &str) -> Result<u32, String> {
        let number = name.parse().ok().or_else(|| (self.number)(name));
        number.ok_or_else(|| format!("no {} is called {name:?}", self.what))
    }

    /// What `number` finds it by: its name, if it has one.
    pub fn name(self, number: u32) -> String {
        let name = (self.name)(number).filter(|name| name.parse::<u32>().is_err());
        name.unwrap_or_else(|| number.to_string())
    }
}

/// Number of a user or a group.
pub(super) fn account(value: &Value<'_>, accounts: Accounts) -> Result<u32, ConfigError> {
    let name = value.string(&format!("a {}'s name or number", accounts.what))?;
    accounts.number(name).map_err(|problem| value.error(problem))
}

/// A NIC's device.
pub(super) fn device(value: &Value<'_>) -> Result<String, ConfigError> {
    let device = value.string("a PCI address or vdev devargs")?;
    let (bus_name, _arguments) = device.split_once(',').unwrap_or((device, ""));
    if bus_name.is_empty() || bus_name.contains(char::is_whitespace) {
        return Err(value.error(format!(
            "{device:?} is no device (allowed: a PCI address such as \"0000:03:00.0\", or a vdev such \
             as \"net_af_packet0,iface=eth1\")"
        )));
    }
    Ok(device.to_owned())
}
