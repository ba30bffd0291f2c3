//! Lists of messages inside a data file.

use serde_json::{Map, Value};

use super::RecordError;
use crate::chat::Message;

/// Keys of which one must be there when a message has no `content`.
const INSTEAD_OF_CONTENT: [&str; 5] =
    ["tool_calls", "function_call", "reasoning_content", "reasoning", "thinking"];

/// Checks and converts the messages of `column`. Keys that are `null`, at any depth, are dropped, as TRL does.
pub(super) fn parse_messages(column: &'static str, list: Vec<Value>) -> Result<Vec<Message>, RecordError> {
    if list.is_empty() {
        return Err(RecordError::EmptyMessages { column });
    }
    let place = |message| Place { column, message };
    list.into_iter().enumerate().map(|(index, value)| place(index + 1).message(value)).collect()
}

/// Refuses `messages` of which none is the assistant's.
pub(super) fn require_assistant(column: &'static str, messages: &[Message]) -> Result<(), RecordError> {
    let mut roles: Vec<String> = Vec::new();
    for role in messages.iter().map(Message::role) {
        if role == "assistant" {
            return Ok(());
        }
        if roles.iter().all(|known| known != role) {
            roles.push(role.to_owned());
        }
    }
    Err(RecordError::NoAssistant { column, roles })
}

/// What a JSON value is, with its article.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// One message of one column: where an error happened.
#[derive(Clone, Copy)]
struct Place {
    column: &'static str,
    message: usize,
}

impl Place {
    fn message(self, value: Value) -> Result<Message, RecordError> {
        let Place { column, message } = self;
        let Value::Object(mut object) = value else {
            return Err(RecordError::MessageType { column, message, found: kind(&value) });
        };
        drop_nulls(&mut object);
        match object.get("role") {
            Some(Value::String(_)) => {}
            Some(other) => return Err(self.wrong_value("role", other, "a string")),
            None => return Err(self.missing_key("role", &object)),
        }
        match object.get("content") {
            Some(Value::String(_) | Value::Array(_)) => {}
            Some(other) => return Err(self.wrong_value("content", other, "a string or a list of parts")),
            None if INSTEAD_OF_CONTENT.iter().any(|key| object.contains_key(*key)) => {}
            None => return Err(self.missing_key("content", &object)),
        }
        serde_json::from_value(Value::Object(object)).map_err(|_| RecordError::MessageType {
            column,
            message,
            found: "another object",
        })
    }

    fn wrong_value(self, key: &'static str, value: &Value, expected: &'static str) -> RecordError {
        let Place { column, message } = self;
        RecordError::MessageValue { column, message, key, found: kind(value), expected }
    }

    fn missing_key(self, key: &'static str, object: &Map<String, Value>) -> RecordError {
        let Place { column, message } = self;
        let likely: &[&str] = match key {
            "role" => &["from", "speaker", "author"],
            _ => &["value", "text", "message"],
        };
        let hint = likely.iter().find(|name| object.contains_key(**name)).map(|name| match *name {
            "from" => "read the source with `transcript` = \"sharegpt\"".to_owned(),
            name => format!("rename `{name}` to `{key}` in every message"),
        });
        RecordError::MessageKey { column, message, key, keys: object.keys().cloned().collect(), hint }
    }
}

fn drop_nulls(object: &mut Map<String, Value>) {
    object.retain(|_, value| !value.is_null());
    object.values_mut().for_each(drop_nulls_inside);
}

fn drop_nulls_inside(value: &mut Value) {
    match value {
        Value::Object(object) => drop_nulls(object),
        Value::Array(list) => list.iter_mut().for_each(drop_nulls_inside),
        _ => {}
    }
}
