//! Prompts as a user gives them, and what the model reads of them.

use std::path::Path;

use align_model::{
    chat::{Message, RenderOptions},
    tokenizer::SpecialTokens,
};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use chrono::Local;
use serde::{Deserialize, Serialize};

use crate::model::LoadedModel;

/// What is put to a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Prompt {
    /// A text.
    Text(String),
    /// A conversation.
    Conversation(Vec<Message>),
}

/// How prompts become tokens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Framing {
    /// Texts as they stand.
    Raw,
    /// By the chat template, after this system message.
    Chat {
        /// The system message, if there is one.
        system: Option<String>,
    },
}

/// Reads a file of prompts.
pub(crate) fn read_file(path: &Path) -> Result<Vec<Prompt>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    read_lines(&text, &path.display().to_string())
}

/// Reads prompts, one a line; `source` is only for messages.
pub(crate) fn read_lines(text: &str, source: &str) -> Result<Vec<Prompt>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let prompts: Vec<Prompt> = lines
        .map(|(index, line)| read_line(line).with_context(|| format!("{source}:{}", index + 1)))
        .collect::<Result<_>>()?;
    ensure!(!prompts.is_empty(), "{source}: no prompts");
    Ok(prompts)
}

fn read_line(line: &str) -> Result<Prompt> {
    if !line.trim_start().starts_with('{') {
        return Ok(Prompt::Text(line.to_owned()));
    }
    let mut row: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(line).map_err(|error| anyhow!("not a JSON object: {error}"))?;
    let Some(prompt) = row.remove("prompt").or_else(|| row.remove("messages")) else {
        let found: Vec<&str> = row.keys().map(String::as_str).collect();
        bail!("expected `prompt` or `messages`, found {}", found.join(", "));
    };
    serde_json::from_value(prompt).context("a prompt is a text or a list of messages with role and content")
}

impl Prompt {
    /// The tokens that the model continues.
    pub(crate) fn tokens(&self, model: &LoadedModel, framing: &Framing) -> Result<Vec<u32>> {
        match (self, framing) {
            (Self::Text(text), Framing::Raw) => Ok(model.tokenizer.encode(text, SpecialTokens::Add)?),
            (Self::Text(text), Framing::Chat { system }) => {
                render(model, system.as_deref(), &[Message::user(text.as_str())])
            }
            (Self::Conversation(_), Framing::Raw) => {
                bail!("a list of messages needs a chat template: give texts to continue instead")
            }
            (Self::Conversation(messages), Framing::Chat { system }) => {
                render(model, system.as_deref(), messages)
            }
        }
    }
}

/// The tokens of a conversation up to where the answer begins.
pub(crate) fn render(model: &LoadedModel, system: Option<&str>, messages: &[Message]) -> Result<Vec<u32>> {
    let Some(templates) = &model.templates else {
        bail!("the model has no chat template: put a chat_template.jinja next to its tokenizer.json")
    };
    let messages: Vec<Message> =
        system.map(Message::system).into_iter().chain(messages.iter().cloned()).collect();
    let options = RenderOptions { now: Some(Local::now().naive_local()), ..RenderOptions::prompt() };
    Ok(templates.render_ids(&model.tokenizer, &messages, None, &options)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_prompt() {
        let text = "plain\n\n{\"prompt\": \"x\", \"id\": 3}\n{\"messages\": [{\"role\": \"user\", \"content\": \"y\"}]}\n";
        let conversation = Prompt::Conversation(vec![Message::user("y")]);
        let texts = ["plain", "x"].map(|text| Prompt::Text(text.into()));
        assert_eq!(read_lines(text, "f").unwrap(), [texts[0].clone(), texts[1].clone(), conversation]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let message = |text: &str| format!("{:#}", read_lines(text, "f").unwrap_err());
        assert!(message("a\n{\"prompt\": }\n").starts_with("f:2: not a JSON object"));
        assert_eq!(message("{\"text\": 1}"), "f:1: expected `prompt` or `messages`, found text");
        assert!(message("{\"prompt\": 1}").starts_with("f:1: a prompt is a text or a list of messages"));
        assert_eq!(message("\n"), "f: no prompts");
    }
}
