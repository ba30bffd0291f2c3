//! Preferences: of two completions the better one, or of one completion whether it is good.

use super::{Form, Record, RecordError, Row, TemplateColumns, hint::missing, messages::require_assistant};
use crate::chat::Message;

/// A prompt and two completions, of which the first is preferred.
#[derive(Debug, Clone, PartialEq)]
pub enum PreferenceRecord {
    /// Texts.
    Text {
        /// The column `prompt`, or what `chosen` and `rejected` have in common at the beginning.
        prompt: String,
        /// The column `chosen`, without the prompt.
        chosen: String,
        /// The column `rejected`, without the prompt.
        rejected: String,
        /// The column `margin`: by how much the first completion is better, where the data say so.
        margin: Option<f32>,
    },
    /// Conversations.
    Chat {
        /// The column `prompt`, or the messages that `chosen` and `rejected` have in common at the beginning.
        prompt: Vec<Message>,
        /// The column `chosen`, without the prompt; at least one message is the assistant's.
        chosen: Vec<Message>,
        /// The column `rejected`, without the prompt; at least one message is the assistant's.
        rejected: Vec<Message>,
        /// The column `margin`: by how much the first completion is better, where the data say so.
        margin: Option<f32>,
        /// What the chat template needs besides the messages.
        template: TemplateColumns,
    },
}

/// A prompt, one completion, and whether it is desirable.
#[derive(Debug, Clone, PartialEq)]
pub enum UnpairedRecord {
    /// Texts.
    Text {
        /// The column `prompt`.
        prompt: String,
        /// The column `completion`.
        completion: String,
        /// The column `label`: whether the completion is desirable.
        label: bool,
    },
    /// Conversations.
    Chat {
        /// The column `prompt`.
        prompt: Vec<Message>,
        /// The column `completion`; at least one message is the assistant's.
        completion: Vec<Message>,
        /// The column `label`: whether the completion is desirable.
        label: bool,
        /// What the chat template needs besides the messages.
        template: TemplateColumns,
    },
}

impl PreferenceRecord {
    /// The same preference as one desirable and one undesirable completion.
    #[must_use]
    pub fn unpair(self) -> [UnpairedRecord; 2] {
        match self {
            Self::Text { prompt, chosen, rejected, margin: _ } => [
                UnpairedRecord::Text { prompt: prompt.clone(), completion: chosen, label: true },
                UnpairedRecord::Text { prompt, completion: rejected, label: false },
            ],
            Self::Chat { prompt, chosen, rejected, margin: _, template } => [
                UnpairedRecord::Chat {
                    prompt: prompt.clone(),
                    completion: chosen,
                    label: true,
                    template: template.clone(),
                },
                UnpairedRecord::Chat { prompt, completion: rejected, label: false, template },
            ],
        }
    }
}

impl Record for PreferenceRecord {
    /// Without a `prompt`, and where it is a string but the completions are conversations, the prompt is what `chosen`
    /// and `rejected` have in common at the beginning, as TRL's `extract_prompt` finds it: it leaves either at least its
    /// last message or character, and a space before the first difference belongs to the completions.
    fn from_row(row: &mut Row) -> Result<Self, RecordError> {
        if !row.has("chosen") || !row.has("rejected") {
            return Err(missing(
                row,
                &["chosen", "rejected"],
                "`chosen` and `rejected`, with `prompt` or without",
            ));
        }
        let form = same_form(row, "chosen", "rejected")?;
        let prompt = if row.has("prompt") { Some(row.form("prompt")?) } else { None };
        match (prompt, form) {
            (None, Form::Text) => implicit_text(row),
            (Some(Form::Text), Form::Text) => Ok(Self::Text {
                prompt: row.take_text("prompt")?,
                chosen: row.take_text("chosen")?,
                rejected: row.take_text("rejected")?,
                margin: row.take_number("margin")?,
            }),
            (Some(Form::Messages), Form::Text) => {
                Err(RecordError::MixedForms { string: "chosen", messages: "prompt" })
            }
            (None | Some(Form::Text), Form::Messages) => implicit_chat(row),
            (Some(Form::Messages), Form::Messages) => {
                let prompt = row.take_messages("prompt")?;
                let (chosen, rejected) = (row.take_messages("chosen")?, row.take_messages("rejected")?);
                chat(row, prompt, chosen, rejected)
            }
        }
    }
}

