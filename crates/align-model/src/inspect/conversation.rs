//! Records whose turns are not what a conversation's should be.

use std::fmt;

use serde::Serialize;

use super::row::{Inspected, InspectedRow, Place};
use crate::{
    chat::Message,
    data::{Located, RecordError},
};

/// A record with odd turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OddConversation {
    /// Where it stands.
    pub place: Place,
    /// What is odd about it.
    pub oddities: Vec<Oddity>,
}

/// What can be odd about a record's turns. Messages are counted from 1, a completion's after its prompt's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Oddity {
    /// The assistant says nothing: there is nothing to learn, and the record cannot be trained on.
    NoAssistant,
    /// Somebody speaks twice in a row.
    SameRoleTwice {
        /// The second of the two messages.
        message: usize,
        /// Who.
        role: String,
    },
    /// A message says nothing and calls no tool.
    EmptyContent {
        /// The message.
        message: usize,
        /// Whose.
        role: String,
    },
    /// A role that chat templates do not know.
    UnknownRole {
        /// The message.
        message: usize,
        /// The role.
        role: String,
    },
    /// The system speaks later than first.
    LateSystem {
        /// The message.
        message: usize,
    },
    /// The assistant speaks before anyone asked.
    BeginsWithAssistant,
    /// The last message is not the assistant's.
    EndsUnanswered {
        /// Whose it is.
        role: String,
    },
    /// A column that is a text says nothing.
    EmptyText {
        /// The column.
        column: &'static str,
    },
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAssistant => write!(f, "the assistant says nothing"),
            Self::SameRoleTwice { message, role } => {
                write!(f, "message {message}: {role} speaks twice in a row")
            }
            Self::EmptyContent { message, role } => write!(f, "message {message}: {role} says nothing"),
            Self::UnknownRole { message, role } => write!(f, "message {message}: unknown role `{role}`"),
            Self::LateSystem { message } => write!(f, "message {message}: system speaks later than first"),
            Self::BeginsWithAssistant => write!(f, "the assistant speaks first"),
            Self::EndsUnanswered { role } => write!(f, "{role} speaks last"),
            Self::EmptyText { column } => write!(f, "`{column}` is empty"),
        }
    }
}

/// The records with odd turns.
#[must_use]
pub fn odd_conversations<R: Inspected>(rows: &[Located<InspectedRow<R>>]) -> Vec<OddConversation> {
    let found = rows.iter().map(|located| (located, oddities(&located.record)));
    let odd = found.filter(|(_, oddities)| !oddities.is_empty());
    odd.map(|(located, oddities)| OddConversation { place: Place::of(located), oddities }).collect()
}

fn oddities<R: Inspected>(row: &InspectedRow<R>) -> Vec<Oddity> {
    match &row.record {
        Err(RecordError::NoAssistant { .. }) => vec![Oddity::NoAssistant],
        Err(_) => Vec::new(),
        Ok(record) => {
            let texts = record.texts().into_iter().filter(|(_, text)| text.trim().is_empty());
            let mut found: Vec<Oddity> = texts.map(|(column, _)| Oddity::EmptyText { column }).collect();
            for conversation in record.conversations() {
                for oddity in turns(&conversation) {
                    let is_expected =
                        !record.is_answered() && matches!(oddity, Oddity::EndsUnanswered { .. });
                    // Conversations with one beginning have its oddities in common.
                    if !is_expected && !found.contains(&oddity) {
                        found.push(oddity);
                    }
                }
            }
            found
        }
    }
}

const KNOWN_ROLES: [&str; 8] =
    ["system", "developer", "user", "assistant", "tool", "tools", "function", "ipython"];
/// Several tools may answer one after the other; these speak once.
const TAKING_TURNS: [&str; 4] = ["system", "developer", "user", "assistant"];

