//! `/v1/guests`: a guest's backend and offloads.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use engine::BackendError;
use snapshot::{Backend, Offloads};

use super::answer::{Refusal, wanted};
use super::ports::port;
use super::{Api, Source};
use crate::config::shapes;

/// The guest's port, as it is then.
pub async fn set_backend(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let shape = "{\"backend\": \"PORT\"}, with a port's name or \"none\"";
    let (name, wanted): (_, Backend) = wanted(name, body, shape)?;
    let guest = name.clone();
    let set = move |source: &dyn Source| {
        let backend = Some(wanted.backend.as_str()).filter(|backend| *backend != "none");
        source.set_backend(&guest, backend)
    };
    api.change(set).await?.map_err(|error| Refusal(code(&error), error.to_string()))?;
    port(State(api), Ok(Path(name))).await
}

/// The guest's port, as it is then.
pub async fn set_offloads(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let shape = "{\"offloads\": \"auto\"|\"off\"|[\"NAME\", ...]}";
    let (name, wanted): (_, Offloads) = wanted(name, body, shape)?;
    let bits = shapes::offload_bits(&wanted.offloads)
        .map_err(|problem| Refusal(StatusCode::UNPROCESSABLE_ENTITY, problem))?;
    let guest = name.clone();
    let set = move |source: &dyn Source| source.set_offloads(&guest, bits);
    api.change(set).await?.map_err(|error| Refusal(StatusCode::NOT_FOUND, error.to_string()))?;
    port(State(api), Ok(Path(name))).await
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
