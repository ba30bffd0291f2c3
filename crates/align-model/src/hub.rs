//! Models and datasets of the Hugging Face Hub, in the cache that Python's `huggingface_hub` shares.
//!
//! A [`Hub`] is asked for a model or a dataset by its name and answers with files of this machine, having downloaded
//! those that were not there: only what is read, in the order small to large, each checked against the size and, where
//! the Hub tells it, the SHA-256 before it becomes visible. What is interrupted goes on where it stopped, next time by
//! whoever asks next. Everything that is decided outside — address, token, cache, offline — is in [`HubSettings`].
//!
//! # Example
//! ```no_run
//! use align_model::{hub::{Hub, HubSettings}, pretrained::Checkpoint};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::new(HubSettings::new("/home/me/.cache/huggingface/hub"))?;
//! let model = hub.model(&"HuggingFaceTB/SmolLM2-135M-Instruct".parse()?, &mut |event| eprintln!("{event:?}"))?;
//! let checkpoint = Checkpoint::open(&model.path)?;
//! # Ok(())
//! # }
//! ```

mod cache;
mod client;
mod dataset_files;
mod download;
mod error;
mod event;
mod model_files;
mod patience;
mod reference;
mod repository;
mod settings;

use std::path::PathBuf;

use hf_hub::api::RepoInfo;

use cache::{CachedSnapshot, RepositoryCache};
use client::Client;
use download::Download;
use model_files::Weights;
use repository::Asked;

pub use error::HubError;
pub use event::{DownloadEvent, DownloadListener};
pub use reference::{HubReference, Location};
pub use repository::RepositoryKind;
pub use settings::{Access, HubSettings, Retries, Secret};

/// The Hub and the part of it that is on this machine.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    settings: HubSettings,
}

/// A model of the Hub on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    /// A directory or a GGUF file, for [`Checkpoint::open`](crate::pretrained::Checkpoint::open).
    pub path: PathBuf,
    /// The commit that the revision is.
    pub commit: String,
}

/// A dataset of the Hub on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubDataset {
    /// The files, in the dataset's order.
    pub files: Vec<PathBuf>,
    /// The commit that the revision is.
    pub commit: String,
}

impl Hub {
    /// A Hub with these settings. Nothing is requested yet.
    ///
    /// # Errors
    /// If the endpoint, the token or the proxy cannot be one.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        Ok(Self { client: Client::new(&settings)?, settings })
    }

    /// A model: its weights as safetensors with configuration, tokenizer and chat templates, or a GGUF file. Of several
    /// GGUF files the reference names one, `owner/name:file.gguf`, or what only its name holds, `owner/name:Q4_K_M`.
    ///
    /// # Errors
    /// If the repository cannot be had, holds no weights that can be read, or several between which the reference does
    /// not decide; and if a file cannot be downloaded as the Hub describes it.
    pub fn model(
        &self,
        reference: &HubReference,
        listener: &mut DownloadListener<'_>,
    ) -> Result<HubModel, HubError> {
        let asked = Asked::new(RepositoryKind::Model, reference);
        self.with_revision(asked, listener, |revision, listener| {
            let path = revision.model(reference, listener)?;
            Ok(HubModel { path, commit: revision.commit.clone() })
        })
    }

    /// The files of a dataset: those of its training split, or of the split, subset, `subset/split` or file that the
    /// reference names, `owner/name:test`.
    ///
    /// # Errors
    /// If the repository cannot be had, holds no data in a known format, or several parts between which the reference
    /// does not decide; and if a file cannot be downloaded as the Hub describes it.
    pub fn dataset(
        &self,
        reference: &HubReference,
        listener: &mut DownloadListener<'_>,
    ) -> Result<HubDataset, HubError> {
        let asked = Asked::new(RepositoryKind::Dataset, reference);
        self.with_revision(asked, listener, |revision, listener| {
            let files = revision.dataset(reference, listener)?;
            Ok(HubDataset { files, commit: revision.commit.clone() })
        })
    }

    /// One file of a repository, by its path there.
    ///
    /// # Errors
    /// If the repository or the file cannot be had as the Hub describes it.
    pub fn file(
        &self,
        kind: RepositoryKind,
        reference: &HubReference,
        file: &str,
        listener: &mut DownloadListener<'_>,
    ) -> Result<PathBuf, HubError> {
        let asked = Asked::new(kind, reference);
        self.with_revision(asked, listener, |revision, listener| revision.get(file, listener))
    }

    /// Finds out what a revision is, lets `fetch` get files of it, and remembers the revision once they are all there.
    fn with_revision<T>(
        &self,
        asked: Asked<'_>,
        listener: &mut DownloadListener<'_>,
        fetch: impl Fn(&Revision<'_>, &mut DownloadListener<'_>) -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        if self.settings.access == Access::Offline {
            let revision = self.cached(asked)?.ok_or_else(|| self.not_cached(asked.to_string()))?;
            return fetch(&revision, listener);
        }
        match self.listed(asked, listener) {
            Ok(revision) => {
                let fetched = fetch(&revision, listener)?;
                revision.cache.remember(asked.revision, &revision.commit)?;
                Ok(fetched)
            }
            Err(reason) if reason.is_transient() || matches!(reason, HubError::Unreachable { .. }) => {
                let Ok(Some(revision)) = self.cached(asked) else { return Err(reason) };
                let Ok(fetched) = fetch(&revision, listener) else { return Err(reason) };
                listener(DownloadEvent::Cached { reason: &reason });
                Ok(fetched)
            }
            Err(error) => Err(error),
        }
    }

    /// A revision as the Hub has it.
    fn listed<'a>(
        &'a self,
        asked: Asked<'a>,
        listener: &mut DownloadListener<'_>,
    ) -> Result<Revision<'a>, HubError> {
        let url = asked.listing_url(self.client.endpoint());
        let listing = || self.client.json::<RepoInfo>(&url, asked);
        let RepoInfo { siblings, sha } = patience::retrying(self.settings.retries, listener, listing)?;
        // Both become paths of the cache.
        if !reference::is_inside(&sha) || sha.contains('/') {
            return Err(HubError::Answer { url, reason: format!("`{sha}` is not a commit") });
        }
        let files = siblings.into_iter().map(|sibling| sibling.rfilename);
        let files = files.filter(|file| reference::is_inside(file)).collect();
        Ok(self.revision(asked, CachedSnapshot { commit: sha, files }, Source::Hub))
    }

    /// A revision as far as it is in the cache.
    fn cached<'a>(&'a self, asked: Asked<'a>) -> Result<Option<Revision<'a>>, HubError> {
        let snapshot = RepositoryCache::new(&self.settings.cache, asked).cached(asked.revision)?;
        Ok(snapshot.map(|snapshot| self.revision(asked, snapshot, Source::Cache)))
    }

    fn revision<'a>(&'a self, asked: Asked<'a>, snapshot: CachedSnapshot, source: Source) -> Revision<'a> {
        let cache = RepositoryCache::new(&self.settings.cache, asked);
        let CachedSnapshot { commit, files } = snapshot;
        Revision { hub: self, asked, cache, commit, files, source }
    }

    fn not_cached(&self, what: String) -> HubError {
        HubError::NotCached { what, cache: self.settings.cache.clone() }
    }
}

