//! A Hub on this machine: a listing, files behind redirects to a second server, and faults on request.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// The commit that every repository is at.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// A token with every right, and one of someone who has not accepted any conditions.
pub(crate) const GOOD_TOKEN: &str = "hf_good";
pub(crate) const STRANGERS_TOKEN: &str = "hf_stranger";

/// Something that goes wrong once, at the next request whose path holds a text.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This status, with these header lines.
    Status(u16, &'static str),
    /// The connection ends after so many bytes of the body.
    DropAfter(usize),
    /// The first byte of the body is another one.
    Damage,
    /// Ranges are not understood: the whole file is sent.
    NoRanges,
    /// Nothing is sent at all.
    Silence,
}

/// A request that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) on_hub: bool,
    pub(crate) token: Option<String>,
    pub(crate) range: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    /// By `owner/name` of a model, or `datasets/owner/name`.
    repositories: HashMap<String, BTreeMap<String, Vec<u8>>>,
    faults: Vec<(String, Fault)>,
    seen: Vec<Seen>,
    files_elsewhere: Option<SocketAddr>,
}

/// Runs until the tests end.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
}

/// Files from this size on lie on the second server.
const LARGE: usize = 10_000;

impl Server {
    pub(crate) fn start() -> Self {
        let state = Arc::<Mutex<State>>::default();
        let elsewhere = listen(&state, false);
        state.lock().unwrap().files_elsewhere = Some(elsewhere);
        let endpoint = format!("http://{}", listen(&state, true));
        Self { endpoint, state }
    }

    /// Adds a repository: `owner/name`, or `datasets/owner/name`. Owners have names: `private/…`, `gated/…`.
    pub(crate) fn add(&self, repository: &str, files: &[(&str, &[u8])]) {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        self.state.lock().unwrap().repositories.insert(repository.into(), files);
    }

    /// Adds a repository with every file of a directory, and some that nobody needs.
    pub(crate) fn add_directory(&self, repository: &str, directory: &Path) {
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            files.push((entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()));
        }
        for needless in ["README.md", "pytorch_model.bin", "onnx/model.onnx"] {
            files.push((needless.into(), b"needless".to_vec()));
        }
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
        self.add(repository, &files);
    }

    /// Lets something go wrong at the next request for a body or listing whose path holds this text.
    pub(crate) fn fault(&self, path: &str, fault: Fault) {
        self.state.lock().unwrap().faults.push((path.into(), fault));
    }

    /// What has been requested since this was last called.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }
}

/// The name that a large file has on the second server.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn listen(state: &Arc<Mutex<State>>, on_hub: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = state.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = state.clone();
            thread::spawn(move || answer(&state, stream, on_hub));
        }
    });
    address
}

/// A status line, headers and a body.
struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, headers: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: headers.into(), body: body.into() }
    }
}

fn answer(state: &Mutex<State>, mut stream: TcpStream, on_hub: bool) {
    let Some(seen) = read_request(&stream, on_hub) else { return };
    let (fault, mut answer) = {
        let mut state = state.lock().unwrap();
        state.seen.push(seen.clone());
        let is_struck = |(path, _): &(String, Fault)| seen.path.contains(path) && seen.method == "GET";
        let struck = state.faults.iter().position(is_struck);
        let fault = struck.map(|index| state.faults.remove(index).1);
        (fault, if on_hub { state.hub(&seen) } else { state.elsewhere(&seen) })
    };
    let mut sent = usize::MAX;
    match fault {
        Some(Fault::Status(status, headers)) => answer = Answer::new(status, headers, "trouble"),
        Some(Fault::DropAfter(bytes)) => sent = bytes,
        Some(Fault::Damage) => answer.body[0] ^= 1,
        Some(Fault::Silence) => {
            thread::sleep(std::time::Duration::from_secs(2));
            return;
        }
        Some(Fault::NoRanges) | None => {}
    }
    let mut start = 0;
    let ranges = !matches!(fault, Some(Fault::NoRanges)) && answer.status == 200;
    if let Some(range) = seen.range.filter(|_| ranges) {
        start = range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
        answer.status = if start < answer.body.len() { 206 } else { 416 };
        let length = answer.body.len();
        write!(answer.headers, "content-range: bytes {start}-{}/{length}\r\n", length - 1).unwrap();
        start = start.min(length);
    }
    let body = &answer.body[start..];
    let (status, headers, length) = (answer.status, &answer.headers, body.len());
    let head =
        format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
    _ = stream.write_all(head.as_bytes());
    if seen.method != "HEAD" {
        _ = stream.write_all(&body[..length.min(sent)]);
    }
}

