//! Whether a data set is still the one that a run began with.

use std::{fmt, io, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{DataError, DatasetConfig, SourceConfig, file::DataFile};

/// A digest of the content of a data set's files and of how they are read; where the files lie does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

/// A text is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a fingerprint: expected 64 hexadecimal digits")]
pub struct FingerprintError {
    /// The text.
    pub text: String,
}

impl Fingerprint {
    /// The fingerprint of a data set. Reads every file, as it is stored: one that is compressed anew is another.
    ///
    /// # Errors
    /// If the configuration contradicts itself or a file cannot be read.
    pub fn of(config: &DatasetConfig) -> Result<Self, DataError> {
        config.check()?;
        let mut digest = Sha256::new();
        // Every part ends with its own length, so that none can run into the next.
        let mut add = |part: &[u8]| {
            digest.update(part);
            digest.update((part.len() as u64).to_le_bytes());
        };
        add(&json(&config.combine));
        for source in &config.sources {
            let files = DataFile::of(source)?;
            add(&json(&SourceConfig { path: String::new(), ..source.clone() }));
            for file in files {
                add(&json(&(file.format, file.compression)));
                add(&content(&file)?);
            }
        }
        Ok(Self(digest.finalize().into()))
    }
}

/// Settings as JSON, which leaves out what is not set: a setting that later versions add changes no fingerprint.
fn json(settings: &impl Serialize) -> Vec<u8> {
    // Nothing but maps with keys that are no strings cannot be written.
    serde_json::to_vec(settings).unwrap_or_default()
}

/// The digest of a file's bytes.
fn content(file: &DataFile) -> Result<[u8; 32], DataError> {
    let unreadable = |source| DataError::Read { path: file.path.to_path_buf(), source };
    let mut content = std::fs::File::open(&file.path).map_err(unreadable)?;
    let mut digest = Digester(Sha256::new());
    io::copy(&mut content, &mut digest).map_err(unreadable)?;
    Ok(digest.0.finalize().into())
}

struct Digester(Sha256);

impl io::Write for Digester {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let wrong = || FingerprintError { text: text.to_owned() };
        let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len() == 64).ok_or_else(wrong)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8);
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = FingerprintError;

    fn try_from(text: String) -> Result<Self, FingerprintError> {
        text.parse()
    }
}
