//! Answers, and what is wanted of a request.

use axum::body::Bytes;
use axum::extract::Path;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use snapshot::ErrorBody;

/// An answer that is an error.
pub struct Refusal(pub StatusCode, pub String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, json(&ErrorBody { error: self.1 })).into_response()
    }
}

/// Indented, so that `curl` alone is readable and `ringwire --json` can print it as it came.
pub fn json(body: &impl serde::Serialize) -> Response {
    match serde_json::to_string_pretty(body) {
        Ok(mut text) => {
            text.push('\n');
            ([(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Whose, and what is wanted of it: a body of this `shape`.
pub fn wanted<T: DeserializeOwned>(
    name: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
    shape: &str,
) -> Result<(String, T), Refusal> {
    let Path(name) = name.map_err(|error| Refusal(error.status(), error.body_text()))?;
    Ok((name, content(body, shape)?))
}

/// What is wanted: a body of this `shape`.
pub fn content<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>, shape: &str) -> Result<T, Refusal> {
    let body = body.map_err(|error| Refusal(error.status(), error.body_text()))?;
    serde_json::from_slice(&body)
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("the body is not {shape}: {error}")))
}
