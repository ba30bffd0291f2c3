//! One row of a data file, whose columns a record takes out one by one.

use serde_json::{Map, Value};

use super::RecordError;
use super::messages::{self, parse_messages};
use crate::chat::Message;

/// The two forms in which a column can hold what was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A string; TRL calls it *standard*.
    Text,
    /// A list of messages; TRL calls it *conversational*.
    Messages,
}

/// The columns of one row. A record takes those that it needs; the rest are extra columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    columns: Map<String, Value>,
}

impl Row {
    /// A row of these columns. Those that are `null` are dropped: columnar formats write them for missing values.
    #[must_use]
    pub fn new(mut columns: Map<String, Value>) -> Self {
        columns.retain(|_, value| !value.is_null());
        Self { columns }
    }

    /// Whether the row has this column.
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        self.columns.contains_key(column)
    }

    /// The names of the columns that were not taken yet, in the file's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.keys().map(String::as_str)
    }

    /// Whether `column` is a string or a list of messages.
    ///
    /// # Errors
    /// If it is neither, or absent.
    pub fn form(&self, column: &'static str) -> Result<Form, RecordError> {
        match self.columns.get(column) {
            Some(Value::String(_)) => Ok(Form::Text),
            Some(Value::Array(_)) => Ok(Form::Messages),
            other => Err(wrong_type(column, other, "a string or a list of messages")),
        }
    }

    /// Takes a column that is a string.
    ///
    /// # Errors
    /// If it is not one, or absent.
    pub fn take_text(&mut self, column: &'static str) -> Result<String, RecordError> {
        match self.columns.shift_remove(column) {
            Some(Value::String(text)) => Ok(text),
            other => Err(wrong_type(column, other.as_ref(), "a string")),
        }
    }

    /// Takes a column that is a list of messages.
    ///
    /// # Errors
    /// If it is not a list, or absent, or empty, or if one of its elements is not a message.
    pub fn take_messages(&mut self, column: &'static str) -> Result<Vec<Message>, RecordError> {
        match self.columns.shift_remove(column) {
            Some(Value::Array(list)) => parse_messages(column, list),
            other => Err(wrong_type(column, other.as_ref(), "a list of messages")),
        }
    }

    /// Takes a column that is a list, or a string that spells one in JSON; `None` if the row does not have it.
    ///
    /// # Errors
    /// If it is something else.
    pub fn take_list(&mut self, column: &'static str) -> Result<Option<Vec<Value>>, RecordError> {
        const EXPECTED: &str = "a list, or a string with a JSON list";
        match self.columns.shift_remove(column) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(Value::String(text)) => match serde_json::from_str(&text) {
                Ok(list) => Ok(list),
                Err(_) => {
                    Err(RecordError::ColumnType { column, found: "another string", expected: EXPECTED })
                }
            },
            other => Err(wrong_type(column, other.as_ref(), EXPECTED)),
        }
    }

    /// Takes a column that is an object; an empty one if the row does not have it.
    ///
    /// # Errors
    /// If it is something else.
    pub fn take_object(&mut self, column: &'static str) -> Result<Map<String, Value>, RecordError> {
        match self.columns.shift_remove(column) {
            None => Ok(Map::new()),
            Some(Value::Object(object)) => Ok(object),
            other => Err(wrong_type(column, other.as_ref(), "an object")),
        }
    }

    /// The columns that no one took.
    #[must_use]
    pub fn into_rest(self) -> Map<String, Value> {
        self.columns
    }
}

fn wrong_type(column: &'static str, value: Option<&Value>, expected: &'static str) -> RecordError {
    RecordError::ColumnType { column, found: value.map_or("absent", messages::kind), expected }
}
