//! One file: from its description to a checked content that the snapshot links to.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use ureq::http::{HeaderMap, StatusCode, header};

use super::{
    DownloadEvent, DownloadListener, HubError, Retries,
    cache::RepositoryCache,
    client::{Client, LINKED_ETAG, Request, transport_error},
    patience::{Patience, retrying},
    repository::Asked,
};

const CHUNK: usize = 1 << 17;

/// A file of a commit, to be downloaded.
#[derive(Debug)]
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) cache: &'a RepositoryCache,
    pub(super) retries: Retries,
    pub(super) asked: Asked<'a>,
    pub(super) commit: &'a str,
    pub(super) file: &'a str,
}

/// What the Hub says of a file's content.
#[derive(Debug)]
struct Description {
    etag: String,
    size: Option<u64>,
}

impl Download<'_> {
    /// Returns where the file lies, downloading it if it is not there.
    pub(super) fn run(&self, listener: &mut DownloadListener<'_>) -> Result<PathBuf, HubError> {
        let path = self.cache.file(self.commit, self.file);
        if path.exists() {
            return Ok(path);
        }
        let url = self.asked.file_url(self.client.endpoint(), self.commit, self.file);
        let description = retrying(self.retries, listener, || self.describe(&url))?;
        let blob = self.cache.blob(&description.etag);
        if !description.is_size_of(&blob) {
            let lock =
                self.cache.lock(&description.etag, || listener(DownloadEvent::Shared { file: self.file }))?;
            // Whoever held the lock before may have finished it.
            if !description.is_size_of(&blob) {
                self.fill(&blob, &url, &description, listener)?;
            }
            drop(lock);
        }
        self.cache.link(self.commit, self.file, &description.etag)
    }

    fn describe(&self, url: &str) -> Result<Description, HubError> {
        let response = self.client.send(Request::Description, url, self.asked)?;
        Description::read(response.headers())
            .ok_or_else(|| HubError::Answer { url: url.into(), reason: "it has no usable ETag".into() })
    }

    /// Downloads a content, checks it and moves it to its place.
    fn fill(
        &self,
        blob: &Path,
        url: &str,
        description: &Description,
        listener: &mut DownloadListener<'_>,
    ) -> Result<(), HubError> {
        let part = self.cache.incomplete(&description.etag);
        let parent = part.parent().unwrap_or(&part);
        fs::create_dir_all(parent).map_err(HubError::io("write", parent))?;
        let present = fs::metadata(&part).map_or(0, |metadata| metadata.len());
        listener(DownloadEvent::Started { file: self.file, size: description.size, present });
        let mut patience = Patience::new(self.retries);
        let mut furthest = present;
        loop {
            let arrived = self.transfer(&part, url, description, listener);
            match arrived.and_then(|()| self.check(&part, description)) {
                Ok(()) => break,
                Err(error) => {
                    if matches!(error, HubError::Damaged { .. }) {
                        fs::remove_file(&part).map_err(HubError::io("remove", &part))?;
                        listener(DownloadEvent::Restarted);
                    }
                    let length = fs::metadata(&part).map_or(0, |metadata| metadata.len());
                    if length > furthest {
                        furthest = length;
                        patience.restore();
                    }
                    patience.after(error, listener)?;
                }
            }
        }
        fs::rename(&part, blob).map_err(HubError::io("write", blob))?;
        listener(DownloadEvent::Finished { file: self.file });
        Ok(())
    }

    /// Appends what is missing, in one request.
    fn transfer(
        &self,
        part: &Path,
        url: &str,
        description: &Description,
        listener: &mut DownloadListener<'_>,
    ) -> Result<(), HubError> {
        let write_error = || HubError::io("write", part);
        let mut file = File::options().create(true).append(true).open(part).map_err(write_error())?;
        let mut length = file.metadata().map_err(write_error())?.len();
        if description.size.is_some_and(|size| length == size && size > 0) {
            return Ok(());
        }
        let response = self.client.send(Request::BodyFrom(length), url, self.asked)?;
        if length > 0 && !goes_on_at(length, response.status(), response.headers()) {
            file.set_len(0).map_err(write_error())?;
            listener(DownloadEvent::Restarted);
            length = 0;
            if response.status() != StatusCode::OK {
                let reason = "it does not go on from where an earlier transfer ended".into();
                return Err(HubError::Interrupted { url: url.into(), reason });
            }
        }
        let mut body = response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = body.read(&mut chunk).map_err(|error| body_error(url, error))?;
            if read == 0 {
                break;
            }
            file.write_all(&chunk[..read]).map_err(write_error())?;
            length += read as u64;
            listener(DownloadEvent::Advanced { bytes: read as u64 });
        }
        // A rename may reach the disk before the data does, unless the data is sent there first.
        file.sync_all().map_err(write_error())?;
        match description.size {
            Some(size) if length < size => {
                let reason = format!("it ended after {length} of {size} bytes");
                Err(HubError::Interrupted { url: url.into(), reason })
            }
            _ => Ok(()),
        }
    }

    /// Compares a content with its description.
    fn check(&self, part: &Path, description: &Description) -> Result<(), HubError> {
        let damaged = |expected: String, found: String| HubError::Damaged {
            repository: self.asked.repository.into(),
            file: self.file.into(),
            expected,
            found,
        };
        let read_error = || HubError::io("read", part);
        let length = fs::metadata(part).map_err(read_error())?.len();
        if let Some(size) = description.size.filter(|&size| size != length) {
            return Err(damaged(format!("{size} bytes"), format!("{length} bytes")));
        }
        if !description.is_sha256() {
            return Ok(());
        }
        let found = sha256(part).map_err(read_error())?;
        if found.eq_ignore_ascii_case(&description.etag) {
            return Ok(());
        }
        Err(damaged(format!("SHA-256 {}", description.etag), found))
    }
}

impl Description {
    fn read(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let linked = text(LINKED_ETAG);
        let etag = linked.or_else(|| text(header::ETAG.as_str()))?;
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        // It is to be the name of a file.
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if etag.is_empty() || etag.len() > 200 || etag.starts_with('.') || !etag.chars().all(is_name) {
            return None;
        }
        let size = if linked.is_some() { text("x-linked-size") } else { text("content-length") };
        Some(Self { etag, size: size.and_then(|size| size.parse().ok()) })
    }

    /// Large files are named by their SHA-256; small ones by what git calls them.
    fn is_sha256(&self) -> bool {
        self.etag.len() == 64 && self.etag.chars().all(|c| c.is_ascii_hexdigit())
    }

    /// Whether there is a file of the right size.
    fn is_size_of(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| self.size.is_none_or(|size| found.len() == size))
    }
}

/// Whether an answer continues a file of this length.
fn goes_on_at(length: u64, status: StatusCode, headers: &HeaderMap) -> bool {
    let range = headers.get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok());
    status == StatusCode::PARTIAL_CONTENT && start == Some(length)
}

fn body_error(url: &str, error: io::Error) -> HubError {
    transport_error(url, &ureq::Error::from(error))
}

fn sha256(path: &Path) -> io::Result<String> {
    use std::fmt::Write as _;
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        hasher.update(&chunk[..read]);
    }
    let mut text = String::new();
    for byte in hasher.finalize() {
        // Writing to a string cannot fail.
        _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
