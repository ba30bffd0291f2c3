//! Conversations that are not lists of messages with `role` and `content`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{RecordError, Transcript, messages::kind};

/// Why a column is not the transcript that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TranscriptError {
    /// The text does not begin with a speaker.
    #[error("it begins with {found:?}, expected \"\\n\\n{expected}\"")]
    Beginning {
        /// How it begins.
        found: String,
        /// The mark that was expected.
        expected: &'static str,
    },
    /// One speaker has two turns in a row.
    #[error("turns {turn} and {} are both of `{mark}`, expected speakers to alternate", turn + 1)]
    SameSpeaker {
        /// The first of the two turns, from 1.
        turn: usize,
        /// The speaker's mark.
        mark: &'static str,
    },
    /// A message does not say who speaks.
    #[error("message {message} has no `from` that is a string")]
    NoSpeaker {
        /// The message's place, from 1.
        message: usize,
    },
    /// A message's speaker has no role.
    #[error(
        "message {message} is from `{speaker}`; known are system, human, user, gpt, chatgpt, assistant, bard, bing, tool, \
         observation, function_response and function_call"
    )]
    UnknownSpeaker {
        /// The message's place, from 1.
        message: usize,
        /// The speaker.
        speaker: String,
    },
    /// A message that should be a call is not JSON.
    #[error(
        "message {message} is a function call, but its `value` is not a JSON object with `name` and `arguments`"
    )]
    Call {
        /// The message's place, from 1.
        message: usize,
    },
}

const HUMAN: &str = "Human:";
const ASSISTANT: &str = "Assistant:";

/// Columns in which a conversation, or how it goes on, can stand.
const COLUMNS: [&str; 6] = ["messages", "prompt", "completion", "chosen", "rejected", "reference"];

impl Transcript {
    /// Turns the conversations of a row into lists of messages. Returns why that failed, by column: it matters only if a
    /// record takes the column.
    pub(super) fn convert(self, columns: &mut Map<String, Value>) -> BTreeMap<&'static str, RecordError> {
        if self == Self::ShareGpt {
            take_conversations(columns);
        }
        let has_prompt = columns.get("prompt").is_some_and(|prompt| !prompt.is_null());
        let mut failed = BTreeMap::new();
        for column in COLUMNS {
            let goes_on = has_prompt && !matches!(column, "prompt" | "messages");
            let converted = match (self, columns.get(column)) {
                (Self::Anthropic, Some(Value::String(text))) => convert_string(column, text, goes_on),
                (Self::ShareGpt, Some(Value::Array(list))) => convert_turns(column, list),
                // A single turn, as preference data of this kind often has.
                (Self::ShareGpt, Some(turn @ Value::Object(_))) => {
                    convert_turns(column, std::slice::from_ref(turn))
                }
                _ => continue,
            };
            match converted {
                Ok(messages) => _ = columns.insert(column.to_owned(), Value::Array(messages)),
                Err(problem) => _ = failed.insert(column, problem),
            }
        }
        failed
    }
}

fn convert_string(column: &'static str, text: &str, goes_on: bool) -> Result<Vec<Value>, RecordError> {
    let turns = if goes_on { continuation(text) } else { turns(text, HUMAN) };
    let mut turns = turns.map_err(|problem| RecordError::Transcript { column, problem })?;
    if column == "prompt" && turns.last().is_some_and(|(mark, text)| *mark == ASSISTANT && text.is_empty()) {
        // The prompt ends where the assistant is to begin.
        turns.pop();
    }
    let role = |mark| if mark == HUMAN { "user" } else { "assistant" };
    let message = |(mark, content)| json!({"role": role(mark), "content": content});
    Ok(turns.into_iter().map(message).collect())
}

type Turns<'a> = Vec<(&'static str, &'a str)>;

/// What the assistant says after a prompt: with its mark or without.
fn continuation(text: &str) -> Result<Turns<'_>, TranscriptError> {
    if text.trim_start().starts_with(ASSISTANT) {
        return turns(text, ASSISTANT);
    }
    Ok(vec![(ASSISTANT, text.trim())])
}

/// The turns of a conversation, trimmed. A mark counts where a paragraph begins with it.
fn turns<'a>(text: &'a str, first: &'static str) -> Result<Turns<'a>, TranscriptError> {
    let text = text.trim_start();
    let Some(mut rest) = text.strip_prefix(first) else {
        return Err(TranscriptError::Beginning { found: text.chars().take(20).collect(), expected: first });
    };
    let mut turns = Vec::new();
    let mut mark = first;
    loop {
        let next = [HUMAN, ASSISTANT]
            .into_iter()
            .filter_map(|next| Some((rest.find(&format!("\n\n{next}"))?, next)))
            .min_by_key(|(at, _)| *at);
        let Some((at, next)) = next else {
            turns.push((mark, rest.trim()));
            return Ok(turns);
        };
        turns.push((mark, rest[..at].trim()));
        if next == mark {
            return Err(TranscriptError::SameSpeaker { turn: turns.len(), mark });
        }
        rest = &rest[at + "\n\n".len() + next.len()..];
        mark = next;
    }
}

/// `conversations` is what the format calls `messages`.
fn take_conversations(columns: &mut Map<String, Value>) {
    let is_absent = columns.get("messages").is_none_or(Value::is_null);
    if is_absent && let Some(conversations) = columns.shift_remove("conversations") {
        columns.insert("messages".to_owned(), conversations);
    }
}

fn convert_turns(column: &'static str, turns: &[Value]) -> Result<Vec<Value>, RecordError> {
    let message = |(index, turn): (usize, &Value)| Place { column, message: index + 1 }.message(turn.clone());
    turns.iter().enumerate().map(message).collect()
}

/// One message of one column: where an error happened.
#[derive(Clone, Copy)]
struct Place {
    column: &'static str,
    message: usize,
}

impl Place {
    fn message(self, turn: Value) -> Result<Value, RecordError> {
        let Place { column, message } = self;
        let problem = |problem| RecordError::Transcript { column, problem };
        let Value::Object(mut turn) = turn else {
            return Err(RecordError::MessageType { column, message, found: kind(&turn) });
        };
        if turn.contains_key("role") {
            return Ok(Value::Object(turn));
        }
        let Some(Value::String(speaker)) = turn.shift_remove("from") else {
            return Err(problem(TranscriptError::NoSpeaker { message }));
        };
        let role = match speaker.as_str() {
            "system" => "system",
            "human" | "user" => "user",
            "gpt" | "chatgpt" | "assistant" | "bard" | "bing" | "function_call" => "assistant",
            "tool" | "observation" | "function_response" => "tool",
            _ => return Err(problem(TranscriptError::UnknownSpeaker { message, speaker })),
        };
        let mut fields = Map::new();
        fields.insert("role".to_owned(), role.into());
        let value = turn.shift_remove("value");
        if speaker == "function_call" {
            let call = value.as_ref().and_then(call).ok_or(problem(TranscriptError::Call { message }))?;
            fields.insert("tool_calls".to_owned(), json!([{"type": "function", "function": call}]));
        } else if let Some(value) = value {
            fields.insert("content".to_owned(), value);
        }
        fields.extend(turn);
        Ok(Value::Object(fields))
    }
}

fn call(value: &Value) -> Option<Value> {
    let call = match value {
        Value::String(text) => serde_json::from_str(text).ok()?,
        other => other.clone(),
    };
    (call.get("name")?.is_string() && call.get("arguments").is_some()).then_some(call)
}

#[cfg(test)]
mod tests;