impl Record for UnpairedRecord {
    fn from_row(row: &mut Row) -> Result<Self, RecordError> {
        let needed = ["prompt", "completion", "label"];
        if needed.iter().any(|column| !row.has(column)) {
            return Err(missing(row, &needed, "`prompt`, `completion` and `label`"));
        }
        Ok(match same_form(row, "prompt", "completion")? {
            Form::Text => Self::Text {
                prompt: row.take_text("prompt")?,
                completion: row.take_text("completion")?,
                label: row.take_bool("label")?,
            },
            Form::Messages => {
                let prompt = row.take_messages("prompt")?;
                let completion = row.take_messages("completion")?;
                require_assistant("completion", &completion)?;
                let label = row.take_bool("label")?;
                Self::Chat { prompt, completion, label, template: TemplateColumns::take(row)? }
            }
        })
    }
}

/// The form that two columns share.
fn same_form(row: &Row, one: &'static str, other: &'static str) -> Result<Form, RecordError> {
    match (row.form(one)?, row.form(other)?) {
        (Form::Text, Form::Messages) => Err(RecordError::MixedForms { string: one, messages: other }),
        (Form::Messages, Form::Text) => Err(RecordError::MixedForms { string: other, messages: one }),
        (form, _) => Ok(form),
    }
}

fn implicit_text(row: &mut Row) -> Result<PreferenceRecord, RecordError> {
    let (chosen, rejected) = (row.take_text("chosen")?, row.take_text("rejected")?);
    let column = if chosen.is_empty() { "chosen" } else { "rejected" };
    let shorter = chosen.chars().count().min(rejected.chars().count());
    let last = shorter.checked_sub(1).ok_or(RecordError::EmptyColumn { column })?;
    let both = || chosen.char_indices().zip(rejected.chars()).take(shorter);
    let mut end = both()
        .find(|((_, chosen), rejected)| chosen != rejected)
        .or_else(|| both().nth(last))
        .map_or(0, |((at, _), _)| at);
    let is_different = !chosen[end..].chars().zip(rejected[end..].chars()).all(|(one, other)| one == other);
    if is_different && chosen[..end].ends_with(' ') {
        end -= 1;
    }
    Ok(PreferenceRecord::Text {
        prompt: chosen[..end].to_owned(),
        chosen: chosen[end..].to_owned(),
        rejected: rejected[end..].to_owned(),
        margin: row.take_number("margin")?,
    })
}

fn implicit_chat(row: &mut Row) -> Result<PreferenceRecord, RecordError> {
    let (mut prompt, mut other) = (row.take_messages("chosen")?, row.take_messages("rejected")?);
    let shorter = prompt.len().min(other.len());
    let shared = prompt.iter().zip(&other).take(shorter - 1).take_while(|(one, other)| one == other).count();
    if shared == 0 {
        return Err(RecordError::NoSharedPrompt { chosen: "chosen", rejected: "rejected" });
    }
    let (chosen, rejected) = (prompt.split_off(shared), other.split_off(shared));
    chat(row, prompt, chosen, rejected)
}

fn chat(
    row: &mut Row,
    prompt: Vec<Message>,
    chosen: Vec<Message>,
    rejected: Vec<Message>,
) -> Result<PreferenceRecord, RecordError> {
    require_assistant("chosen", &chosen)?;
    require_assistant("rejected", &rejected)?;
    let margin = row.take_number("margin")?;
    Ok(PreferenceRecord::Chat { prompt, chosen, rejected, margin, template: TemplateColumns::take(row)? })
}

#[cfg(test)]
mod tests;
