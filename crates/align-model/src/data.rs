//! Training data: the shapes that a record may have, and how a file of records is read.
//!
//! Column names and record shapes are those of TRL's dataset formats, *standard* (strings) and *conversational*
//! (lists of messages), so that data made for TRL loads without conversion:
//!
//! | record | columns |
//! |---|---|
//! | [`SftRecord::PromptCompletion`], [`SftRecord::PromptCompletionChat`] | `prompt`, `completion` |
//! | [`SftRecord::Conversation`] | `messages` |
//! | [`SftRecord::Text`] | `text` |
//! | [`PromptRecord`] | `prompt` |
//! | [`PreferenceRecord`] | `chosen`, `rejected`, with `prompt` or without; `margin` if there is one |
//! | [`TripleRecord`] | the same, and `reference`, a completion to imitate, if there is one |
//! | [`UnpairedRecord`] | `prompt`, `completion`, `label` |
//! | [`StepwiseRecord`] | `prompt`, `completions`, `labels` |
//!
//! Conversational rows may also carry `tools` and `chat_template_kwargs`. Every other column is kept in
//! [`Located::extra`]; [`extra_columns`] counts them for a run's summary. A column that is `null` counts as absent,
//! because converters from columnar formats write one for every missing value.
//!
//! A [`DatasetConfig`] says which files are read, how they are written, which columns are meant and how several sources
//! are mixed. [`read()`] reads it into memory, [`stream()`] record by record, [`Passes`] without end and shuffled;
//! [`ShuffledBatches`] orders what is in memory. Both orders are functions of data, configuration and seed: a run resumes
//! by skipping what it has seen.
//!
//! A new kind of record implements [`Record`]; formats, positions and errors come for free.

mod config;
mod error;
mod file;
mod fingerprint;
mod hint;
mod interleave;
mod json;
mod jsonl;
mod messages;
mod order;
#[cfg(feature = "parquet")]
mod parquet_file;
mod passes;
mod preference;
mod prompt;
mod record_error;
mod row;
mod rows;
mod sft;
mod shuffle;
mod source;
mod stepwise;
mod stream;
mod table;
mod transcript;
mod triple;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde_json::{Map, Value};

pub use config::{
    Combine, Compression, DatasetConfig, DatasetConfigError, Exhaustion, Format, OnBadRow, SourceConfig,
    Transcript,
};
pub use error::DataError;
pub use fingerprint::{Fingerprint, FingerprintError};
pub use jsonl::read_jsonl;
pub use order::ShuffledBatches;
pub use passes::{Batched, Passes};
pub use preference::{PreferenceRecord, UnpairedRecord};
pub use prompt::PromptRecord;
pub use record_error::RecordError;
pub use row::{Form, Row};
pub use sft::{SftRecord, TemplateColumns};
pub use shuffle::ShuffleWindow;
pub use source::SkippedRows;
pub use stepwise::StepwiseRecord;
pub use stream::{Dataset, RecordStream, read, stream};
pub use transcript::TranscriptError;
pub use triple::{GoldCompletion, TripleRecord};

/// A kind of training example that one row of a data file can hold.
pub trait Record: Sized {
    /// Takes the columns of this record out of `row`; what is left in `row` are extra columns.
    ///
    /// # Errors
    /// Says which columns or messages are not what this record needs, and how to put them right.
    fn from_row(row: &mut Row) -> Result<Self, RecordError>;
}

/// A record together with the place that it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Located<R> {
    /// The source, by its place in [`DatasetConfig::sources`]; the first one is 0.
    pub source: usize,
    /// The file.
    pub path: Arc<Path>,
    /// The line in that file, of a Parquet file the row; the first one is 1.
    pub line: usize,
    /// What stands there.
    pub record: R,
    /// Columns that the record has no use for, as they stand in the file.
    pub extra: Map<String, Value>,
}

/// How many of `records` have each extra column, by name.
#[must_use]
pub fn extra_columns<R>(records: &[Located<R>]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for column in records.iter().flat_map(|located| located.extra.keys()) {
        *counts.entry(column.clone()).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
