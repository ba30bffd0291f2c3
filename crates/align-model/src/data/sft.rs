//! Demonstrations for supervised fine-tuning.

use serde_json::{Map, Value};

use super::messages::require_assistant;
use super::{Form, Record, RecordError, Row, hint::synonym};
use crate::chat::Message;

/// One demonstration for supervised fine-tuning.
#[derive(Debug, Clone, PartialEq)]
pub enum SftRecord {
    /// Plain text, learnt from its first token to its last.
    Text {
        /// The column `text`.
        text: String,
    },
    /// A conversation.
    Conversation {
        /// The column `messages`; at least one is the assistant's.
        messages: Vec<Message>,
        /// What the chat template needs besides the messages.
        template: TemplateColumns,
    },
    /// A text and how it goes on.
    PromptCompletion {
        /// The column `prompt`.
        prompt: String,
        /// The column `completion`.
        completion: String,
    },
    /// A conversation and how it goes on.
    PromptCompletionChat {
        /// The column `prompt`.
        prompt: Vec<Message>,
        /// The column `completion`; at least one message is the assistant's.
        completion: Vec<Message>,
        /// What the chat template needs besides the messages.
        template: TemplateColumns,
    },
}

/// The columns that a conversational row hands to the chat template besides its messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TemplateColumns {
    /// The column `tools`: descriptions of the functions that the assistant may call.
    pub tools: Option<Vec<Value>>,
    /// The column `chat_template_kwargs`: further variables of the template.
    pub chat_template_kwargs: Map<String, Value>,
}

/// What a row of demonstrations can look like, for an error message.
const LAYOUTS: &str = "`prompt` and `completion`, or `messages`, or `text`";

impl Record for SftRecord {
    /// Where a row has the columns of several layouts, `prompt` with `completion` comes before `messages`, and
    /// `messages` before `text`; the columns of the others are then extra columns.
    fn from_row(row: &mut Row) -> Result<Self, RecordError> {
        if row.has("prompt") && row.has("completion") {
            return prompt_completion(row);
        }
        if row.has("messages") {
            let messages = row.take_messages("messages")?;
            require_assistant("messages", &messages)?;
            return Ok(Self::Conversation { messages, template: TemplateColumns::take(row)? });
        }
        if row.has("text") {
            return Ok(Self::Text { text: row.take_text("text")? });
        }
        let found = row.names().map(str::to_owned).collect();
        Err(RecordError::Columns { found, expected: LAYOUTS, hint: hint(row) })
    }
}

impl TemplateColumns {
    pub(super) fn take(row: &mut Row) -> Result<Self, RecordError> {
        Ok(Self {
            tools: row.take_list("tools")?,
            chat_template_kwargs: row.take_object("chat_template_kwargs")?,
        })
    }
}

fn prompt_completion(row: &mut Row) -> Result<SftRecord, RecordError> {
    match (row.form("prompt")?, row.form("completion")?) {
        (Form::Text, Form::Text) => Ok(SftRecord::PromptCompletion {
            prompt: row.take_text("prompt")?,
            completion: row.take_text("completion")?,
        }),
        (Form::Messages, Form::Messages) => {
            let prompt = row.take_messages("prompt")?;
            let completion = row.take_messages("completion")?;
            require_assistant("completion", &completion)?;
            Ok(SftRecord::PromptCompletionChat { prompt, completion, template: TemplateColumns::take(row)? })
        }
        (Form::Text, Form::Messages) => {
            Err(RecordError::MixedForms { string: "prompt", messages: "completion" })
        }
        (Form::Messages, Form::Text) => {
            Err(RecordError::MixedForms { string: "completion", messages: "prompt" })
        }
    }
}

/// What to do about a row without the right columns, where it can be guessed.
fn hint(row: &Row) -> Option<String> {
    let source = |ours: &str| synonym(row, ours);

    if let Some(name) = source("messages") {
        return Some(format!("rename `{name}` to `messages`"));
    }
    match (row.has("prompt"), row.has("completion")) {
        (true, false) => Some(match source("completion") {
            Some(name) => format!("rename `{name}` to `completion`"),
            None => "`completion` is missing".to_owned(),
        }),
        (false, true) => Some(match source("prompt") {
            Some(name) => format!("rename `{name}` to `prompt`"),
            None => "`prompt` is missing; rename `completion` to `text` to train on it alone".to_owned(),
        }),
        _ => match (source("prompt"), source("completion"), source("text")) {
            (Some(prompt), Some(completion), _) => {
                Some(format!("rename `{prompt}` to `prompt` and `{completion}` to `completion`"))
            }
            (_, _, Some(text)) => Some(format!("rename `{text}` to `text`")),
            (_, Some("chosen"), _) => Some("rename `chosen` to `messages`".to_owned()),
            _ => None,
        },
    }
}