fn read_request(stream: &TcpStream, on_hub: bool) -> Option<Seen> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut seen = Seen { method, path, on_hub, token: None, range: None };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => seen.token = Some(value.trim_start_matches("Bearer ").to_owned()),
            "range" => seen.range = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(seen)
}

impl State {
    fn hub(&self, seen: &Seen) -> Answer {
        let path = seen.path.trim_start_matches('/');
        let not_found = |code: &str| Answer::new(404, format!("x-error-code: {code}\r\n"), "");
        let api = path.strip_prefix("api/");
        let (path, between) = (api.unwrap_or(path), if api.is_some() { "/revision/" } else { "/resolve/" });
        let Some((repository, rest)) = path.split_once(between) else { return not_found("") };
        let repository = repository.trim_start_matches("models/");
        let rest = if api.is_some() { Err(rest) } else { Ok(rest) };
        if let Some(name) = repository.strip_prefix("old/") {
            let location = seen.path.replace(&format!("old/{name}"), &format!("new/{name}"));
            return Answer::new(307, format!("location: {location}\r\n"), "");
        }
        if let Some(refused) = refused(repository, seen.token.as_deref()) {
            return refused;
        }
        let Some(files) = self.repositories.get(repository) else { return not_found("RepoNotFound") };
        match rest {
            Err("main" | "v1.0" | COMMIT | "refs%2Fpr%2F1") => {
                let siblings: Vec<_> = files.keys().map(|name| json!({"rfilename": name})).collect();
                Answer::new(200, "", json!({"sha": COMMIT, "siblings": siblings}).to_string())
            }
            Err(_) => not_found("RevisionNotFound"),
            Ok(file) => match file.split_once('/').and_then(|(_, file)| files.get(file)) {
                Some(content) => self.file(content),
                None => not_found("EntryNotFound"),
            },
        }
    }

    fn file(&self, content: &[u8]) -> Answer {
        let (length, hash) = (content.len(), sha256(content));
        if length < LARGE {
            let headers = format!("x-repo-commit: {COMMIT}\r\netag: \"{}\"\r\n", &hash[..40]);
            return Answer::new(200, headers, content);
        }
        let elsewhere = self.files_elsewhere.unwrap();
        let headers = format!(
            "x-repo-commit: {COMMIT}\r\nx-linked-size: {length}\r\nx-linked-etag: \"{hash}\"\r\n\
             location: http://{elsewhere}/{hash}?signature=1\r\n"
        );
        Answer::new(302, headers, "")
    }

    fn elsewhere(&self, seen: &Seen) -> Answer {
        let mut contents = self.repositories.values().flat_map(BTreeMap::values);
        match contents.find(|content| seen.path == format!("/{}?signature=1", sha256(content))) {
            Some(content) => Answer::new(200, "etag: \"another\"\r\n", &content[..]),
            None => Answer::new(404, "", ""),
        }
    }
}

fn refused(repository: &str, token: Option<&str>) -> Option<Answer> {
    let owner = repository.trim_start_matches("datasets/").split('/').next()?;
    match (owner, token) {
        (_, Some(token)) if ![GOOD_TOKEN, STRANGERS_TOKEN].contains(&token) => Some(Answer::new(401, "", "")),
        ("private" | "missing", None) => Some(Answer::new(401, "x-error-code: RepoNotFound\r\n", "")),
        ("gated", None) => Some(Answer::new(401, "x-error-code: GatedRepo\r\n", "")),
        ("gated", Some(STRANGERS_TOKEN)) => Some(Answer::new(403, "x-error-code: GatedRepo\r\n", "")),
        _ => None,
    }
}
