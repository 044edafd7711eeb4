//! `/v1/ports`: what there is, added, removed.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use engine::PortError;
use engine::config::{SocketConfig, SocketKind};
use serde::de::DeserializeOwned;
use serde_json::Value;
use snapshot::{Account, NewPort, PortKind};

use super::answer::{Body, Named, Refusal, content, json};
use super::{Api, guests};
use crate::config::request::{self, Keys};
use crate::config::shapes::{self, Accounts};
use crate::descriptors::Descriptors;

pub async fn ports(State(api): State<Api>) -> Result<Response, Refusal> {
    Ok(json(&api.status().await?.ports))
}

pub async fn port(State(api): State<Api>, Named(name): Named<String>) -> Result<Response, Refusal> {
    let ports = api.status().await?.ports;
    match ports.iter().find(|port| port.name == name) {
        Some(port) => Ok(json(port)),
        None => {
            let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
            let text = format!("no port is called {name:?} (there are: {})", names.join(", "));
            Err(Refusal(StatusCode::NOT_FOUND, text))
        }
    }
}

/// The port, as it is then.
pub async fn add_port(
    State(api): State<Api>,
    Extension(descriptors): Extension<Descriptors>,
    Named(name): Named<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let shape = "{\"kind\": \"nic\"|\"guest\"|\"tap\"|\"raw\", ...}";
    let mut wanted: Keys = content(body, shape)?;
    shapes::check_name(&name).map_err(unprocessable)?;
    let kind: PortKind = part(wanted.get("kind").cloned().unwrap_or_default(), shape)?;
    let fds = descriptors.take();
    let of_a_socket = matches!(kind, PortKind::Tap | PortKind::Raw);
    if !fds.is_empty() && !of_a_socket {
        return Err(unprocessable("descriptors came along: only a tap or raw port is made of such".into()));
    }
    match kind {
        PortKind::Nic => {
            wanted.remove("kind");
            let config = request::nic(&name, &wanted).map_err(unprocessable)?;
            api.change(move |source| source.add_nic(config)).await?.map_err(refuse_port)?;
        }
        PortKind::Guest => {
            wanted.remove("kind");
            let now = api.status().await?;
            let config = request::guest(&name, &wanted, &now).map_err(unprocessable)?;
            if config.socket == api.operator.reloader.api_socket() {
                let other = "the control API".to_owned();
                return Err(refuse_port(PortError::Same { thing: config.thing(), other }));
            }
            api.change(move |source| source.add_guest(config)).await?.map_err(refuse_port)?;
        }
        PortKind::Tap | PortKind::Raw => {
            let wanted = part(Value::Object(wanted), shape)?;
            let config = socket_config(name.clone(), wanted, fds.len()).map_err(unprocessable)?;
            api.change(move |source| source.add_socket(config, fds)).await?.map_err(refuse_port)?;
        }
    }
    let answer = port(State(api), Named(name)).await?;
    Ok((StatusCode::CREATED, answer).into_response())
}

/// Part of a body that must be of this `shape`.
fn part<T: DeserializeOwned>(part: Value, shape: &str) -> Result<T, Refusal> {
    serde_json::from_value(part)
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("the body is not {shape}: {error}")))
}

fn unprocessable(problem: String) -> Refusal {
    Refusal(StatusCode::UNPROCESSABLE_ENTITY, problem)
}

/// What a request for a tap or raw port means, or what is wrong with it. `fds` have come along.
fn socket_config(name: String, wanted: NewPort, fds: usize) -> Result<SocketConfig, String> {
    let kind = if wanted.kind == PortKind::Tap { SocketKind::Tap } else { SocketKind::Raw };
    let queues = wanted.queues.unwrap_or(if fds > 0 { fds as u16 } else { 1 });
    match (&wanted.interface, fds) {
        (None, 0) => return Err("interface is missing, and no descriptor came along".into()),
        (Some(_), 1..) => return Err("both an interface and descriptors were given".into()),
        (None, _) if fds != usize::from(queues) => {
            return Err(format!("{fds} descriptors came along, but queues is {queues}"));
        }
        (Some(_), 0) if !(1..=128).contains(&queues) => return Err("queues is not from 1 to 128".into()),
        _ => {}
    }
    let interface = wanted.interface.unwrap_or_default();
    let number = |account, accounts: Accounts| match account {
        Some(Account::Name(name)) => accounts.number(&name).map(Some),
        Some(Account::Number(number)) => Ok(Some(number)),
        None => Ok(None),
    };
    let (user, group) = (number(wanted.user, shapes::USERS)?, number(wanted.group, shapes::GROUPS)?);
    Ok(SocketConfig { name, kind, interface, descriptors: Vec::new(), queues, user, group })
}

/// The port, as it was at the end.
pub async fn remove_port(State(api): State<Api>, Named(name): Named<String>) -> Result<Response, Refusal> {
    Ok(json(&api.change(move |source| source.remove_port(&name)).await?.map_err(refuse_port)?))
}

fn refuse_port(error: PortError) -> Refusal {
    let code = match error {
        PortError::NameTaken(_) | PortError::Same { .. } | PortError::InUse { .. } => StatusCode::CONFLICT,
        PortError::NoSuchPort(_) => StatusCode::NOT_FOUND,
        PortError::Backend(ref error) => guests::code(error),
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Refusal(code, error.to_string())
}
