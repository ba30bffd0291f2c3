//! Files to read.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use align_model::data::{DatasetConfig, Located, SftRecord, SourceConfig};
use tempfile::TempDir;

/// A directory of its own for a test.
pub(crate) struct Files {
    directory: TempDir,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file, compressed as its name says.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> SourceConfig {
        let path = self.path(name);
        std::fs::write(&path, compressed(&path, content.as_ref())).unwrap();
        self.source(name)
    }

    /// Writes rows of `text` into a JSONL file.
    pub(crate) fn texts(&self, name: &str, texts: impl IntoIterator<Item = String>) -> SourceConfig {
        let rows = texts.into_iter().map(|text| serde_json::json!({ "text": text }).to_string() + "\n");
        self.write(name, rows.collect::<String>())
    }

    pub(crate) fn source(&self, name: &str) -> SourceConfig {
        SourceConfig::new(self.path(name).to_str().unwrap())
    }
}

pub(crate) fn compressed(path: &Path, content: &[u8]) -> Vec<u8> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz") => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        Some("zst") => zstd::encode_all(content, 0).unwrap(),
        _ => content.to_vec(),
    }
}

/// The texts of a data set, in order.
pub(crate) fn read_texts(config: impl Into<DatasetConfig>) -> Vec<String> {
    let data = align_model::data::read::<SftRecord>(&config.into()).unwrap();
    data.records.into_iter().map(text).collect()
}

pub(crate) fn text(located: Located<SftRecord>) -> String {
    match located.record {
        SftRecord::Text { text } => text,
        other => panic!("{other:?}"),
    }
}

/// The numbers below `count`, each with a prefix.
pub(crate) fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}