fn turns(messages: &[&Message]) -> Vec<Oddity> {
    let mut found = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let (role, place) = (message.role().to_owned(), index + 1);
        let previous = index.checked_sub(1).map(|before| messages[before].role());
        if !KNOWN_ROLES.contains(&role.as_str()) {
            found.push(Oddity::UnknownRole { message: place, role: role.clone() });
        }
        if previous == Some(&role) && TAKING_TURNS.contains(&role.as_str()) {
            found.push(Oddity::SameRoleTwice { message: place, role: role.clone() });
        } else if role == "system" && index > 0 {
            found.push(Oddity::LateSystem { message: place });
        }
        if is_silent(message) {
            found.push(Oddity::EmptyContent { message: place, role });
        }
    }
    let spoken = messages.iter().find(|message| !["system", "developer"].contains(&message.role()));
    if spoken.is_some_and(|message| message.role() == "assistant") {
        found.push(Oddity::BeginsWithAssistant);
    }
    if let Some(last) = messages.last().filter(|message| message.role() != "assistant") {
        found.push(Oddity::EndsUnanswered { role: last.role().to_owned() });
    }
    found
}

/// No text, and nothing that stands for it: a tool call, reasoning, or a part that is not text.
fn is_silent(message: &Message) -> bool {
    let parts = message.content().and_then(|content| content.as_array());
    let shows =
        parts.is_some_and(|parts| parts.iter().any(|part| part.is_object() && part.get("text").is_none()));
    let calls = !message.tool_calls().is_empty() || message.get("function_call").is_some();
    message.text().trim().is_empty() && !shows && !calls && message.reasoning_content().is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::data::{Record as _, Row, SftRecord};

    fn found(row: Value) -> Vec<String> {
        let Value::Object(columns) = row else { panic!("a row is an object") };
        let row = InspectedRow::<SftRecord>::from_row(&mut Row::new(columns)).unwrap();
        oddities(&row).iter().map(ToString::to_string).collect()
    }

    fn talk(turns: &[(&str, &str)]) -> Vec<String> {
        let says = |(role, content): &(&str, &str)| json!({"role": role, "content": content});
        found(json!({"messages": turns.iter().map(says).collect::<Vec<_>>()}))
    }

    #[test]
    fn a_plain_conversation_is_not_odd() {
        assert!(talk(&[("system", "s"), ("user", "u"), ("assistant", "a")]).is_empty());
        assert!(
            talk(&[("user", "u"), ("assistant", "a"), ("tool", "1"), ("tool", "2"), ("assistant", "b")])
                .is_empty()
        );
        assert!(found(json!({"prompt": "a", "completion": "b"})).is_empty());
        let call = json!([{"function": {"name": "f", "arguments": {}}}]);
        let calls = json!({"messages": [{"role": "user", "content": "u"},
            {"role": "assistant", "content": "", "tool_calls": call}]});
        assert!(found(calls).is_empty());
    }

    #[test]
    fn each_oddity_is_found() {
        assert_eq!(talk(&[("user", "u")]), ["the assistant says nothing"]);
        assert_eq!(
            talk(&[("user", "u"), ("user", "v"), ("assistant", "a")]),
            ["message 2: user speaks twice in a row"]
        );
        assert_eq!(talk(&[("user", " "), ("assistant", "a")]), ["message 1: user says nothing"]);
        assert_eq!(talk(&[("human", "u"), ("assistant", "a")]), ["message 1: unknown role `human`"]);
        assert_eq!(
            talk(&[("user", "u"), ("system", "s"), ("assistant", "a")]),
            ["message 2: system speaks later than first"]
        );
        assert_eq!(talk(&[("system", "s"), ("assistant", "a")]), ["the assistant speaks first"]);
        assert_eq!(talk(&[("user", "u"), ("assistant", "a"), ("user", "v")]), ["user speaks last"]);
        assert_eq!(found(json!({"prompt": "a", "completion": ""})), ["`completion` is empty"]);
        assert_eq!(found(json!({"text": "\n"})), ["`text` is empty"]);
    }

    #[test]
    fn the_completion_goes_on_from_the_prompt() {
        let row = json!({"prompt": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}],
            "completion": [{"role": "assistant", "content": "b"}]});
        assert_eq!(found(row), ["message 3: assistant speaks twice in a row"]);
    }
}
