//! Bodies of requests that change workers, and of their answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a worker does without work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Idle {
    /// Polls on.
    #[default]
    Poll,
    /// Sleeps until a guest kicks or a NIC interrupts; it looks every one to four milliseconds where that cannot be.
    Adaptive,
}

impl Idle {
    /// As in the configuration file.
    pub fn name(self) -> &'static str {
        match self {
            Idle::Poll => "poll",
            Idle::Adaptive => "adaptive",
        }
    }
}

/// `GET /v1/idle`, and the body of `PUT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdleMode {
    /// What workers do without work.
    pub idle: Idle,
}

/// Body of `PUT /v1/guests/NAME/queues/PAIR/worker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Assign {
    /// The worker's core.
    pub core: usize,
}

/// Its answer, and that of `DELETE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Assigned {
    /// The worker's core; `null`: any.
    pub core: Option<usize>,
    /// The queue pairs that it polls for that now, each as `GUEST:PAIR`: the one that was assigned, and those it shares
    /// a lane with. None if it is not polled now: it will be there as soon as it is. After `DELETE`, those that went where
    /// another one of their lane is assigned.
    pub moved: Vec<String>,
}
