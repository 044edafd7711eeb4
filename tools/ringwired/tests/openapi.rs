//! The API's description: served as it is in the repository, and about what there is and nothing else. That answers
//! are as described is for `tests/tests/api` to find out, with a program of somebody else's.

#[allow(dead_code, reason = "other tests need more of it")]
mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use common::Server;
use serde_json::Value;

/// Where the description is in the repository.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
const METHODS: [&str; 6] = ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];

/// Head and body of the answer.
fn ask(server: &Server, method: &str, path: &str) -> (String, String) {
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn served(server: &Server) -> Value {
    let (head, body) = ask(server, "GET", "/v1/openapi.json");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn the_file_in_the_repository_is_what_is_served() {
    let served = ringwired::api::description();
    if std::env::var_os("RINGWIRE_WRITE_OPENAPI").is_some() {
        std::fs::write(FILE, served).unwrap();
    }
    let file = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        file == served,
        "the API has changed: look at api/routes.rs, and write {FILE} anew with \
         `RINGWIRE_WRITE_OPENAPI=1 cargo nextest run -p ringwired -E 'binary(openapi)'`"
    );
    assert_eq!(self::served(&Server::start()), serde_json::from_str::<Value>(served).unwrap());
}

#[test]
fn what_is_described_is_there_and_nothing_else() {
    let server = Server::start();
    let description = served(&server);
    let paths = description["paths"].as_object().unwrap();
    for (path, item) in paths {
        for method in METHODS {
            let (head, body) = ask(&server, method, &path.replace(['{', '}'], ""));
            assert!(!body.contains("no such path"), "{method} {path} is described, and not there");
            let described = item.get(method.to_lowercase()).is_some();
            let refused = head.starts_with("HTTP/1.1 405 ");
            assert_eq!(refused, !described, "{method} {path}: described {described}, but {head}");
        }
    }
    // What there is, as somebody is told who asks for something else.
    let (_, body) = ask(&server, "GET", "/");
    let body: Value = serde_json::from_str(&body).unwrap();
    let (_, there) = body["error"].as_str().unwrap().split_once("(there are: ").unwrap();
    let there: BTreeSet<String> = there.trim_end_matches(')').split(", ").map(str::to_lowercase).collect();
    assert_eq!(there, paths.keys().map(|path| path.replace(['{', '}'], "")).collect());
}

#[test]
fn every_reference_leads_somewhere_and_every_operation_says_what_it_does() {
    let description: Value = serde_json::from_str(ringwired::api::description()).unwrap();
    let mut references = Vec::new();
    collect(&description, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        assert!(description.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    let operations =
        description["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap());
    let mut names = std::collections::HashSet::new();
    for (method, operation) in operations.filter(|(method, _)| *method != "parameters") {
        assert!(
            operation["summary"].as_str().is_some_and(|text| text.ends_with('.')),
            "{method} {operation}"
        );
        let name = operation["operationId"].as_str().unwrap();
        assert!(names.insert(name.to_owned()), "two operations are called {name}");
        if let Some(body) = operation.get("requestBody") {
            let example = &body["content"]["application/json"]["example"];
            assert!(example.is_object(), "{name} has no example that is JSON: {example}");
        }
    }
}

fn collect<'v>(value: &'v Value, references: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(reference) if name == "$ref" => references.push(reference),
                    _ => collect(field, references),
                }
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| collect(element, references)),
        _ => {}
    }
}
