//! `/v1/log`: what is logged, while ringwired runs.

use std::str::FromStr;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use snapshot::Log;
pub use tracing_subscriber::EnvFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::reload::{Handle, Layer};

use super::Api;
use super::answer::{Body, Refusal, content, json};

/// The filter in force, which can be replaced.
pub struct LogFilter(Handle<EnvFilter, Registry>);

impl LogFilter {
    /// The layer that filters, and the way to replace its filter.
    pub fn new(filter: EnvFilter) -> (Layer<EnvFilter, Registry>, LogFilter) {
        let (layer, handle) = Layer::new(filter);
        (layer, LogFilter(handle))
    }

    fn current(&self) -> Result<String, String> {
        self.0.with_current(EnvFilter::to_string).map_err(|error| error.to_string())
    }

    /// Puts the filter that `text` stands for in force: a level, or what `RUST_LOG` takes.
    fn set(&self, text: &str) -> Result<(), String> {
        self.0.reload(parse(text)?).map_err(|error| error.to_string())
    }
}

/// A level, or levels of targets: `info,engine=debug`. A word that is no level would silence everything but a target of
/// that name, which nobody means who mistypes a level.
pub fn parse(text: &str) -> Result<EnvFilter, String> {
    for directive in text.split(',') {
        if !directive.contains('=') && (directive.is_empty() || LevelFilter::from_str(directive).is_err()) {
            return Err(format!(
                "level: {directive:?} is no level (off, error, warn, info, debug, trace) and no TARGET=LEVEL"
            ));
        }
    }
    EnvFilter::try_new(text).map_err(|error| format!("level: {text:?}: {error}"))
}

/// The filter in force.
pub async fn show(State(api): State<Api>) -> Result<Response, Refusal> {
    let level =
        api.operator.log.current().map_err(|text| Refusal(StatusCode::INTERNAL_SERVER_ERROR, text))?;
    Ok(json(&Log { level }))
}

/// The filter in force from now on.
pub async fn set(State(api): State<Api>, body: Body) -> Result<Response, Refusal> {
    let Log { level } = content(body, "{\"level\": \"LEVEL\"}, with a level or TARGET=LEVEL,...")?;
    api.operator.log.set(&level).map_err(|text| Refusal(StatusCode::UNPROCESSABLE_ENTITY, text))?;
    tracing::info!("log: {level}");
    show(State(api)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filter_is_refused_with_the_reason() {
        for good in ["info", "OFF", "info,engine=debug", "warn,ringwired::api=trace"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for (bad, reason) in [
            ("", "\"\" is no level"),
            ("debgu", "\"debgu\" is no level"),
            ("info,", "\"\" is no level"),
            ("engine=loud", "expected one of \"off\""),
        ] {
            let refused = parse(bad).unwrap_err();
            assert!(refused.contains(reason) && !refused.contains('\n'), "{refused}");
        }
    }

    #[test]
    fn the_filter_in_force_is_the_last_good_one() {
        let (_layer, filter) = LogFilter::new(EnvFilter::new("info"));
        assert_eq!(filter.current().unwrap(), "info");
        filter.set("warn,engine=debug").unwrap();
        let now = filter.current().unwrap();
        assert!(now.contains("warn") && now.contains("engine=debug"), "{now}");
        filter.set("loud").unwrap_err();
        assert_eq!(filter.current().unwrap(), now);
    }
}
