//! A server, an empty cache, and what is done with them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use align_model::hub::{
    Access, DownloadEvent, Hub, HubDataset, HubError, HubModel, HubReference, HubSettings, Retries, Secret,
};
use tempfile::TempDir;

use crate::server::Server;

pub(crate) struct Workplace {
    pub(crate) server: Server,
    pub(crate) cache: TempDir,
    pub(crate) settings: HubSettings,
}

impl Workplace {
    pub(crate) fn new() -> Self {
        let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
        let retries = Retries {
            attempts: 3,
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(1500),
        };
        let settings = HubSettings {
            endpoint: server.endpoint.clone(),
            retries,
            // Longer than any pause of a busy machine.
            silence: Duration::from_secs(20),
            ..HubSettings::new(cache.path())
        };
        Self { server, cache, settings }
    }

    pub(crate) fn hub(&self) -> Hub {
        Hub::new(self.settings.clone()).unwrap()
    }

    pub(crate) fn offline(&self) -> Hub {
        Hub::new(HubSettings { access: Access::Offline, ..self.settings.clone() }).unwrap()
    }

    pub(crate) fn with_token(&self, token: &str) -> Hub {
        Hub::new(HubSettings { token: Some(Secret::new(token)), ..self.settings.clone() }).unwrap()
    }

    pub(crate) fn model(&self, name: &str) -> Result<HubModel, HubError> {
        model(&self.hub(), name)
    }

    /// Everything in the cache that a reader of snapshots can see, by path and content.
    pub(crate) fn visible(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        for repository in fs::read_dir(self.cache.path()).unwrap().flatten() {
            collect(&repository.path().join("snapshots"), &mut found);
        }
        found.sort();
        found
    }

    /// Names in the blobs directory of a model.
    pub(crate) fn blobs(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.cache.path().join(folder).join("blobs")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

pub(crate) fn reference(name: &str) -> HubReference {
    name.parse().unwrap()
}

pub(crate) fn model(hub: &Hub, name: &str) -> Result<HubModel, HubError> {
    hub.model(&reference(name), &mut |_| {})
}

pub(crate) fn dataset(hub: &Hub, name: &str) -> Result<HubDataset, HubError> {
    hub.dataset(&reference(name), &mut |_| {})
}

/// A model, and the events on the way in short.
pub(crate) fn model_with_events(hub: &Hub, name: &str) -> (Result<HubModel, HubError>, Vec<String>) {
    let mut events = Vec::new();
    let model = hub.model(&reference(name), &mut |event| match event {
        DownloadEvent::Started { file, size, present } => {
            events.push(format!("started {file} {} of {}", present, size.unwrap()));
        }
        DownloadEvent::Finished { file } => events.push(format!("finished {file}")),
        DownloadEvent::Restarted => events.push("restarted".into()),
        DownloadEvent::Waiting { reason, .. } => events.push(format!("waiting: {reason}")),
        DownloadEvent::Cached { .. } => events.push("cached".into()),
        DownloadEvent::Shared { file } => events.push(format!("shared {file}")),
        _ => {}
    });
    (model, events)
}

/// A directory of the repository's own golden files.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

#[track_caller]
pub(crate) fn fails<T: std::fmt::Debug>(result: Result<T, HubError>, expected: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

fn collect(directory: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.push((path.clone(), fs::read(path).unwrap()));
        }
    }
}
