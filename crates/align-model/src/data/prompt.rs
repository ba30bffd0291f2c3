//! Prompts alone, for methods whose completions come from the model.

use super::{Form, Record, RecordError, Row, TemplateColumns, hint::missing};
use crate::chat::Message;

/// A prompt; what a reward needs to know besides it is in the extra columns.
#[derive(Debug, Clone, PartialEq)]
pub enum PromptRecord {
    /// A text to continue.
    Text {
        /// The column `prompt`.
        prompt: String,
    },
    /// A conversation to continue.
    Chat {
        /// The column `prompt`.
        prompt: Vec<Message>,
        /// What the chat template needs besides the messages.
        template: TemplateColumns,
    },
}

impl Record for PromptRecord {
    fn from_row(row: &mut Row) -> Result<Self, RecordError> {
        if !row.has("prompt") {
            return Err(missing(row, &["prompt"], "`prompt`"));
        }
        Ok(match row.form("prompt")? {
            Form::Text => Self::Text { prompt: row.take_text("prompt")? },
            Form::Messages => {
                Self::Chat { prompt: row.take_messages("prompt")?, template: TemplateColumns::take(row)? }
            }
        })
    }
}
