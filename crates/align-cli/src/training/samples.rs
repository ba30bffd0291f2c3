//! What a model writes while it learns.

use std::num::{NonZeroU64, NonZeroUsize};

use align_model::{
    causal_lm::IncrementalLm,
    chat::{ChatTemplates, Message, RenderOptions},
    generate::{Decoding, GenerationConfig, SamplingConfig, StopAt, generate},
    tokenizer::{SpecialTokens, Tokenizer},
    train::{GeneratedSample, HookError},
};
use anyhow::{Context as _, Result, bail};
use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};

use crate::prompts::Prompt;

/// What a model is asked while it learns, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SamplesTable {
    /// Texts, or lists of messages. A text is put to the model as a request where it has a chat template.
    pub(crate) prompts: Vec<Prompt>,
    /// Steps from one time to the next; besides, before the first step and after the last.
    pub(crate) every: NonZeroU64,
    /// Tokens an answer, at most. The most likely token is taken each time.
    pub(crate) max_new_tokens: NonZeroUsize,
}

impl Default for SamplesTable {
    fn default() -> Self {
        Self {
            prompts: Vec::new(),
            every: NonZeroU64::MIN.saturating_add(499),
            max_new_tokens: NonZeroUsize::MIN.saturating_add(127),
        }
    }
}

/// Prompts as a model reads them.
#[derive(Debug)]
pub(crate) struct SamplePrompts<'a> {
    tokenizer: &'a Tokenizer,
    prompts: Vec<(String, Vec<u32>)>,
    config: GenerationConfig,
}

impl<'a> SamplePrompts<'a> {
    /// Reads the prompts of a run.
    pub(crate) fn new(
        table: &SamplesTable,
        tokenizer: &'a Tokenizer,
        templates: Option<&ChatTemplates>,
        end_tokens: Vec<u32>,
        now: NaiveDateTime,
    ) -> Result<Self> {
        let read = |(index, prompt): (usize, &Prompt)| {
            let tokens = tokens(prompt, tokenizer, templates, now);
            Ok((shown(prompt), tokens.with_context(|| format!("samples.prompts: prompt {}", index + 1))?))
        };
        let prompts = table.prompts.iter().enumerate().map(read).collect::<Result<_>>()?;
        let config = GenerationConfig {
            max_new_tokens: table.max_new_tokens,
            sampling: SamplingConfig { decoding: Decoding::Greedy, ..SamplingConfig::default() },
            stop: StopAt { tokens: end_tokens, strings: Vec::new() },
            ..GenerationConfig::default()
        };
        Ok(Self { tokenizer, prompts, config })
    }

    /// What a model makes of them.
    pub(crate) fn answered_by<M: IncrementalLm>(&self, model: &M) -> Result<Vec<GeneratedSample>, HookError> {
        let failed = |reason: String| HookError { hook: "samples", reason };
        let tokens: Vec<Vec<u32>> = self.prompts.iter().map(|(_, tokens)| tokens.clone()).collect();
        let generated = generate(model, &tokens, &self.config, Some(self.tokenizer));
        let generated = generated.map_err(|error| failed(error.to_string()))?;
        let answers = self.prompts.iter().zip(&generated).map(|((prompt, _), samples)| {
            let texts = samples.iter().map(|sample| sample.text(self.tokenizer, &self.config.stop));
            let completion =
                texts.collect::<Result<String, _>>().map_err(|error| failed(error.to_string()))?;
            Ok(GeneratedSample { prompt: prompt.clone(), completion })
        });
        answers.collect()
    }
}

fn tokens(
    prompt: &Prompt,
    tokenizer: &Tokenizer,
    templates: Option<&ChatTemplates>,
    now: NaiveDateTime,
) -> Result<Vec<u32>> {
    let request;
    let (messages, templates) = match (prompt, templates) {
        (Prompt::Text(text), None) => return Ok(tokenizer.encode(text, SpecialTokens::Add)?),
        (Prompt::Conversation(_), None) => {
            bail!("a list of messages needs a chat template, and the model has none")
        }
        (Prompt::Text(text), Some(templates)) => {
            request = [Message::user(text.as_str())];
            (&request[..], templates)
        }
        (Prompt::Conversation(messages), Some(templates)) => (&messages[..], templates),
    };
    let options = RenderOptions { now: Some(now), ..RenderOptions::prompt() };
    Ok(templates.render_ids(tokenizer, messages, None, &options)?)
}

/// A prompt for people.
fn shown(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Conversation(messages) => {
            let lines = messages.iter().map(|message| {
                let message = serde_json::to_value(message).unwrap_or_default();
                let content =
                    message["content"].as_str().map_or_else(|| message["content"].to_string(), Into::into);
                format!("{}: {content}", message["role"].as_str().unwrap_or_default())
            });
            lines.collect::<Vec<String>>().join("\n")
        }
    }
}
