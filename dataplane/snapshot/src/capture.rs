//! What is asked for to capture packets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A capture: the body of `POST /v1/captures`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCapture {
    /// The port.
    pub port: String,
    /// One queue pair of it, the first being 0; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u16>,
    /// One direction, as the datapath sees it: what a guest sends is `rx`. Both if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Way>,
    /// Classic BPF instructions, as `tcpdump -ddd` prints them: code, jt, jf, k. All frames if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<(u16, u8, u8, u32)>,
    /// Bytes to keep of each frame at most; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
    /// Ends after so many frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Ends after so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// One of the two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Into the datapath.
    Rx,
    /// Out of it.
    Tx,
}
