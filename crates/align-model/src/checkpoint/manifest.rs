//! What a checkpoint says of itself.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{CheckpointError, Fingerprint, RunIdentity};

/// The version of the format that is written and read.
pub(super) const FORMAT: u64 = 1;
/// The file's name.
pub(super) const MANIFEST: &str = "manifest.json";

/// What a checkpoint says of itself, in `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format.
    pub format: u64,
    /// Steps made.
    pub step: u64,
    /// Steps in all.
    pub total_steps: u64,
    /// Batches taken from their source; a resumed run skips as many.
    pub batches_taken: u64,
    /// Whether the run is over, by its last step or because a hook ended it.
    pub finished: bool,
    /// What was measured at this step; numbers that are not finite are left out.
    pub metrics: BTreeMap<String, f64>,
    /// The run that it belongs to.
    pub identity: RunIdentity,
    /// The other files of the directory.
    pub files: BTreeMap<String, CheckpointFile>,
}

/// A file as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointFile {
    /// Size.
    pub bytes: u64,
    /// Of its contents.
    pub sha256: Fingerprint,
}

impl Manifest {
    /// The file's text: the manifest and its own checksum.
    pub(super) fn to_text(&self) -> serde_json::Result<String> {
        let manifest = serde_json::to_value(self)?;
        let sha256 = Fingerprint::of_json(&manifest)?;
        serde_json::to_string_pretty(&json!({ "manifest": manifest, "sha256": sha256 }))
    }

    /// Reads the manifest of a checkpoint and compares the sizes of its files, but not their contents.
    pub(super) fn read(checkpoint: &Path) -> Result<Self, CheckpointError> {
        let path = checkpoint.join(MANIFEST);
        let malformed = |reason: String| CheckpointError::Malformed { path: path.clone(), reason };
        let text = fs::read(&path).map_err(|source| io_error("read", &path, source))?;
        let document: Value = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        let manifest = &document["manifest"];
        if let Some(found) = manifest["format"].as_u64().filter(|&found| found != FORMAT) {
            return Err(CheckpointError::Format { path, found, known: FORMAT });
        }
        let sha256 = Fingerprint::of_json(manifest).map_err(|error| malformed(error.to_string()))?;
        if document["sha256"].as_str() != Some(sha256.as_str()) {
            return Err(CheckpointError::Checksum { path });
        }
        let manifest = Self::deserialize(manifest).map_err(|error| malformed(error.to_string()))?;
        for (name, file) in &manifest.files {
            let path = checkpoint.join(name);
            let found = fs::metadata(&path).map_err(|source| io_error("read", &path, source))?.len();
            if found != file.bytes {
                return Err(CheckpointError::Size { path, found, expected: file.bytes });
            }
        }
        Ok(manifest)
    }

    /// Compares the contents of all files with what was written.
    pub(super) fn verify(&self, checkpoint: &Path) -> Result<(), CheckpointError> {
        for (name, file) in &self.files {
            let path = checkpoint.join(name);
            let found = Fingerprint::of_file(&path).map_err(|source| io_error("read", &path, source))?;
            if found != file.sha256 {
                return Err(CheckpointError::Checksum { path });
            }
        }
        Ok(())
    }
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Io { action, path: path.into(), source }
}
