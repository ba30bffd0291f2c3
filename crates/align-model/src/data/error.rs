//! What can be wrong with a data file.

use std::{io, path::PathBuf};

use super::{Compression, DatasetConfigError, Format, RecordError};

/// A data file could not be turned into records.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The configuration contradicts itself.
    #[error("the configuration of the data contradicts itself")]
    Config(#[from] DatasetConfigError),
    /// The operating system refused the file.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A directory or a pattern stands for no file.
    #[error(
        "{}: no data file: neither the path nor the pattern matches a file that ends in .jsonl, .json, .csv, .tsv or \
         .parquet, with or without .gz or .zst",
        .path.display()
    )]
    NoFiles {
        /// The directory or pattern.
        path: PathBuf,
    },
    /// The name of a file does not tell its format.
    #[error(
        "{}: the name does not tell the format: say `format` = \"jsonl\", \"json\", \"csv\", \"tsv\" or \"parquet\"",
        .path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The format needs a feature that this program was built without.
    #[error("{}: reading {format} files needs the cargo feature `{feature}`", .path.display())]
    Feature {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: Format,
        /// The feature.
        feature: &'static str,
    },
    /// A file ends before its end.
    #[error("{}: the file is cut off: its {part} does not end; copy or download it again", .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What does not end: a compressed stream or a Parquet file.
        part: &'static str,
    },
    /// A file is not compressed the way its name or the configuration says, or damaged.
    #[error("{}: not valid {compression} data: the file is damaged, or `compression` is another", .path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// How it should be compressed.
        compression: Compression,
        /// The decoder's answer.
        #[source]
        source: io::Error,
    },
    /// The file holds no record at all.
    #[error("{}: no records: the file is empty or holds no row", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file holds rows, but none of them is left.
    #[error("{}: no records: of {rows} rows, {passed} were passed over and {bad} are not what was asked for{}",
        .path.display(), .first.as_ref().map_or_else(String::new, |first| format!(", the first: {first}")))]
    NoneLeft {
        /// The source.
        path: PathBuf,
        /// The rows that were read.
        rows: usize,
        /// Rows that `skip` passed over.
        passed: usize,
        /// Bad rows that were skipped.
        bad: usize,
        /// What was wrong with the first of those.
        first: Option<Box<DataError>>,
    },
    /// A line is not text.
    #[error(
        "{}:{line}:{column}: not valid UTF-8: convert the file to UTF-8; where its name does not tell that it is \
         compressed or binary, say its `compression` or `format`",
        .path.display()
    )]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The first offending byte of the line, from 1.
        column: usize,
    },
    /// A line is not one JSON object.
    #[error("{}:{line}:{column}: not a JSON object: {}", .path.display(), without_position(.error))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The byte of the line where reading stopped, from 1.
        column: usize,
        /// What was expected there. Not a `source`: its own line number counts from the start of the line.
        error: serde_json::Error,
    },
    /// The file is one JSON array instead of one object a line.
    #[error(
        "{}:{line}: a JSON array begins here, but every line of a JSONL file is one object: call the file .json or say \
         `format` = \"json\" (`jq -c '.[]'` converts it)",
        .path.display()
    )]
    JsonArray {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A JSON file does not have the field whose list holds the rows.
    #[error("{}: no field `{field}` with a list of rows (found: {})", .path.display(), .found.join(", "))]
    JsonField {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// The fields that the file has.
        found: Vec<String>,
    },
    /// Two columns of a file have one name.
    #[error("{}: the header names the column `{column}` twice: rename one of them", .path.display())]
    DuplicateColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// A file is not a Parquet file, or damaged.
    #[error(
        "{}{}: not a readable Parquet file: {reason}",
        .path.display(),
        .row.map_or_else(String::new, |row| format!(":{row}"))
    )]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The row at which reading stopped, from 1, if it got that far.
        row: Option<usize>,
        /// The reader's answer.
        reason: String,
    },
    /// A row can be read, but is not the record that was asked for.
    #[error("{}:{line}: {problem}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The line, of a Parquet file the row, from 1.
        line: usize,
        /// What is wrong with it.
        problem: RecordError,
    },
}

/// The parser's complaint without its ` at line 1 column 7`, which counts from the start of the line.
fn without_position(error: &serde_json::Error) -> String {
    let complaint = error.to_string();
    match complaint.rfind(" at line ") {
        Some(end) => complaint[..end].to_owned(),
        None => complaint,
    }
}
