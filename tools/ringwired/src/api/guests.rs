//! `/v1/guests`: a guest's backend and offloads.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use engine::BackendError;
use snapshot::{Backend, Offloads};

use super::answer::{Body, Named, Refusal, content};
use super::ports::port;
use super::{Api, Source};
use crate::config::shapes;

/// The guest's port, as it is then.
pub async fn set_backend(
    State(api): State<Api>,
    Named(name): Named<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let shape = "{\"backend\": \"PORT\"}, with a port's name or \"none\"";
    let wanted: Backend = content(body, shape)?;
    let guest = name.clone();
    let set = move |source: &dyn Source| {
        let backend = Some(wanted.backend.as_str()).filter(|backend| *backend != "none");
        source.set_backend(&guest, backend)
    };
    api.change(set).await?.map_err(|error| Refusal(code(&error), error.to_string()))?;
    port(State(api), Named(name)).await
}

/// The guest's port, as it is then.
pub async fn set_offloads(
    State(api): State<Api>,
    Named(name): Named<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let shape = "{\"offloads\": \"auto\"|\"off\"|[\"NAME\", ...]}";
    let wanted: Offloads = content(body, shape)?;
    let bits = shapes::offload_bits(&wanted.offloads)
        .map_err(|problem| Refusal(StatusCode::UNPROCESSABLE_ENTITY, problem))?;
    let guest = name.clone();
    let set = move |source: &dyn Source| source.set_offloads(&guest, bits);
    api.change(set).await?.map_err(|error| Refusal(StatusCode::NOT_FOUND, error.to_string()))?;
    port(State(api), Named(name)).await
}

pub fn code(error: &BackendError) -> StatusCode {
    match error {
        BackendError::NoSuchGuest(_) => StatusCode::NOT_FOUND,
        BackendError::NoSuchPort(_) | BackendError::Itself(_) => StatusCode::UNPROCESSABLE_ENTITY,
        BackendError::Taken { .. } | BackendError::Occupied { .. } | BackendError::Punt { .. } => {
            StatusCode::CONFLICT
        }
    }
}
