//! What the API has: one list, of which the router and its description are made.

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use snapshot::{
    Assign, Assigned, Backend, IdleMode, Log, NewCapture, Offloads, Port, Reload, Reloaded, Status, Worker,
};

use super::answer::Refusal;
use super::bodies::{ConfigFile, NewPort};
use super::{Api, captures, config, guests, log, openapi, ports, prometheus, status, workers};
use crate::metrics;

/// Every path, in the order in which it is described.
pub fn routes() -> Vec<Route> {
    vec![
        route(
            "/v1/status",
            vec![
                get(status, "The whole picture: workers, ports, counters and rates.").answers::<Status>(200),
            ],
        ),
        route("/v1/ports", vec![get(ports::ports, "Every port.").answers::<Vec<Port>>(200)]),
        route(
            "/v1/ports/{name}",
            vec![
                get(ports::port, "One port.").answers::<Port>(200),
                put(ports::add_port, "Adds a port; answers with it.")
                    .takes::<NewPort>(r#"{"kind": "tap", "interface": "rw-tap9"}"#)
                    .answers::<Port>(201)
                    .refuses(&[409, 422]),
                delete(ports::remove_port, "Removes a port that no guest needs; answers with what it was.")
                    .answers::<Port>(200)
                    .refuses(&[409, 422]),
            ],
        ),
        route(
            "/v1/guests/{name}/backend",
            vec![
                put(
                    guests::set_backend,
                    "Connects a guest to another port while it runs; answers with its port.",
                )
                .takes::<Backend>(r#"{"backend": "none"}"#)
                .answers::<Port>(200)
                .refuses(&[409, 422]),
            ],
        ),
        route(
            "/v1/guests/{name}/offloads",
            vec![
                put(
                    guests::set_offloads,
                    "Chooses what offloads a guest's next frontend is offered; answers with its port.",
                )
                .takes::<Offloads>(r#"{"offloads": "auto"}"#)
                .answers::<Port>(200)
                .refuses(&[422]),
            ],
        ),
        route(
            "/v1/guests/{name}/queues/{pair}/worker",
            vec![
                put(
                    workers::assign,
                    "Has another worker poll a guest's queue pair; answers with what moved.",
                )
                .takes::<Assign>(r#"{"core": 1}"#)
                .answers::<Assigned>(200)
                .refuses(&[409, 422]),
                delete(
                    workers::unassign,
                    "Lets any worker poll a guest's queue pair; answers with what moved for that.",
                )
                .answers::<Assigned>(200),
            ],
        ),
        route("/v1/workers", vec![get(workers::workers, "Every worker.").answers::<Vec<Worker>>(200)]),
        route(
            "/v1/workers/{core}",
            vec![
                get(workers::worker, "The worker on a core.").answers::<Worker>(200),
                put(workers::add, "Starts a worker on a core; answers with it.")
                    .answers::<Worker>(201)
                    .refuses(&[409, 422]),
                delete(workers::remove, "Ends the worker on a core; answers with what it was.")
                    .answers::<Worker>(200)
                    .refuses(&[409, 422]),
            ],
        ),
        route(
            "/v1/idle",
            vec![
                get(workers::idle, "What workers do without work.").answers::<IdleMode>(200),
                put(workers::set_idle, "Chooses what workers do without work; answers with it.")
                    .takes::<IdleMode>(r#"{"idle": "poll"}"#)
                    .answers::<IdleMode>(200),
            ],
        ),
        route(
            "/v1/config",
            vec![
                get(config::show, "The file that would bring back what runs now; JSON if that is asked for.")
                    .answers_text(config::TOML)
                    .answers::<ConfigFile>(200),
            ],
        ),
        route(
            "/v1/reload",
            vec![
                post(
                    config::reload,
                    "Makes what runs what the configuration file says now; answers with what changed.",
                )
                .takes::<Reload>(r#"{"dry_run": true}"#)
                .answers::<Reloaded>(200)
                .refuses(&[409, 422]),
            ],
        ),
        route(
            "/v1/log",
            vec![
                get(log::show, "What is logged.").answers::<Log>(200),
                put(log::set, "Chooses what is logged; answers with it.")
                    .takes::<Log>(r#"{"level": "info"}"#)
                    .answers::<Log>(200)
                    .refuses(&[422]),
            ],
        ),
        route(
            "/v1/captures",
            vec![
                post(
                    captures::start,
                    "Captures what passes a port: the answer lasts as long as the capture.",
                )
                .takes::<NewCapture>(r#"{"port": "vm1", "seconds": 10}"#)
                .takes_bytes(captures::BODY_BYTES)
                .answers_bytes(captures::PCAPNG)
                .refuses(&[404, 409, 422, 429]),
            ],
        ),
        route(
            "/v1/captures/{number}",
            vec![delete(captures::end, "Ends a capture, as if its time were over.").answers_nothing()],
        ),
        route(
            "/v1/openapi.json",
            vec![get(openapi::serve, "This description.").answers::<openapi::Document>(200)],
        ),
        route(
            "/metrics",
            vec![get(prometheus, "The same in Prometheus' text format.").answers_text(metrics::CONTENT_TYPE)],
        ),
    ]
}

/// A path and all that can be done with it.
pub struct Route {
    /// With parameters in braces.
    pub path: &'static str,
    /// One a method.
    pub operations: Vec<Operation>,
}

/// A method of a path: who serves it, and what it takes and answers.
pub struct Operation {
    /// GET, PUT, POST or DELETE.
    pub method: Method,
    handler: MethodRouter<Api>,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What the request's body must be, with an example of it.
    pub body: Option<(SchemaOf, &'static str)>,
    /// Status code of the answer when it went well.
    pub code: u16,
    /// What the answer's body is then: one of these, as the client wants it.
    pub answers: Vec<Content>,
    /// Status codes of refusals, beyond those that any operation of its kind can have.
    pub refusals: &'static [u16],
}

/// A type's schema.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What a body is.
pub enum Content {
    /// JSON.
    Json(SchemaOf),
    /// Text of this type.
    Text(&'static str),
    /// Something else, of this type.
    Bytes(&'static str),
}

fn route(path: &'static str, operations: Vec<Operation>) -> Route {
    Route { path, operations }
}

impl Route {
    /// The path as people write it: `/v1/ports/NAME`.
    pub fn written(&self) -> String {
        let parts = self.path.split('/').map(|part| match part.strip_prefix('{') {
            Some(name) => name.trim_end_matches('}').to_uppercase(),
            None => part.to_owned(),
        });
        parts.collect::<Vec<_>>().join("/")
    }

    /// Who serves the path, each method and none of them.
    pub fn handlers(self) -> MethodRouter<Api> {
        let methods: Vec<&str> = self.operations.iter().map(|operation| operation.method.as_str()).collect();
        let methods = methods.join(", ");
        let no_such_method = async move |method: Method, uri: Uri| {
            let text = format!("{method} does nothing with {} (it takes: {methods})", uri.path());
            Refusal(StatusCode::METHOD_NOT_ALLOWED, text)
        };
        self.operations
            .into_iter()
            .fold(MethodRouter::new(), |all, operation| all.merge(operation.handler))
            .fallback(no_such_method)
    }
}

fn get<T: 'static>(handler: impl Handler<T, Api>, summary: &'static str) -> Operation {
    Operation::new(Method::GET, on(MethodFilter::GET, handler), summary)
}

fn put<T: 'static>(handler: impl Handler<T, Api>, summary: &'static str) -> Operation {
    Operation::new(Method::PUT, on(MethodFilter::PUT, handler), summary)
}

fn post<T: 'static>(handler: impl Handler<T, Api>, summary: &'static str) -> Operation {
    Operation::new(Method::POST, on(MethodFilter::POST, handler), summary)
}

fn delete<T: 'static>(handler: impl Handler<T, Api>, summary: &'static str) -> Operation {
    Operation::new(Method::DELETE, on(MethodFilter::DELETE, handler), summary)
}

impl Operation {
    fn new(method: Method, handler: MethodRouter<Api>, summary: &'static str) -> Operation {
        Operation { method, handler, summary, body: None, code: 200, answers: Vec::new(), refusals: &[] }
    }

    /// Its request has a `T` for a body, such as `example`.
    fn takes<T: JsonSchema>(self, example: &'static str) -> Operation {
        Operation { body: Some((SchemaGenerator::subschema_for::<T>, example)), ..self }
    }

    /// This body may be so long.
    fn takes_bytes(self, most: usize) -> Operation {
        Operation { handler: self.handler.layer(DefaultBodyLimit::max(most)), ..self }
    }

    /// It answers with a `T`.
    fn answers<T: JsonSchema>(mut self, code: u16) -> Operation {
        self.answers.push(Content::Json(SchemaGenerator::subschema_for::<T>));
        Operation { code, ..self }
    }

    /// It answers with text.
    fn answers_text(mut self, content_type: &'static str) -> Operation {
        self.answers.push(Content::Text(content_type));
        self
    }

    /// It answers with something that is neither JSON nor text.
    fn answers_bytes(mut self, content_type: &'static str) -> Operation {
        self.answers.push(Content::Bytes(content_type));
        self
    }

    /// It answers that it is done.
    fn answers_nothing(self) -> Operation {
        Operation { code: 204, ..self }
    }

    /// It may be refused in these ways, too.
    fn refuses(self, refusals: &'static [u16]) -> Operation {
        Operation { refusals, ..self }
    }
}