/// Who says which files there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Hub,
    Cache,
}

/// A repository at a commit.
#[derive(Debug)]
struct Revision<'a> {
    hub: &'a Hub,
    asked: Asked<'a>,
    cache: RepositoryCache,
    commit: String,
    files: Vec<String>,
    source: Source,
}

impl Revision<'_> {
    fn model(
        &self,
        reference: &HubReference,
        listener: &mut DownloadListener<'_>,
    ) -> Result<PathBuf, HubError> {
        let weights = model_files::weights(self.asked.repository, &self.files, reference.part());
        let weights = weights.map_err(|error| {
            let missing = reference.part().unwrap_or(model_files::WEIGHTS);
            if self.source == Source::Cache { self.not_cached(missing) } else { error }
        })?;
        if let Weights::Gguf(file) = weights {
            return self.get(file, listener);
        }
        if self.source == Source::Cache && !self.files.iter().any(|file| file == model_files::CONFIG) {
            return Err(self.not_cached(model_files::CONFIG));
        }
        // The weights last: where they are, the rest is.
        for file in model_files::companions(&self.files) {
            self.get(file, listener)?;
        }
        match weights {
            Weights::Single(file) | Weights::Gguf(file) => _ = self.get(file, listener)?,
            Weights::Sharded(index) => {
                for shard in model_files::shards(&self.get(index, listener)?)? {
                    self.get(&shard, listener)?;
                }
            }
        }
        Ok(self.cache.snapshot(&self.commit))
    }

    fn dataset(
        &self,
        reference: &HubReference,
        listener: &mut DownloadListener<'_>,
    ) -> Result<Vec<PathBuf>, HubError> {
        let part = reference.part();
        let files = dataset_files::select(self.asked.repository, &self.files, part);
        let files = files.map_err(|error| match (self.source, &error) {
            (Source::Cache, HubError::NoData { .. } | HubError::Choice { .. }) => {
                self.not_cached(part.unwrap_or("the training split"))
            }
            _ => error,
        })?;
        if self.source == Source::Cache
            && part != files.first().map(String::as_str)
            && let Some(missing) = dataset_files::missing_shard(&files)
        {
            return Err(self.not_cached(&missing));
        }
        files.iter().map(|file| self.get(file, listener)).collect()
    }

    /// A file, downloaded if need be.
    fn get(&self, file: &str, listener: &mut DownloadListener<'_>) -> Result<PathBuf, HubError> {
        let asked = self.asked.file(file);
        let (client, retries) = (&self.hub.client, self.hub.settings.retries);
        match self.source {
            Source::Hub => {
                let (cache, commit) = (&self.cache, self.commit.as_str());
                Download { client, cache, retries, asked, commit, file }.run(listener)
            }
            Source::Cache if self.files.iter().any(|known| known == file) => {
                Ok(self.cache.file(&self.commit, file))
            }
            Source::Cache => Err(self.not_cached(file)),
        }
    }

    fn not_cached(&self, file: &str) -> HubError {
        self.hub.not_cached(self.asked.file(file).to_string())
    }
}
