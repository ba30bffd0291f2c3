//! What can go wrong between a name and its files.

use std::{path::PathBuf, time::Duration};

/// A model or dataset of the Hub could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name cannot be one of the Hub.
    #[error("`{name}` is not a name on the Hub: {reason}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting makes no sense.
    #[error("the Hub's {setting}: {reason}")]
    Setting {
        /// `endpoint`, `proxy` or `token`.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such thing, or it is not shown to whoever asks.
    #[error("{endpoint} has no {what}: {advice}")]
    NotFound {
        /// Where it was looked for.
        endpoint: String,
        /// Repository, revision or file.
        what: String,
        /// What to check.
        advice: String,
    },
    /// The Hub wants to know who asks, and no token was given.
    #[error(
        "{endpoint} does not show {what} to everyone ({status}): it does not exist, or it is private or gated; check the name, or set HF_TOKEN to the token of an account that may read it"
    )]
    NoToken {
        /// Who refused.
        endpoint: String,
        /// What was asked for.
        what: String,
        /// 401 or 403.
        status: u16,
    },
    /// The Hub does not know the token.
    #[error(
        "{endpoint} does not accept the token for {what} (401): make a new one at {endpoint}/settings/tokens and set HF_TOKEN to it, or unset it for what is public"
    )]
    BadToken {
        /// Who refused.
        endpoint: String,
        /// What was asked for.
        what: String,
    },
    /// The token's account may not read this.
    #[error(
        "{endpoint} does not let the token read {what} (403): accept the conditions on its page if it is gated, and check that the token may read gated repositories"
    )]
    Forbidden {
        /// Who refused.
        endpoint: String,
        /// What was asked for.
        what: String,
    },
    /// Too many requests, even after pauses.
    #[error("{endpoint} answers {what} with 429, too many requests{}: try again later, or set HF_TOKEN, which raises the limit", asked_pause(*.pause))]
    RateLimited {
        /// Who refused.
        endpoint: String,
        /// What was asked for.
        what: String,
        /// The pause that the server asked for, if it did.
        pause: Option<Duration>,
    },
    /// The server failed, even after pauses.
    #[error("{url} answers {status}: the server is in trouble, try again later")]
    Server {
        /// What was requested.
        url: String,
        /// 408 or 5xx.
        status: u16,
    },
    /// A connection was refused, dropped or silent, even after pauses.
    #[error("the connection to {url} failed: {reason}")]
    Interrupted {
        /// What was requested.
        url: String,
        /// What happened.
        reason: String,
    },
    /// There is no way to the server.
    #[error("cannot reach {url}: {reason}: check the network, the proxy and HF_ENDPOINT")]
    Unreachable {
        /// What was requested.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The server said something that the Hub does not say.
    #[error("{url}: not an answer of the Hub: {reason}")]
    Answer {
        /// What was requested.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// What arrived is not what the Hub describes.
    #[error("{file} of {repository} arrived damaged: expected {expected}, found {found}")]
    Damaged {
        /// `owner/name`.
        repository: String,
        /// The file's path in the repository.
        file: String,
        /// Size or SHA-256 according to the Hub.
        expected: String,
        /// Size or SHA-256 of what arrived.
        found: String,
    },
    /// The network is switched off and a file is not there.
    #[error("{what} is not in the cache {}, and the Hub is switched off (HF_HUB_OFFLINE): unset that, or download it elsewhere first", .cache.display())]
    NotCached {
        /// The file and its repository.
        what: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// A model repository has nothing that can be loaded.
    #[error(
        "{repository} has no model.safetensors, no model.safetensors.index.json and no GGUF file: other formats have to be converted first"
    )]
    NoWeights {
        /// `owner/name`.
        repository: String,
    },
    /// A repository holds several candidates, or none of the name given.
    #[error("{repository}: {problem}: name one as {repository}:NAME, of {}", .choices.join(", "))]
    Choice {
        /// `owner/name`.
        repository: String,
        /// What cannot be decided.
        problem: String,
        /// What could be named.
        choices: Vec<String>,
    },
    /// A dataset repository has no file in a known format.
    #[error(
        "{repository} has no data in a known format (parquet, jsonl, csv, json, each plain, .gz or .zst)"
    )]
    NoData {
        /// `owner/name`.
        repository: String,
    },
    /// The operating system refused a file of the cache.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried: `read`, `write`, `lock`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl HubError {
    /// Whether the same request may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        use HubError::{Damaged, Interrupted, RateLimited, Server};
        matches!(self, RateLimited { .. } | Server { .. } | Interrupted { .. } | Damaged { .. })
    }

    /// For `map_err` of what is done to a file.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

fn asked_pause(pause: Option<Duration>) -> String {
    pause.map_or_else(String::new, |pause| format!(", for another {} seconds", pause.as_secs()))
}
