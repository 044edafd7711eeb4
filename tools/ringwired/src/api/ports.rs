//! `/v1/ports`: what there is, added, removed.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use engine::PortError;
use engine::config::{SocketConfig, SocketKind};
use snapshot::{NewPort, PortKind};

use super::Api;
use super::answer::{Refusal, json, wanted};
use crate::config::shapes;
use crate::descriptors::Descriptors;

pub async fn ports(State(api): State<Api>) -> Result<Response, Refusal> {
    Ok(json(&api.status().await?.ports))
}

pub async fn port(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(name) = name.map_err(|error| Refusal(error.status(), error.body_text()))?;
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
    name: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let shape = "{\"kind\": \"tap\"|\"raw\", \"interface\": \"NAME\", ...}";
    let (name, wanted): (_, NewPort) = wanted(name, body, shape)?;
    let fds = descriptors.take();
    let config = socket_config(name.clone(), wanted, fds.len())
        .map_err(|problem| Refusal(StatusCode::UNPROCESSABLE_ENTITY, problem))?;
    api.ask(move |source| source.add_socket(config, fds)).await?.map_err(refuse_port)?;
    let answer = port(State(api), Ok(Path(name))).await?;
    Ok((StatusCode::CREATED, answer).into_response())
}

/// What a request for a new port means, or what is wrong with it. `fds` have come along.
fn socket_config(name: String, wanted: NewPort, fds: usize) -> Result<SocketConfig, String> {
    shapes::check_name(&name)?;
    let kind = match wanted.kind {
        PortKind::Tap => SocketKind::Tap,
        PortKind::Raw => SocketKind::Raw,
        PortKind::Guest | PortKind::Nic => {
            return Err(
                "guests and nics come and go with ringwired in this version (kind: tap or raw)".into()
            );
        }
    };
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
    let (user, group) = (wanted.user, wanted.group);
    Ok(SocketConfig { name, kind, interface, descriptors: Vec::new(), queues, user, group })
}

/// The port, as it was.
pub async fn remove_port(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(name) = name.map_err(|error| Refusal(error.status(), error.body_text()))?;
    let answer = port(State(api.clone()), Ok(Path(name.clone()))).await?;
    api.ask(move |source| source.remove_socket(&name)).await?.map_err(refuse_port)?;
    Ok(answer)
}

fn refuse_port(error: PortError) -> Refusal {
    let code = match error {
        PortError::NameTaken(_) | PortError::InUse { .. } => StatusCode::CONFLICT,
        PortError::NoSuchPort(_) => StatusCode::NOT_FOUND,
        PortError::Fixed(_) | PortError::Open(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Refusal(code, error.to_string())
}
