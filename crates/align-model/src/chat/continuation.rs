//! A last message that the model is to continue: the text is cut where that message's own text ends.

use serde_json::{Map, Value};

use super::{ChatError, python};

/// Put behind the last message's text, so that its end is found again. The space tells whether the template trims.
const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// The text that is to be continued; the tag has been put behind it.
pub(super) fn tag_final_message(
    messages: &mut [Map<String, Value>],
    template: &str,
) -> Result<String, ChatError> {
    let message = messages.last_mut().ok_or(ChatError::EmptyConversation)?;
    let Some(content) = message.get_mut("content") else {
        return Err(ChatError::NothingToContinue { reason: "the final message has no content" });
    };
    if !template.contains("content") {
        return Err(ChatError::NothingToContinue { reason: "the chat template reads no content" });
    }
    match content {
        Value::String(text) => Ok(add_tag(text)),
        Value::Array(parts) => {
            let last = parts.iter_mut().rev().find_map(|part| match part.get_mut("text") {
                Some(Value::String(text)) => Some(text),
                _ => None,
            });
            last.map(add_tag)
                .ok_or(ChatError::NothingToContinue { reason: "the final message has no text part" })
        }
        _ => Err(ChatError::NothingToContinue { reason: "the content of the final message is no text" }),
    }
}

fn add_tag(text: &mut String) -> String {
    let original = text.clone();
    text.push_str(TAG);
    original
}

/// The rendered text up to the end of the final message.
pub(super) fn cut_after(rendered: &str, final_message: &str) -> Result<String, ChatError> {
    let lost = || ChatError::FinalMessageLost { message: final_message.to_owned() };
    if !rendered.contains(final_message.trim_matches(python::is_space)) {
        return Err(lost());
    }
    let at = rendered.rfind(TAG.trim_end()).ok_or_else(lost)?;
    let text = &rendered[..at];
    // Where the template trims the message, the space behind the tag is gone; what it left before the tag goes too.
    let kept = if rendered[at..].starts_with(TAG) { text } else { text.trim_end_matches(python::is_space) };
    Ok(kept.to_owned())
}
