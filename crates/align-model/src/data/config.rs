//! Which files hold the data, how they are written and how several of them become one data set.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use crate::number::Positive;

/// A data set: one source or several.
///
/// In a file it is a path, a table with the keys of [`SourceConfig`], a list of either, or a table with the keys of this
/// type.
///
/// ```
/// use align_model::data::DatasetConfig;
/// # use serde_json::{from_value, json};
///
/// let short: DatasetConfig = from_value(json!("train.jsonl"))?;
/// let table: DatasetConfig = from_value(json!({"path": "train.jsonl"}))?;
/// let long: DatasetConfig = from_value(json!({"sources": [{"path": "train.jsonl"}]}))?;
/// assert_eq!(short, table);
/// assert_eq!(short, long);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DatasetConfig {
    /// Where the records come from.
    pub sources: Vec<SourceConfig>,
    /// How the records of several sources follow each other.
    pub combine: Combine,
}

/// One source of records: a file, or several of one kind.
///
/// In a file it is a table with these keys, or only its path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct SourceConfig {
    /// A file, a directory (all data files in it, by name), or a pattern with `*` and `?` in its last part.
    pub path: String,
    /// How the files are written; unless given, their names tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// How the files are compressed; unless given, their names tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Of a JSON file that is one object: the field whose list holds the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Columns to rename: the name that a record needs = the name in the file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// How conversations are written, if not as messages with `role` and `content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<Transcript>,
    /// What becomes of a row that is not the record that was asked for.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// Rows to pass over at the beginning.
    #[serde(default)]
    pub skip: usize,
    /// Rows to read after those, at most; all, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The source's share of an interleaved data set, relative to the others'; 1 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Positive>,
}

/// How a data file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// One JSON object a line.
    Jsonl,
    /// One JSON array of objects, or objects one after another, or an object with a field that is such an array.
    Json,
    /// Comma-separated values under a header.
    Csv,
    /// Tab-separated values under a header.
    Tsv,
    /// Parquet, with nested columns; needs the feature `parquet`.
    Parquet,
}

/// How a data file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, one member or several: `.gz`.
    Gzip,
    /// Zstandard, one frame or several: `.zst`.
    Zstd,
}

/// Conversations that are not lists of messages with `role` and `content`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Transcript {
    /// One string: `"\n\nHuman: …\n\nAssistant: …"`, as in Anthropic's `hh-rlhf`.
    Anthropic,
    /// Messages with `from` (`system`, `human`, `gpt`, …) and `value`, in a column `conversations` or any other.
    ShareGpt,
}

/// What becomes of a row that is not the record that was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadRow {
    /// Reading stops with an error that names it.
    #[default]
    Stop,
    /// It is left out and counted in [`SkippedRows`](super::SkippedRows).
    Skip,
}

/// How the records of several sources follow each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Combine {
    /// One source after the other.
    #[default]
    Concatenate,
    /// Every record comes from a source drawn at random, with probabilities in proportion to the sources' `weight`.
    Interleave {
        /// When the data set ends.
        #[serde(default)]
        stop: Exhaustion,
        /// Seed of the draws.
        #[serde(default)]
        seed: u64,
    },
}

/// When an interleaved data set ends; the names are those of `datasets.interleave_datasets`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exhaustion {
    /// With the last record of the source that runs out first; no record is seen twice.
    #[default]
    FirstExhausted,
    /// When every source has run out once; one that runs out before begins again.
    AllExhausted,
}

/// The configuration of a data set contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetConfigError {
    /// There is nothing to read.
    #[error("`sources` is empty: name at least one file")]
    NoSources,
    /// A weight has no meaning where sources follow one another.
    #[error("{path} has a `weight`, which needs `combine` = {{ kind = \"interleave\" }}")]
    UnusedWeight {
        /// The source.
        path: String,
    },
    /// Only JSON files have fields.
    #[error("{path} has a `field`, which only JSON files have")]
    UnusedField {
        /// The source.
        path: String,
    },
    /// A source that may not give any row.
    #[error("{path} has `limit` = 0: leave the source out")]
    NoRows {
        /// The source.
        path: String,
    },
}

impl DatasetConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// If there are no sources, or one has a setting without effect.
    pub fn check(&self) -> Result<(), DatasetConfigError> {
        if self.sources.is_empty() {
            return Err(DatasetConfigError::NoSources);
        }
        for source in &self.sources {
            let path = || source.path.clone();
            if source.weight.is_some() && self.combine == Combine::Concatenate {
                return Err(DatasetConfigError::UnusedWeight { path: path() });
            }
            if source.field.is_some() && source.format.is_some_and(|format| format != Format::Json) {
                return Err(DatasetConfigError::UnusedField { path: path() });
            }
            if source.limit == Some(0) {
                return Err(DatasetConfigError::NoRows { path: path() });
            }
        }
        Ok(())
    }
}

impl SourceConfig {
    /// All records of a file, as its name says that it is written.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            format: None,
            compression: None,
            field: None,
            columns: BTreeMap::new(),
            transcript: None,
            on_bad_row: OnBadRow::default(),
            skip: 0,
            limit: None,
            weight: None,
        }
    }

    /// Takes the column `ours` of a record from the column `theirs` of the file.
    #[must_use]
    pub fn column(mut self, ours: impl Into<String>, theirs: impl Into<String>) -> Self {
        self.columns.insert(ours.into(), theirs.into());
        self
    }
}

impl From<SourceConfig> for DatasetConfig {
    fn from(source: SourceConfig) -> Self {
        Self { sources: vec![source], combine: Combine::default() }
    }
}

impl From<&str> for DatasetConfig {
    fn from(path: &str) -> Self {
        SourceConfig::new(path).into()
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jsonl => "JSONL",
            Self::Json => "JSON",
            Self::Csv => "CSV",
            Self::Tsv => "TSV",
            Self::Parquet => "Parquet",
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

impl Serialize for SourceConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for SourceConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourceVisitor)
    }
}

impl<'de> Deserialize<'de> for DatasetConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DatasetVisitor)
    }
}

struct SourceVisitor;

impl<'de> de::Visitor<'de> for SourceVisitor {
    type Value = SourceConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the path of a data file, or a table with `path`")
    }

    fn visit_str<E: de::Error>(self, path: &str) -> Result<SourceConfig, E> {
        Ok(SourceConfig::new(path))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<SourceConfig, A::Error> {
        SourceConfig::deserialize(de::value::MapAccessDeserializer::new(map))
    }
}

struct DatasetVisitor;

impl<'de> de::Visitor<'de> for DatasetVisitor {
    type Value = DatasetConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the path of a data file, a list of them, or a table with `path` or `sources`")
    }

    fn visit_str<E: de::Error>(self, path: &str) -> Result<DatasetConfig, E> {
        Ok(path.into())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<DatasetConfig, A::Error> {
        let sources = Vec::deserialize(de::value::SeqAccessDeserializer::new(list))?;
        Ok(DatasetConfig { sources, combine: Combine::default() })
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<DatasetConfig, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Several {
            sources: Vec<SourceConfig>,
            #[serde(default)]
            combine: Combine,
        }
        let table = Value::Object(Map::deserialize(de::value::MapAccessDeserializer::new(map))?);
        if table.get("sources").is_none() {
            let source: SourceConfig = serde_json::from_value(table).map_err(de::Error::custom)?;
            return Ok(source.into());
        }
        let Several { sources, combine } = serde_json::from_value(table).map_err(de::Error::custom)?;
        Ok(DatasetConfig { sources, combine })
    }
}
