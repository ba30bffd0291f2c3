//! What can be wrong with one row of a data file.

use std::fmt::Write as _;

use super::TranscriptError;

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
    /// A column that the configuration renames is not there.
    #[error("`columns` takes `{ours}` from the column `{theirs}`, which is not there; found {}", listed(.found))]
    Renamed {
        /// The column that is wanted.
        ours: String,
        /// The column that it should come from.
        theirs: String,
        /// The columns of the row.
        found: Vec<String>,
    },
    /// A string is not the transcript that the configuration says it is.
    #[error("column `{column}` is no transcript of a conversation: {problem}")]
    Transcript {
        /// The column.
        column: &'static str,
        /// Why not.
        problem: TranscriptError,
    },
    /// A row of a table has too many or too few cells.
    #[error("{found} cells, but the header has {expected}: quote cells that hold commas or line breaks")]
    Cells {
        /// Its cells.
        found: usize,
        /// The columns of the header.
        expected: usize,
    },
    /// A cell is not text.
    #[error("column `{column}` is not valid UTF-8: convert the file to UTF-8")]
    CellNotUtf8 {
        /// The column.
        column: String,
    },
    /// A cell is a list of messages as Python prints it.
    #[error(
        "column `{column}` holds messages as Python prints them: write the cells with `json.dumps`, or the data as JSONL or \
         Parquet"
    )]
    PythonList {
        /// The column.
        column: String,
    },
    /// A column holds bytes that are no text.
    #[error("column `{column}` holds bytes that are not text: drop it, or store it as a string")]
    Binary {
        /// The column.
        column: String,
    },
    /// An element of a column that is a list has the wrong type.
    #[error("element {element} of column `{column}` is {found}, expected {expected}")]
    ElementType {
        /// The column.
        column: &'static str,
        /// The element's place in the list, from 1.
        element: usize,
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Two columns that belong together, element by element, differ in length.
    #[error(
        "column `{first}` has {first_length} elements but `{second}` has {second_length}: they belong together"
    )]
    Lengths {
        /// One column.
        first: &'static str,
        /// Its length.
        first_length: usize,
        /// The other column.
        second: &'static str,
        /// Its length.
        second_length: usize,
    },
    /// A column that must say something is empty.
    #[error("column `{column}` is empty: drop the row")]
    EmptyColumn {
        /// The column.
        column: &'static str,
    },
    /// Two conversations have no prompt in common.
    #[error(
        "`{chosen}` and `{rejected}` do not begin with the same message, so they have no prompt in common: add `prompt`"
    )]
    NoSharedPrompt {
        /// The column of the preferred completion.
        chosen: &'static str,
        /// The column of the other.
        rejected: &'static str,
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
