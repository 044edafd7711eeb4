//! A port from the body of an API request: the keys of its table in the configuration file, checked by the same code.
//! What is unique there is so among the ports that run, and that the datapath says.

use engine::config::{GuestConfig, NicConfig};
use serde_json::{Map, Value};
use snapshot::{Port, PortKind, Status};

use super::ConfigError;
use super::document::{Document, Table};
use super::sections::{self, Claims, Names};

/// The keys and values of a JSON object.
pub type Keys = Map<String, Value>;

/// A NIC, or what is wrong with a key.
pub fn nic(name: &str, keys: &Keys) -> Result<NicConfig, String> {
    read("nic", name, keys, |table| sections::nic(table, &mut Claims::new()))
}

/// A guest among the ports and workers that there are `now`, or what is wrong with a key.
pub fn guest(name: &str, keys: &Keys, now: &Status) -> Result<GuestConfig, String> {
    let (guests, others): (Vec<&Port>, Vec<&Port>) =
        now.ports.iter().partition(|port| port.kind == PortKind::Guest);
    let one_pair = |port: &&&Port| {
        port.kind == PortKind::Tap && port.interface.as_ref().is_some_and(|part| part.queue_pairs == 1)
    };
    let names = Names {
        ports: others.iter().map(|port| port.name.clone()).collect(),
        taps: others.iter().filter(one_pair).map(|port| port.name.clone()).collect(),
        guests: guests.iter().map(|port| port.name.as_str()).collect(),
        cores: now.workers.iter().map(|worker| worker.core).collect(),
    };
    read("guest", name, keys, |table| sections::guest(table, &names, &mut Claims::new()))
}

fn read<T>(
    section: &str,
    name: &str,
    keys: &Keys,
    shape: impl FnOnce(&Table<'_>) -> Result<T, ConfigError>,
) -> Result<T, String> {
    let mut keys = keys.clone();
    if keys.insert("name".to_owned(), name.into()).is_some_and(|other| other != name) {
        return Err(format!("name: the request is about {name}"));
    }
    let text = format!("[[{section}]]\n{}\n", entries(&keys, "\n"));
    let document = Document::new("request", &text);
    let read = || {
        let parsed = document.parse()?;
        let tables = document.root(parsed.get_ref()).sections(section)?;
        // There is one, the first line says so.
        shape(&tables[0])
    };
    match read() {
        Ok(port) => Ok(port),
        Err(ConfigError::Invalid { key, problem, .. }) => {
            let key = key.strip_prefix(&format!("{section}[0].")).unwrap_or(&key);
            Err(format!("{key}: {problem}"))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Keys and values as TOML has them. A key without a value is absent in JSON, and cannot be in TOML.
fn entries(keys: &Keys, separator: &str) -> String {
    let set = keys.iter().filter(|(_, value)| !value.is_null());
    let entries = set.map(|(key, value)| format!("{} = {}", toml(&key.as_str().into()), toml(value)));
    entries.collect::<Vec<_>>().join(separator)
}

/// A value as TOML has it: JSON's strings, numbers and truth values are such of TOML.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(elements) => format!("[{}]", elements.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(keys) => format!("{{ {} }}", entries(keys, ", ")),
        // The one character that JSON's strings may have as it is, and TOML's may not.
        other => other.to_string().replace('\x7f', "\\u007f"),
    }
}
