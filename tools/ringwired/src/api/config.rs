//! `/v1/config` and `/v1/reload`: what runs as a file, and what runs made what the file says.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use snapshot::{Reload, Reloaded};

use super::answer::{Body, Refusal, content, json};
use super::{Api, CONNECTION_TIME};
use crate::reload::ReloadError;

/// What a configuration is written in.
pub const TOML: &str = "text/toml";

/// A client waits this long for a reload, less than its connection may last. NICs take seconds to open.
const RELOAD_TIME: Duration = CONNECTION_TIME.saturating_sub(Duration::from_secs(1));

/// The file that would bring back what runs now: TOML, or JSON if that is asked for.
pub async fn show(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Refusal> {
    let operator = api.operator.clone();
    let file = api.ask(move |_| operator.reloader.running()).await?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    Ok(match accept.is_some_and(|accept| accept.contains("application/json")) {
        true => json(&file),
        false => ([(header::CONTENT_TYPE, TOML)], file.text()).into_response(),
    })
}

/// What has changed. Who does not wait for the end finds it in the log.
pub async fn reload(State(api): State<Api>, body: Body) -> Result<Response, Refusal> {
    let Reload { dry_run } = content(body, "{\"dry_run\": true|false}")?;
    let operator = api.operator.clone();
    let reload = tokio::task::spawn_blocking(move || operator.reloader.reload(dry_run));
    match tokio::time::timeout(RELOAD_TIME, reload).await {
        Ok(Ok(Ok(changes))) => Ok(json(&Reloaded { dry_run, changes })),
        Ok(Ok(Err(error))) => Err(Refusal(code(&error), error.to_string())),
        Ok(Err(error)) => {
            let text = format!("the reload broke off: {error}");
            Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, text))
        }
        Err(_) => {
            let text =
                format!("not done within {RELOAD_TIME:?}, and goes on: the log will say what came of it");
            Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, text))
        }
    }
}

fn code(error: &ReloadError) -> StatusCode {
    match error {
        ReloadError::Config(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ReloadError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        ReloadError::Fixed { .. } => StatusCode::CONFLICT,
        ReloadError::Failed { failure, .. } if failure.left.is_empty() => StatusCode::CONFLICT,
        ReloadError::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
