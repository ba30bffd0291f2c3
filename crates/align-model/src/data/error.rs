//! What can be wrong with a data file or with one of its rows.

use std::fmt::Write as _;
use std::path::PathBuf;

/// A data file could not be turned into records.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused the file.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The file holds no record at all.
    #[error("{}: no records: the file is empty or has blank lines only", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line is not text.
    #[error(
        "{}:{line}:{column}: not valid UTF-8: convert the file to UTF-8 (compressed and binary files cannot be read)",
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
        "{}:{line}: a JSON array begins here, but every line of a JSONL file is one object (`jq -c '.[]'` converts it)",
        .path.display()
    )]
    JsonArray {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A line is a JSON object, but not the record that was asked for.
    #[error("{}:{line}: {problem}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: RecordError,
    },
}

/// A row of a data file is not the record that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The row does not have the columns of any layout of this record.
    #[error("found {}, expected {expected}{}", listed(.found), hinted(.hint.as_deref()))]
    Columns {
        /// The columns of the row, in the file's order; those that are `null` are left out.
        found: Vec<String>,
        /// The layouts that this record can have.
        expected: &'static str,
        /// What to do, where it can be guessed.
        hint: Option<String>,
    },
    /// A column holds another type of value than its layout asks for.
    #[error("column `{column}` is {found}, expected {expected}")]
    ColumnType {
        /// The column.
        column: &'static str,
        /// What it holds.
        found: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// Two columns of one row are in different forms, one a string and one a list of messages.
    #[error(
        "column `{string}` is a string but `{messages}` is a list of messages: both must be of the same form"
    )]
    MixedForms {
        /// The column that is a string.
        string: &'static str,
        /// The column that is a list of messages.
        messages: &'static str,
    },
    /// A list of messages is empty.
    #[error("column `{column}` has no messages: drop the row or add at least one message")]
    EmptyMessages {
        /// The column.
        column: &'static str,
    },
    /// A message is not an object.
    #[error(
        "message {message} of column `{column}` is {found}, expected an object with `role` and `content`"
    )]
    MessageType {
        /// The column.
        column: &'static str,
        /// The message's place in the list, from 1.
        message: usize,
        /// What it is instead.
        found: &'static str,
    },
    /// A message lacks a key that every message needs.
    #[error(
        "message {message} of column `{column}` has no `{key}` (its keys: {}){}",
        .keys.join(", "),
        hinted(.hint.as_deref())
    )]
    MessageKey {
        /// The column.
        column: &'static str,
        /// The message's place in the list, from 1.
        message: usize,
        /// The key that is missing.
        key: &'static str,
        /// The keys that it has.
        keys: Vec<String>,
        /// What to do, where it can be guessed.
        hint: Option<String>,
    },
    /// A key of a message holds another type of value than it should.
    #[error("message {message} of column `{column}`: `{key}` is {found}, expected {expected}")]
    MessageValue {
        /// The column.
        column: &'static str,
        /// The message's place in the list, from 1.
        message: usize,
        /// The key.
        key: &'static str,
        /// What it holds.
        found: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// There is nothing to learn: no message is the assistant's.
    #[error(
        "column `{column}` has no message with the role `assistant`, so there is nothing to learn (its roles: {})",
        .roles.join(", ")
    )]
    NoAssistant {
        /// The column.
        column: &'static str,
        /// The roles of its messages, each once, in order.
        roles: Vec<String>,
    },
}

/// The names of columns, for a message.
fn listed(names: &[String]) -> String {
    match names {
        [] => "no columns".to_owned(),
        [name] => format!("only the column `{name}`"),
        [first, rest @ ..] => rest.iter().fold(format!("the columns `{first}`"), |mut list, name| {
            _ = write!(list, ", `{name}`");
            list
        }),
    }
}

/// The hint as the tail of a message.
fn hinted(hint: Option<&str>) -> String {
    hint.map_or_else(String::new, |hint| format!(": {hint}"))
}

/// The parser's complaint without its ` at line 1 column 7`, which counts from the start of the line.
fn without_position(error: &serde_json::Error) -> String {
    let complaint = error.to_string();
    match complaint.rfind(" at line ") {
        Some(end) => complaint[..end].to_owned(),
        None => complaint,
    }
}
