//! Endpoints that score: a reward that runs somewhere else.
//!
//! A batch is one `POST` of JSON, and so is the answer, with a score, `null`, or a reason for each rollout:
//!
//! ```json
//! {"rollouts": [{"prompt": "2 + 2?", "completion": "4", "tokens": null, "finish": "stop", "group": 0, "columns": {}}]}
//! {"scores": [0.5]}
//! {"scores": [null]}
//! {"scores": [{"unscored": "no such language"}]}
//! ```

#[cfg(feature = "http")]
mod reward;

use std::{
    fmt,
    num::{NonZeroU32, NonZeroUsize},
};

use align_model::number::Positive;
#[cfg(feature = "http")]
pub use reward::HttpReward;
use serde::{Deserialize, Serialize};

/// Where the endpoint is, and how patient to be with it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Its address. Credentials do not belong in run files: a reward that needs them is made by a program, with
    /// [headers](HttpConfig::headers).
    pub url: String,
    /// What it is called in logs.
    #[serde(default = "name")]
    pub name: String,
    /// Sent along, such as `Authorization`; never written to a file or shown.
    #[serde(skip)]
    pub headers: Vec<(String, String)>,
    /// Rollouts in a request.
    #[serde(default = "batch_size")]
    pub batch_size: NonZeroUsize,
    /// How long a request may take from its beginning to the last byte of the answer.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: Positive,
    /// Attempts for each request; what failed is repeated where that can help: no connection, no answer in time,
    /// status 408, 429 or 5xx.
    #[serde(default = "attempts")]
    pub attempts: NonZeroU32,
    /// The pause before the second attempt; it doubles from one to the next.
    #[serde(default = "pause_seconds")]
    pub pause_seconds: Positive,
}

/// Shows the names of headers only: their values may be secrets.
impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, name, headers, batch_size, timeout_seconds, attempts, pause_seconds } = self;
        let headers: Vec<&String> = headers.iter().map(|(name, _)| name).collect();
        let mut debug = f.debug_struct("HttpConfig");
        debug.field("url", url).field("name", name).field("headers", &headers);
        debug.field("batch_size", batch_size).field("timeout_seconds", timeout_seconds);
        debug.field("attempts", attempts).field("pause_seconds", pause_seconds).finish()
    }
}

fn name() -> String {
    "http".into()
}

fn batch_size() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(63)
}

fn timeout_seconds() -> Positive {
    Positive::new(60.0)
}

fn attempts() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(4)
}

fn pause_seconds() -> Positive {
    Positive::new(0.5)
}
