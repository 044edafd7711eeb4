//! `GET /v1/openapi.json`: the API's description, made of the list of [`routes`](super::routes) and of the types that
//! are sent and taken.

use std::borrow::Cow;
use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use snapshot::ErrorBody;

use super::routes::{Content, Operation, Route, routes};

const ABOUT: &str = "\
What ringwired does, and how to change it while it runs: HTTP/JSON on a unix socket, \
`curl --unix-socket /run/ringwire/api.sock http://localhost/v1/status`. A connection carries one request.";

/// This description, of which it says no more than that it is an object.
pub struct Document;

impl JsonSchema for Document {
    fn schema_name() -> Cow<'static, str> {
        "Document".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "required": ["openapi", "info", "paths"] })
    }
}

/// The description, OpenAPI 3.1, as indented JSON.
pub fn description() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", describe(&routes())));
    &TEXT
}

pub async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], description()).into_response()
}

/// A type that is only taken may leave out what one that is sent always has, so each way has its own generator.
struct Generators {
    sent: SchemaGenerator,
    taken: SchemaGenerator,
}

fn describe(routes: &[Route]) -> Value {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
    };
    let mut schemas = Generators {
        sent: settings().for_serialize().into_generator(),
        taken: settings().for_deserialize().into_generator(),
    };
    let mut paths = Map::new();
    for Route { path, operations } in routes {
        let mut item = Map::new();
        let parameters: Vec<Value> = names(path).map(parameter).collect();
        if !parameters.is_empty() {
            item.insert("parameters".into(), parameters.into());
        }
        for operation in operations {
            let method = operation.method.as_str().to_lowercase();
            item.insert(method, describe_operation(path, operation, &mut schemas));
        }
        paths.insert((*path).to_owned(), item.into());
    }
    let error = schemas.sent.subschema_for::<ErrorBody>();
    let mut components = schemas.taken.take_definitions(true);
    components.extend(schemas.sent.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ringwired's control API",
            "description": ABOUT,
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0 OR BSD-3-Clause", "identifier": "Apache-2.0 OR BSD-3-Clause" },
        },
        "servers": [{ "url": "http://localhost", "description": "over the unix socket" }],
        "paths": paths,
        "components": { "schemas": components, "responses": refusals(error) },
    })
}

/// The parameters in a path.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn parameter(name: &str) -> Value {
    let number = |maximum: u64| json!({ "type": "integer", "minimum": 0, "maximum": maximum });
    let (description, schema, example) = match name {
        "core" => ("Number of a core.", number(u64::MAX), json!(1)),
        "number" => ("Number of a capture.", number(u64::MAX), json!(0)),
        "pair" => ("Number of a queue pair.", number(u16::MAX.into()), json!(0)),
        _ => ("Name of a port.", json!({ "type": "string", "minLength": 1 }), json!("vm1")),
    };
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "description": description,
        "schema": schema,
        "example": example,
    })
}

fn describe_operation(path: &str, operation: &Operation, schemas: &mut Generators) -> Value {
    let method = operation.method.as_str().to_lowercase();
    let words = path.split(['/', '.']).filter(|word| !word.is_empty() && *word != "v1");
    let words: Vec<&str> = words.map(|word| word.trim_matches(['{', '}'])).collect();
    let content = operation.answers.iter().map(|content| match content {
        Content::Json(schema) => ("application/json", json!({ "schema": schema(&mut schemas.sent) })),
        Content::Text(kind) => (*kind, json!({ "schema": { "type": "string" } })),
        Content::Bytes(kind) => (*kind, json!({})),
    });
    let content: Map<String, Value> = content.map(|(kind, media)| (kind.to_owned(), media)).collect();
    let mut done = json!({ "description": "Done." });
    if !content.is_empty() {
        done["content"] = content.into();
    }
    let mut responses = Map::new();
    responses.insert(operation.code.to_string(), done);
    for (code, ..) in
        REFUSALS.iter().filter(|(code, _, of)| of(path, operation) || operation.refusals.contains(code))
    {
        responses.insert(code.to_string(), json!({ "$ref": format!("#/components/responses/{code}") }));
    }
    let mut described = json!({
        "operationId": format!("{method}_{}", words.join("_")),
        "summary": operation.summary,
        "responses": responses,
    });
    if let Some((schema, example)) = operation.body {
        let example: Value = serde_json::from_str(example).unwrap_or_default();
        let content =
            json!({ "application/json": { "schema": schema(&mut schemas.taken), "example": example } });
        described["requestBody"] = json!({ "required": true, "content": content });
    }
    described
}

/// Which operations can all be refused so.
type Of = fn(&str, &Operation) -> bool;

/// The ways to be refused.
const REFUSALS: [(u16, &str, Of); 10] = [
    (
        400,
        "The request is not HTTP (the answer has no body then), or its path or body is not what is taken.",
        |_, _| true,
    ),
    (403, "Whoever asks may look, but not change anything.", |_, operation| !operation.method.is_safe()),
    (404, "There is nothing of that name or number.", |path, _| path.contains('{')),
    (409, "It cannot be as things are now: a name that is taken, a port that is in use.", |_, _| false),
    (413, "The body is longer than 16 KiB; than 256 KiB, where a filter can be in it.", |_, operation| {
        operation.body.is_some()
    }),
    (422, "It can never be as it is asked for.", |_, _| false),
    (429, "As many run as can: one has to end first.", |_, _| false),
    (431, "Request line and headers are longer than 16 KiB, or there are too many of them.", |_, _| true),
    (500, "The datapath could not be asked.", |_, _| true),
    (503, "The datapath did not answer in time.", |_, _| true),
];

fn refusals(error: Schema) -> Value {
    let refusal = |(code, description, _): &(u16, &str, Of)| {
        let mut response = json!({ "description": description });
        // The connection is not good for more than the status line.
        if *code != 431 {
            response["content"] = json!({ "application/json": { "schema": error } });
        }
        (code.to_string(), response)
    };
    REFUSALS.iter().map(refusal).collect::<Map<String, Value>>().into()
}
