//! Answers, and what is wanted of a request.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
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

/// What a path names.
pub struct Named<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named<T>, Refusal> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(named)| Named(named)).map_err(|error| Refusal(error.status(), error.body_text()))
    }
}

/// A request's body, or why there is none.
pub type Body = Result<Bytes, BytesRejection>;

/// What is wanted: a body of this `shape`.
pub fn content<T: DeserializeOwned>(body: Body, shape: &str) -> Result<T, Refusal> {
    let body = body.map_err(|error| Refusal(error.status(), error.body_text()))?;
    serde_json::from_slice(&body)
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("the body is not {shape}: {error}")))
}
