//! Rows as an inspection reads them: none is refused, and each has a text.

use std::{fmt, path::Path};

use serde::Serialize;
use serde_json::Value;

use crate::{
    chat::Message,
    data::{
        GoldCompletion, Located, PreferenceRecord, PromptRecord, Record, RecordError, Row, SftRecord,
        TripleRecord, UnpairedRecord,
    },
};

/// A record that can be looked at.
pub trait Inspected: Record + PartialEq {
    /// The columns that it was read from.
    fn layout(&self) -> Layout;

    /// Its columns that are texts, in the order in which they are read.
    fn texts(&self) -> Vec<(&'static str, &str)>;

    /// The conversations that it holds, each from its beginning to its end.
    fn conversations(&self) -> Vec<Vec<&Message>>;

    /// Whether its conversations end with what the assistant says.
    fn is_answered(&self) -> bool {
        true
    }

    /// What it says, roles and column names left out.
    fn text(&self) -> String {
        let conversations = self.conversations();
        if conversations.is_empty() {
            return self.texts().into_iter().map(|(_, text)| text).collect();
        }
        conversations.into_iter().flatten().map(Message::text).collect::<Vec<_>>().join("\n")
    }
}

/// A row of a data file, whatever it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectedRow<R = SftRecord> {
    /// The record, or why the row is none.
    pub record: Result<R, RecordError>,
    /// What the row says, roles and column names left out: of a record its texts, of anything else every string.
    pub text: String,
}

impl<R: Inspected> Record for InspectedRow<R> {
    fn from_row(row: &mut Row) -> Result<Self, RecordError> {
        let untouched = row.clone();
        let record = R::from_row(row);
        let text = if let Ok(record) = &record {
            record.text()
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
    /// `chosen` and `rejected`, texts.
    Pair,
    /// `chosen` and `rejected`, lists of messages.
    PairChat,
    /// `prompt`, `completion` and `label`, texts.
    Judged,
    /// `prompt`, `completion` and `label`, lists of messages.
    JudgedChat,
    /// `prompt`, a text.
    Prompt,
    /// `prompt`, a list of messages.
    PromptChat,
    /// None of them: the row cannot be trained on.
    Refused,
}

impl Layout {
    /// The layout of a row.
    #[must_use]
    pub fn of<R: Inspected>(row: &InspectedRow<R>) -> Self {
        row.record.as_ref().map_or(Self::Refused, Inspected::layout)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PromptCompletion => "prompt and completion, texts",
            Self::PromptCompletionChat => "prompt and completion, messages",
            Self::Conversation => "messages",
            Self::Text => "text",
            Self::Pair => "chosen and rejected, texts",
            Self::PairChat => "chosen and rejected, messages",
            Self::Judged => "prompt, completion and label, texts",
            Self::JudgedChat => "prompt, completion and label, messages",
            Self::Prompt => "prompt, text",
            Self::PromptChat => "prompt, messages",
            Self::Refused => "none that can be trained on",
        })
    }
}

impl Inspected for SftRecord {
    fn layout(&self) -> Layout {
        match self {
            Self::PromptCompletion { .. } => Layout::PromptCompletion,
            Self::PromptCompletionChat { .. } => Layout::PromptCompletionChat,
            Self::Conversation { .. } => Layout::Conversation,
            Self::Text { .. } => Layout::Text,
        }
    }

    fn texts(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Text { text } => vec![("text", text)],
            Self::PromptCompletion { prompt, completion } => {
                vec![("prompt", prompt), ("completion", completion)]
            }
            Self::Conversation { .. } | Self::PromptCompletionChat { .. } => Vec::new(),
        }
    }

    fn conversations(&self) -> Vec<Vec<&Message>> {
        match self {
            Self::Text { .. } | Self::PromptCompletion { .. } => Vec::new(),
            Self::Conversation { messages, .. } => vec![messages.iter().collect()],
            Self::PromptCompletionChat { prompt, completion, .. } => vec![both(prompt, completion)],
        }
    }
}

impl Inspected for PreferenceRecord {
    fn layout(&self) -> Layout {
        match self {
            Self::Text { .. } => Layout::Pair,
            Self::Chat { .. } => Layout::PairChat,
        }
    }

    fn texts(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Text { prompt, chosen, rejected, .. } => {
                vec![("prompt", prompt), ("chosen", chosen), ("rejected", rejected)]
            }
            Self::Chat { .. } => Vec::new(),
        }
    }

    fn conversations(&self) -> Vec<Vec<&Message>> {
        match self {
            Self::Text { .. } => Vec::new(),
            Self::Chat { prompt, chosen, rejected, .. } => vec![both(prompt, chosen), both(prompt, rejected)],
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text { prompt, chosen, rejected, .. } => format!("{prompt}{chosen}\n{rejected}"),
            Self::Chat { prompt, chosen, rejected, .. } => {
                let messages = prompt.iter().chain(chosen).chain(rejected);
                messages.map(Message::text).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// A pair; what is to be imitated beside it counts as one more of its completions.
impl Inspected for TripleRecord {
    fn layout(&self) -> Layout {
        self.pair.layout()
    }

    fn texts(&self) -> Vec<(&'static str, &str)> {
        let mut texts = self.pair.texts();
        if let Some(GoldCompletion::Text(gold)) = &self.gold {
            texts.push(("reference", gold));
        }
        texts
    }

    fn conversations(&self) -> Vec<Vec<&Message>> {
        let mut conversations = self.pair.conversations();
        if let (PreferenceRecord::Chat { prompt, .. }, Some(GoldCompletion::Chat(gold))) =
            (&self.pair, &self.gold)
        {
            conversations.push(both(prompt, gold));
        }
        conversations
    }

    fn text(&self) -> String {
        let mut text = self.pair.text();
        match &self.gold {
            Some(GoldCompletion::Text(gold)) => text.extend(["\n", gold.as_str()]),
            Some(GoldCompletion::Chat(gold)) => {
                for message in gold {
                    text.extend(["\n", message.text().as_str()]);
                }
            }
            None => {}
        }
        text
    }
}

impl Inspected for UnpairedRecord {
    fn layout(&self) -> Layout {
        match self {
            Self::Text { .. } => Layout::Judged,
            Self::Chat { .. } => Layout::JudgedChat,
        }
    }

    fn texts(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Text { prompt, completion, .. } => vec![("prompt", prompt), ("completion", completion)],
            Self::Chat { .. } => Vec::new(),
        }
    }

    fn conversations(&self) -> Vec<Vec<&Message>> {
        match self {
            Self::Text { .. } => Vec::new(),
            Self::Chat { prompt, completion, .. } => vec![both(prompt, completion)],
        }
    }
}

impl Inspected for PromptRecord {
    fn layout(&self) -> Layout {
        match self {
            Self::Text { .. } => Layout::Prompt,
            Self::Chat { .. } => Layout::PromptChat,
        }
    }

    fn texts(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Text { prompt } => vec![("prompt", prompt)],
            Self::Chat { .. } => Vec::new(),
        }
    }

    fn conversations(&self) -> Vec<Vec<&Message>> {
        match self {
            Self::Text { .. } => Vec::new(),
            Self::Chat { prompt, .. } => vec![prompt.iter().collect()],
        }
    }

    fn is_answered(&self) -> bool {
        false
    }
}

fn both<'a>(prompt: &'a [Message], completion: &'a [Message]) -> Vec<&'a Message> {
    prompt.iter().chain(completion).collect()
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
