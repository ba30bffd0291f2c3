//! Precomputed log-probabilities in a file that knows what it belongs to.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use align_model::{
    causal_lm::CausalLm,
    checkpoint::{Fingerprint, StateError},
    train::fingerprint_of,
};
use serde::{Deserialize, Serialize};

use super::precomputed::{CompletionKey, ReferenceLogProbs};

/// The layout of the file; another one is not read.
const FORMAT: u32 = 1;

/// What precomputed log-probabilities belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheKey {
    /// The reference: names, shapes and bits of its parameters.
    pub reference: Fingerprint,
    /// What it was asked about: the examples, as tokens, and what else decides it.
    pub examples: Fingerprint,
}

/// A file of log-probabilities could not be written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not one, or was cut off.
    #[error("{} is no file of reference log-probabilities: {reason}; delete it to compute them anew", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The log-probabilities are another model's.
    #[error(
        "{} was computed with other reference weights ({found}, these are {expected}): delete it to compute it anew",
        path.display()
    )]
    OtherReference {
        /// The file.
        path: PathBuf,
        /// Whose they are.
        found: Fingerprint,
        /// Whose they should be.
        expected: Fingerprint,
    },
    /// The log-probabilities are of other examples.
    #[error(
        "{} was computed of other examples ({found}, these are {expected}): data, template, tokenizer, `max_length` or, for `kto`, batches changed; delete it to compute it anew",
        path.display()
    )]
    OtherExamples {
        /// The file.
        path: PathBuf,
        /// Of what they are.
        found: Fingerprint,
        /// Of what they should be.
        expected: Fingerprint,
    },
    /// The weights cannot be read from their device.
    #[error("the reference's weights cannot be read")]
    Weights(#[from] StateError),
    /// The examples cannot be written as JSON.
    #[error("the examples cannot be written as JSON")]
    Examples(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    key: CacheKey,
    /// Of what follows the header.
    sha256: Fingerprint,
}

impl CacheKey {
    /// The key of what this reference says of these examples. Where it depends on more, as it does on batches where
    /// completions are exchanged, `examples` is everything that it depends on.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub fn new<M: CausalLm, E: Serialize + ?Sized>(reference: &M, examples: &E) -> Result<Self, CacheError> {
        Ok(Self { reference: fingerprint_of(reference)?, examples: Fingerprint::of_json(examples)? })
    }
}

impl ReferenceLogProbs {
    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path, key: &CacheKey) -> Result<(), CacheError> {
        let mut body = Vec::new();
        for (completion, values) in &self.of_completions {
            body.extend_from_slice(completion);
            body.extend_from_slice(&(values.len() as u32).to_le_bytes());
            body.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        let header = Header { format: FORMAT, key: key.clone(), sha256: Fingerprint::of_bytes(&body) };
        let header = serde_json::to_vec(&header)?;
        let write = || {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let directory = directory.unwrap_or(Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(&header)?;
            file.write_all(b"\n")?;
            file.write_all(&body)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|source| CacheError::Io { action: "write", path: path.into(), source })
    }

    /// Reads a file that belongs to `key`.
    ///
    /// # Errors
    /// If it cannot be read, was cut off or changed, or belongs to another reference or other examples.
    pub fn load(path: &Path, key: &CacheKey) -> Result<Self, CacheError> {
        let bytes =
            fs::read(path).map_err(|source| CacheError::Io { action: "read", path: path.into(), source })?;
        let malformed = |reason: &str| CacheError::Malformed { path: path.into(), reason: reason.into() };
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let (header, body) = bytes.split_at(end.ok_or_else(|| malformed("it has no header"))?);
        let body = &body[1..];
        let Header { format, key: found, sha256 } =
            serde_json::from_slice(header).map_err(|error| malformed(&error.to_string()))?;
        if format != FORMAT {
            return Err(malformed(&format!("its format is {format}, and this program knows {FORMAT}")));
        }
        let path = path.to_path_buf();
        if found.reference != key.reference {
            let (found, expected) = (found.reference, key.reference.clone());
            return Err(CacheError::OtherReference { path, found, expected });
        }
        if found.examples != key.examples {
            let (found, expected) = (found.examples, key.examples.clone());
            return Err(CacheError::OtherExamples { path, found, expected });
        }
        if sha256 != Fingerprint::of_bytes(body) {
            return Err(malformed("its contents are not what its header says"));
        }
        parse(body).ok_or_else(|| malformed("it ends within an entry"))
    }
}

/// The entries of a file, one after another.
fn parse(mut body: &[u8]) -> Option<ReferenceLogProbs> {
    let mut known = ReferenceLogProbs::default();
    while !body.is_empty() {
        let (key, rest) = body.split_first_chunk::<{ size_of::<CompletionKey>() }>()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let (values, rest) = rest.split_at_checked(4 * u32::from_le_bytes(*count) as usize)?;
        let (words, _) = values.as_chunks::<4>();
        known.of_completions.insert(*key, words.iter().map(|&word| f32::from_le_bytes(word)).collect());
        body = rest;
    }
    Some(known)
}
