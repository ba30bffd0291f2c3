//! Requests to the Hub: who asks, where redirects may lead, and what a refusal means.

use std::time::Duration;

use ureq::{
    Agent, Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header},
};

use super::{HubError, HubSettings, Secret, repository::Asked};

/// Redirects in a row; the Hub needs two: to a repository's new name, and to where the file lies.
const MAX_REDIRECTS: usize = 8;
/// The content's name where a file lies elsewhere.
pub(super) const LINKED_ETAG: &str = "x-linked-etag";
const MAX_JSON_BYTES: u64 = 256 << 20;

/// Talks to one endpoint.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    authority: Uri,
    token: Option<Secret>,
}

/// What is requested.
#[derive(Debug, Clone, Copy)]
pub(super) enum Request {
    /// What the Hub says of a file; redirects are followed only as far as that takes.
    Description,
    /// A body, from this byte on.
    BodyFrom(u64),
}

impl Client {
    pub(super) fn new(settings: &HubSettings) -> Result<Self, HubError> {
        let wrong = |setting, reason: &str| HubError::Setting { setting, reason: reason.into() };
        let endpoint = settings.endpoint.trim_end_matches('/').to_string();
        let authority: Uri = endpoint.parse().map_err(|_| wrong("endpoint", "not an address"))?;
        if !matches!(authority.scheme_str(), Some("http" | "https")) {
            return Err(wrong("endpoint", "expected an address such as https://huggingface.co"));
        }
        if settings.token.as_ref().is_some_and(|token| HeaderValue::from_str(&bearer(token)).is_err()) {
            return Err(wrong("token", "holds characters that no token has"));
        }
        let proxy = settings.proxy.as_ref().map(|proxy| ureq::Proxy::new(proxy.reveal())).transpose();
        let proxy = proxy.map_err(|_| wrong("proxy", "expected an address such as http://localhost:8080"))?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .user_agent(concat!("align-kit/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(settings.silence))
            .timeout_connect(Some(settings.silence))
            .timeout_per_read(Some(settings.silence))
            .timeout_per_write(Some(settings.silence));
        let token = settings.token.clone();
        Ok(Self { agent: config.build().new_agent(), endpoint, authority, token })
    }

    /// The Hub's address, without a slash at its end.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends a request and returns the answer: a success, a redirect that describes a file, or 416 where a body does
    /// not reach that far.
    pub(super) fn send(
        &self,
        request: Request,
        url: &str,
        asked: Asked<'_>,
    ) -> Result<Response<Body>, HubError> {
        let mut url = url.to_string();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_once(request, &url)?;
            let status = response.status();
            // A redirect to where a large file lies describes it; one to a repository's new name says nothing yet.
            let described =
                matches!(request, Request::Description) && response.headers().contains_key(LINKED_ETAG);
            let beyond = status == StatusCode::RANGE_NOT_SATISFIABLE;
            if status.is_success() || beyond || (status.is_redirection() && described) {
                return Ok(response);
            }
            let target = response.headers().get(header::LOCATION).filter(|_| status.is_redirection());
            let Some(target) = target else {
                return Err(self.refusal(status.as_u16(), response.headers(), url, asked));
            };
            url = target.to_str().ok().and_then(|target| resolve(&url, target)).ok_or_else(|| {
                let reason = "it redirects to what is not an address".into();
                HubError::Answer { url: url.clone(), reason }
            })?;
        }
        Err(HubError::Answer { url, reason: "too many redirects".into() })
    }

    /// Requests JSON.
    pub(super) fn json<T: serde::de::DeserializeOwned>(
        &self,
        url: &str,
        asked: Asked<'_>,
    ) -> Result<T, HubError> {
        let mut response = self.send(Request::BodyFrom(0), url, asked)?;
        let bytes = response.body_mut().with_config().limit(MAX_JSON_BYTES).read_to_vec();
        let bytes = bytes.map_err(|error| transport_error(url, &error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| HubError::Answer { url: url.into(), reason: error.to_string() })
    }

    fn send_once(&self, request: Request, url: &str) -> Result<Response<Body>, HubError> {
        let mut builder = match request {
            Request::Description => self.agent.head(url),
            Request::BodyFrom(_) => self.agent.get(url),
        };
        // A compressed answer would tell the size of something else, and its ranges would be ranges of that.
        builder = builder.header(header::ACCEPT_ENCODING, "identity");
        if let Request::BodyFrom(start @ 1..) = request {
            builder = builder.header(header::RANGE, format!("bytes={start}-"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| self.is_endpoint(url)) {
            builder = builder.header(header::AUTHORIZATION, bearer(token));
        }
        builder.call().map_err(|error| transport_error(url, &error))
    }

    /// Whether an address belongs to the Hub itself, on a connection that is no less private.
    fn is_endpoint(&self, url: &str) -> bool {
        let Ok(url) = url.parse::<Uri>() else { return false };
        let same_host = url.host() == self.authority.host();
        let same_port =
            url.port_u16() == self.authority.port_u16() && url.scheme() == self.authority.scheme();
        same_host && (same_port || (url.scheme_str() == Some("https") && url.port_u16().is_none()))
    }

    /// What an answer that is no success means.
    fn refusal(&self, status: u16, headers: &HeaderMap, url: String, asked: Asked<'_>) -> HubError {
        let (endpoint, what) = (self.endpoint.clone(), asked.to_string());
        let code = headers.get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
        match (status, &self.token) {
            (401 | 403, None) => HubError::NoToken { endpoint, what, status },
            (401, Some(_)) if code != "GatedRepo" => HubError::BadToken { endpoint, what },
            (401 | 403, Some(_)) => HubError::Forbidden { endpoint, what },
            (404, _) => asked.not_found(endpoint, code),
            (429, _) => HubError::RateLimited { endpoint, what, pause: asked_pause(headers) },
            (408 | 500..=599, _) => HubError::Server { url, status },
            _ => HubError::Answer { url, reason: format!("status {status}") },
        }
    }
}

fn bearer(token: &Secret) -> String {
    format!("Bearer {}", token.reveal())
}

/// Seconds until a request may succeed: `Retry-After`, or the `t` of the Hub's `RateLimit: "resolvers";r=0;t=120`.
fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let after = text("retry-after").and_then(|seconds| seconds.trim().parse().ok());
    let reset =
        || text("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok());
    after.or_else(reset).map(Duration::from_secs)
}

/// Where a redirect leads.
fn resolve(from: &str, target: &str) -> Option<String> {
    let base: Uri = from.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    if target.contains("://") {
        return Some(target.into());
    }
    if target.starts_with("//") {
        return Some(format!("{scheme}:{target}"));
    }
    if target.starts_with('/') {
        return Some(format!("{scheme}://{authority}{target}"));
    }
    let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
    Some(format!("{scheme}://{authority}{directory}/{target}"))
}

/// What a failure below HTTP means.
pub(super) fn transport_error(url: &str, error: &ureq::Error) -> HubError {
    use ureq::Error::{BadUri, HostNotFound, InvalidProxyUrl, Rustls, Tls};
    let (url, reason) = (url.to_string(), error.to_string());
    // The standard library has no kind for a name that cannot be resolved, only these words.
    let nameless = reason.contains("failed to lookup address");
    match error {
        _ if nameless => HubError::Unreachable { url, reason },
        HostNotFound | Tls(_) | Rustls(_) | BadUri(_) | InvalidProxyUrl => {
            HubError::Unreachable { url, reason }
        }
        _ => HubError::Interrupted { url, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(endpoint: &str) -> Client {
        Client::new(&HubSettings { endpoint: endpoint.into(), ..HubSettings::new("cache") }).unwrap()
    }

    #[test]
    fn the_token_stays_with_the_endpoint() {
        let hub = client("http://hub.example/");
        for (url, own) in [
            ("http://hub.example/a/b", true),
            ("https://hub.example/a/b", true),
            ("http://hub.example:81/a/b", false),
            ("http://cdn.hub.example/a/b", false),
            ("http://hub.example.evil/a/b", false),
        ] {
            assert_eq!(hub.is_endpoint(url), own, "{url}");
        }
        assert!(!client("https://hub.example").is_endpoint("http://hub.example/a"), "not in plain text");
        assert!(client("http://localhost:8080").is_endpoint("http://localhost:8080/a"));
    }

    #[test]
    fn redirects_are_resolved() {
        let from = "https://hub.example/old/name/resolve/main/x?y=1";
        for (target, expected) in [
            ("https://cdn.example/x?sign=1", "https://cdn.example/x?sign=1"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/new/name/resolve/main/x", "https://hub.example/new/name/resolve/main/x"),
            ("z", "https://hub.example/old/name/resolve/main/z"),
        ] {
            assert_eq!(resolve(from, target).unwrap(), expected);
        }
    }

    #[test]
    fn the_servers_pause_is_read() {
        let pause = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            asked_pause(&headers).map(|pause| pause.as_secs())
        };
        assert_eq!(pause("retry-after", "7"), Some(7));
        assert_eq!(pause("ratelimit", "\"resolvers\";r=0;t=120"), Some(120));
        assert_eq!(pause("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), None);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let refused = |settings: HubSettings| match Client::new(&settings).unwrap_err() {
            HubError::Setting { setting, .. } => setting,
            other => panic!("{other}"),
        };
        let base = HubSettings::new("cache");
        assert_eq!(refused(HubSettings { endpoint: "huggingface.co".into(), ..base.clone() }), "endpoint");
        assert_eq!(refused(HubSettings { token: Some(Secret::new("a\nb")), ..base.clone() }), "token");
        assert_eq!(refused(HubSettings { proxy: Some(Secret::new("::")), ..base }), "proxy");
    }
}
