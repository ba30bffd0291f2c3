//! What the caller decides about the Hub.

use std::{fmt, path::PathBuf, time::Duration};

/// Where the Hub is, where its files are kept, and how patient to be with it. This crate reads no environment: a program
/// that honours `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_CACHE` or `HF_HUB_OFFLINE` fills them in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// The Hub's address, such as `https://huggingface.co`.
    pub endpoint: String,
    /// Who asks. It is sent to the endpoint alone, never to the servers that it redirects to.
    pub token: Option<Secret>,
    /// The directory that holds `models--owner--name` directories; other programs may use it at the same time.
    pub cache: PathBuf,
    /// Whether the network may be used.
    pub access: Access,
    /// A proxy such as `http://user:password@localhost:8080` or `socks5://localhost`.
    pub proxy: Option<Secret>,
    /// What follows a failed request.
    pub retries: Retries,
    /// A connection that is silent for this long counts as dropped.
    pub silence: Duration,
}

impl HubSettings {
    /// The public Hub without a token.
    #[must_use]
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: "https://huggingface.co".into(),
            token: None,
            cache: cache.into(),
            access: Access::Online,
            proxy: None,
            retries: Retries::default(),
            silence: Duration::from_secs(30),
        }
    }
}

/// Whether the network may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Asks the Hub what there is, and downloads what is not in the cache.
    Online,
    /// Uses what is in the cache.
    Offline,
}

/// How often a dropped connection, an overloaded server (5xx) or a rate limit (429) is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Requests in all, the first one included, that may fail in a row. A transfer that got further starts anew.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with every further one.
    pub first_pause: Duration,
    /// No pause is longer. A server that asks for a longer one is not asked again.
    pub longest_pause: Duration,
}

impl Default for Retries {
    /// Five attempts: pauses of 1, 2, 4 and 8 seconds, or what the server asks for, up to five minutes.
    fn default() -> Self {
        Self { attempts: 5, first_pause: Duration::from_secs(1), longest_pause: Duration::from_mins(5) }
    }
}

/// A text that is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let settings = HubSettings { token: Some(Secret::new("hf_abc")), ..HubSettings::new("cache") };
        assert!(!format!("{settings:?}").contains("hf_abc"));
    }
}
