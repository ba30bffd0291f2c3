//! One row of a data file, whose columns a record takes out one by one.

use std::collections::BTreeMap;

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
    /// What is wrong with columns that could not be converted: an error once they are taken.
    failed: BTreeMap<&'static str, RecordError>,
}

impl Row {
    /// A row of these columns. Those that are `null` are dropped: columnar formats write them for missing values.
    #[must_use]
    pub fn new(mut columns: Map<String, Value>) -> Self {
        columns.retain(|_, value| !value.is_null());
        Self { columns, failed: BTreeMap::new() }
    }

    /// The row with columns that are an error if a record takes them.
    pub(super) fn with_failed(mut self, failed: BTreeMap<&'static str, RecordError>) -> Self {
        self.failed = failed;
        self
    }

    /// Refuses a column that could not be converted.
    fn check(&self, column: &str) -> Result<(), RecordError> {
        self.failed.get(column).map_or(Ok(()), |problem| Err(problem.clone()))
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
        self.check(column)?;
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
        self.check(column)?;
        match self.columns.shift_remove(column) {
            Some(Value::String(text)) => Ok(text),
            other => Err(wrong_type(column, other.as_ref(), "a string")),
        }
    }

    /// Takes a column that is a list of messages, or a string that spells one in JSON.
    ///
    /// # Errors
    /// If it is not a list, or absent, or empty, or if one of its elements is not a message.
    pub fn take_messages(&mut self, column: &'static str) -> Result<Vec<Message>, RecordError> {
        self.check(column)?;
        let value = self.columns.shift_remove(column);
        match spelled(value.as_ref()).or(value) {
            Some(Value::Array(list)) => parse_messages(column, list),
            Some(Value::String(text)) if text.trim_start().starts_with("Human:") => {
                let found = "a transcript (read the source with `transcript` = \"anthropic\")";
                Err(RecordError::ColumnType { column, found, expected: "a list of messages" })
            }
            other => Err(wrong_type(column, other.as_ref(), "a list of messages")),
        }
    }

    /// Takes a column that is a list of messages, and leaves anything else where it is.
    pub fn take_messages_if_any(&mut self, column: &'static str) -> Option<Vec<Message>> {
        self.check(column).ok()?;
        let Value::Array(list) = self.columns.get(column)? else { return None };
        let messages = parse_messages(column, list.clone()).ok()?;
        self.columns.shift_remove(column);
        Some(messages)
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

    /// Takes a column that is an object, or a string that spells one in JSON; an empty one if the row does not have it.
    ///
    /// # Errors
    /// If it is something else.
    pub fn take_object(&mut self, column: &'static str) -> Result<Map<String, Value>, RecordError> {
        let value = self.columns.shift_remove(column);
        match spelled(value.as_ref()).or(value) {
            None => Ok(Map::new()),
            Some(Value::Object(object)) => Ok(object),
            other => Err(wrong_type(column, other.as_ref(), "an object")),
        }
    }

    /// Takes a column that is true or false: a boolean, 1 or 0, or a string that spells one of them.
    ///
    /// # Errors
    /// If it is something else, or absent.
    pub fn take_bool(&mut self, column: &'static str) -> Result<bool, RecordError> {
        let value = self.columns.shift_remove(column);
        value.as_ref().and_then(truth).ok_or_else(|| wrong_type(column, value.as_ref(), "true or false"))
    }

    /// Takes a column that is a finite number, or a string that spells one; `None` if the row does not have it.
    ///
    /// # Errors
    /// If it is something else.
    pub fn take_number(&mut self, column: &'static str) -> Result<Option<f32>, RecordError> {
        let Some(value) = self.columns.shift_remove(column) else { return Ok(None) };
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number.map(|number| number as f32).filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong_type(column, Some(&value), "a finite number")),
        }
    }

    /// Takes a column that is a list of strings, or a string that spells one in JSON.
    ///
    /// # Errors
    /// If it is something else, or absent.
    pub fn take_texts(&mut self, column: &'static str) -> Result<Vec<String>, RecordError> {
        self.take_elements(column, "a string", |element| element.as_str().map(str::to_owned))
    }

    /// Takes a column that is a list of booleans (or of 1 and 0), or a string that spells one in JSON.
    ///
    /// # Errors
    /// If it is something else, or absent.
    pub fn take_bools(&mut self, column: &'static str) -> Result<Vec<bool>, RecordError> {
        self.take_elements(column, "true or false", truth)
    }

    fn take_elements<T>(
        &mut self,
        column: &'static str,
        expected: &'static str,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>, RecordError> {
        let list = self.take_list(column)?.ok_or_else(|| wrong_type(column, None, "a list"))?;
        let wrong = |index: usize, found| RecordError::ElementType {
            column,
            element: index + 1,
            found: messages::kind(found),
            expected,
        };
        list.iter()
            .enumerate()
            .map(|(index, element)| convert(element).ok_or_else(|| wrong(index, element)))
            .collect()
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

/// What a string spells in JSON, if that is a list or an object: tables have no other way to hold them.
fn spelled(value: Option<&Value>) -> Option<Value> {
    let text = value?.as_str().filter(|text| text.trim_start().starts_with(['[', '{']))?;
    serde_json::from_str(text).ok()
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) => match number.as_f64()? {
            0.0 => Some(false),
            1.0 => Some(true),
            _ => None,
        },
        Value::String(text) => match text.trim() {
            "true" | "True" | "TRUE" | "1" => Some(true),
            "false" | "False" | "FALSE" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}
