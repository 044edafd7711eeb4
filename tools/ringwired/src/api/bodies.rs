//! What is said of a new port's body: its keys are those of the configuration file, which reads them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::config::sections::{GUEST_KEYS, NIC_KEYS};

/// Body of `PUT /v1/ports/NAME`: that of its kind.
pub struct NewPort;

impl JsonSchema for NewPort {
    fn schema_name() -> Cow<'static, str> {
        "AnyNewPort".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let socket = generator.subschema_for::<snapshot::NewPort>();
        let (nic, guest) = (keys("nic", &NIC_KEYS, &["device"]), keys("guest", &GUEST_KEYS, &["socket"]));
        json_schema!({ "anyOf": [socket, nic, guest] })
    }
}

/// A table of the configuration file with these keys, some of them `needed`, as an object.
fn keys(kind: &str, all: &[&str], needed: &[&str]) -> Value {
    let mut properties = json!({ "kind": { "const": kind } });
    for key in all {
        properties[*key] = value(key, needed.contains(key));
    }
    let required: Vec<&str> = ["kind"].iter().chain(needed).copied().collect();
    json!({
        "type": "object",
        "description": format!("The keys of [[{kind}]] in the configuration file; null is as if it were not there."),
        "required": required,
        "properties": properties,
        "additionalProperties": false,
    })
}

/// What a key's value can be; the file says which of them are meant.
fn value(key: &str, needed: bool) -> Value {
    let or_null = |kind: &str| if needed { json!([kind]) } else { json!([kind, "null"]) };
    match key {
        "queues" => json!({ "type": or_null("integer"), "minimum": 1, "maximum": 128 }),
        "mtu" => json!({ "type": or_null("integer"), "minimum": 68, "maximum": 9600 }),
        "fallback_hold" => json!({ "type": or_null("integer"), "minimum": 0, "maximum": 3600 }),
        "promiscuous" | "lro" => json!({ "type": or_null("boolean") }),
        "offloads" => json!({ "type": ["string", "array", "null"], "items": { "type": "string" } }),
        "punt_classes" => {
            json!({ "type": or_null("array"), "items": { "enum": ["arp", "nd", "lldp", "lacp"] } })
        }
        "assign" => {
            let core = json!({ "type": "integer", "minimum": 0, "maximum": u16::MAX });
            json!({ "type": or_null("object"), "additionalProperties": core })
        }
        "mode" => json!({ "enum": ["server", null] }),
        _ => json!({ "type": or_null("string") }),
    }
}

/// A configuration file, of which the description says no more than that: README.md does.
pub struct ConfigFile;

impl JsonSchema for ConfigFile {
    fn schema_name() -> Cow<'static, str> {
        "ConfigFile".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "description": "The sections of the configuration file." })
    }
}
