//! `/v1/workers`: which cores have one, which queue pairs are assigned to it; `/v1/idle`: what they do without work.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use engine::WorkerError;
use snapshot::{Assign, Assigned, IdleMode, Worker};

use super::Api;
use super::answer::{Body, Named, Refusal, content, json};

/// As in the status.
pub async fn workers(State(api): State<Api>) -> Result<Response, Refusal> {
    Ok(json(&api.status().await?.workers))
}

pub async fn worker(State(api): State<Api>, Named(core): Named<String>) -> Result<Response, Refusal> {
    Ok(json(&find(&api, parse(&core, "core")?).await?))
}

/// The worker, as it is then.
pub async fn add(State(api): State<Api>, Named(core): Named<String>) -> Result<Response, Refusal> {
    let core = parse(&core, "core")?;
    api.change(move |source| source.add_worker(core)).await?.map_err(refuse)?;
    Ok((StatusCode::CREATED, json(&find(&api, core).await?)).into_response())
}

/// The worker, as it was.
pub async fn remove(State(api): State<Api>, Named(core): Named<String>) -> Result<Response, Refusal> {
    let core = parse(&core, "core")?;
    let worker = find(&api, core).await?;
    api.change(move |source| source.remove_worker(core)).await?.map_err(refuse)?;
    Ok(json(&worker))
}

/// What moved.
pub async fn assign(
    State(api): State<Api>,
    Named(path): Named<(String, String)>,
    body: Body,
) -> Result<Response, Refusal> {
    let pair = pair(path)?;
    let Assign { core } = content(body, "{\"core\": N}")?;
    assigned(api, pair, Some(core)).await
}

/// What moved, to where another one of its lane is assigned.
pub async fn unassign(
    State(api): State<Api>,
    Named(path): Named<(String, String)>,
) -> Result<Response, Refusal> {
    assigned(api, pair(path)?, None).await
}

async fn assigned(api: Api, (guest, pair): (String, u16), core: Option<usize>) -> Result<Response, Refusal> {
    let moved = api.change(move |source| source.assign(&guest, pair, core)).await?.map_err(refuse)?;
    Ok(json(&Assigned { core, moved: moved.iter().map(ToString::to_string).collect() }))
}

pub async fn idle(State(api): State<Api>) -> Result<Response, Refusal> {
    Ok(json(&IdleMode { idle: api.status().await?.idle }))
}

/// The mode, as it is then.
pub async fn set_idle(State(api): State<Api>, body: Body) -> Result<Response, Refusal> {
    let shape = "{\"idle\": \"poll\"|\"adaptive\"}";
    let IdleMode { idle } = content(body, shape)?;
    let set = api.change(move |source| source.set_idle(idle)).await?;
    set.map_err(|error| Refusal(StatusCode::SERVICE_UNAVAILABLE, format!("no worker can sleep: {error}")))?;
    self::idle(State(api)).await
}

async fn find(api: &Api, core: usize) -> Result<Worker, Refusal> {
    let workers = api.status().await?.workers;
    workers
        .into_iter()
        .find(|worker| worker.core == core)
        .ok_or_else(|| refuse(WorkerError::NoSuchWorker(core)))
}

/// The guest and the number of its queue pair in a path.
fn pair((guest, pair): (String, String)) -> Result<(String, u16), Refusal> {
    Ok((guest, parse(&pair, "queue pair")?))
}

fn parse<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, Refusal> {
    text.parse().map_err(|_| Refusal(StatusCode::BAD_REQUEST, format!("{text:?} is no number of a {what}")))
}

fn refuse(error: WorkerError) -> Refusal {
    let code = match error {
        WorkerError::NoSuchWorker(_) | WorkerError::NoSuchGuest(_) | WorkerError::NoSuchPair { .. } => {
            StatusCode::NOT_FOUND
        }
        WorkerError::Taken(_) | WorkerError::Last(_) => StatusCode::CONFLICT,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Refusal(code, error.to_string())
}
