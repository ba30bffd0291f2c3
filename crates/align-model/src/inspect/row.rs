//! Rows as an inspection reads them: none is refused, and each has a text.

use std::{fmt, path::Path};

use serde::Serialize;
use serde_json::Value;

use crate::{
    chat::Message,
    data::{Located, Record, RecordError, Row, SftRecord},
};

/// A row of a data file, whatever it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectedRow {
    /// The demonstration, or why the row is none.
    pub record: Result<SftRecord, RecordError>,
    /// What the row says, roles and column names left out: of a demonstration its texts, of anything else every string.
    pub text: String,
}

impl Record for InspectedRow {
    fn from_row(row: &mut Row) -> Result<Self, RecordError> {
        let untouched = row.clone();
        let record = SftRecord::from_row(row);
        let text = if let Ok(record) = &record {
            text_of(record)
        } else {
            let columns = untouched.into_rest();
            let mut strings = Vec::new();
            columns.values().for_each(|value| collect_strings(value, &mut strings));
            strings.join("\n")
        };
        Ok(Self { record, text })
    }
}

/// Where a row stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file.
    pub file: String,
    /// The line; the first is 1.
    pub line: usize,
}

impl Place {
    /// Where a record was read.
    #[must_use]
    pub fn of<R>(located: &Located<R>) -> Self {
        Self::new(&located.path, located.line)
    }

    /// A line of a file.
    #[must_use]
    pub fn new(path: &Path, line: usize) -> Self {
        Self { file: path.display().to_string(), line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The columns that a record was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// `prompt` and `completion`, texts.
    PromptCompletion,
    /// `prompt` and `completion`, lists of messages.
    PromptCompletionChat,
    /// `messages`.
    Conversation,
    /// `text`.
    Text,
    /// None of them: the row cannot be trained on.
    Refused,
}

impl Layout {
    /// The layout of a row.
    #[must_use]
    pub fn of(row: &InspectedRow) -> Self {
        match &row.record {
            Ok(SftRecord::PromptCompletion { .. }) => Self::PromptCompletion,
            Ok(SftRecord::PromptCompletionChat { .. }) => Self::PromptCompletionChat,
            Ok(SftRecord::Conversation { .. }) => Self::Conversation,
            Ok(SftRecord::Text { .. }) => Self::Text,
            Err(_) => Self::Refused,
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PromptCompletion => "prompt and completion, texts",
            Self::PromptCompletionChat => "prompt and completion, messages",
            Self::Conversation => "messages",
            Self::Text => "text",
            Self::Refused => "none that can be trained on",
        })
    }
}

/// All messages of a record, prompt and completion together; none where it is no conversation.
pub(super) fn messages(record: &SftRecord) -> Vec<&Message> {
    match record {
        SftRecord::Text { .. } | SftRecord::PromptCompletion { .. } => Vec::new(),
        SftRecord::Conversation { messages, .. } => messages.iter().collect(),
        SftRecord::PromptCompletionChat { prompt, completion, .. } => {
            prompt.iter().chain(completion).collect()
        }
    }
}

fn text_of(record: &SftRecord) -> String {
    match record {
        SftRecord::Text { text } => text.clone(),
        SftRecord::PromptCompletion { prompt, completion } => format!("{prompt}{completion}"),
        SftRecord::Conversation { .. } | SftRecord::PromptCompletionChat { .. } => {
            messages(record).iter().map(|message| message.text()).collect::<Vec<_>>().join("\n")
        }
    }
}

fn collect_strings<'a>(value: &'a Value, strings: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => strings.push(text),
        Value::Array(list) => list.iter().for_each(|inner| collect_strings(inner, strings)),
        Value::Object(object) => object.values().for_each(|inner| collect_strings(inner, strings)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: Value) -> InspectedRow {
        let Value::Object(columns) = value else { panic!("a row is an object") };
        InspectedRow::from_row(&mut Row::new(columns)).unwrap()
    }

    #[test]
    fn a_demonstration_says_what_its_texts_say() {
        assert_eq!(row(json!({"prompt": "a ", "completion": "b", "id": "x"})).text, "a b");
        let chat = row(
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        );
        assert_eq!((chat.text.as_str(), Layout::of(&chat)), ("a\nb", Layout::Conversation));
    }

    #[test]
    fn any_other_row_says_all_its_strings() {
        let question = row(json!({"question": "q", "choices": ["x", {"y": "z"}], "answer": 1}));
        assert_eq!((question.text.as_str(), Layout::of(&question)), ("q\nx\nz", Layout::Refused));
    }
}
