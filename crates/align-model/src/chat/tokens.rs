//! A rendered conversation as tokens, and which of them the assistant wrote.

use std::ops::Range;

use serde_json::Value;

use super::{ChatError, ChatTemplates, Message, RenderOptions};
use crate::tokenizer::{Encoding, SpecialTokens, Tokenizer};

/// A rendered conversation in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedTokens {
    /// The tokens of the text; no special tokens beyond those that the template wrote.
    pub ids: Vec<u32>,
    /// Which tokens the assistant wrote.
    pub assistant_mask: Vec<bool>,
}

impl ChatTemplates {
    /// Renders a conversation to tokens, without a mask.
    ///
    /// # Errors
    ///
    /// As [`render`](Self::render), and where the text cannot be tokenized.
    pub fn render_ids(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        tools: Option<&[Value]>,
        options: &RenderOptions,
    ) -> Result<Vec<u32>, ChatError> {
        let rendered = self.render(messages, tools, options)?;
        Ok(tokenizer.encode(&rendered.text, SpecialTokens::Omit)?)
    }

    /// Renders a conversation to tokens and says which of them lie in the template's generation blocks.
    ///
    /// # Errors
    ///
    /// As [`render`](Self::render); and where the template has no generation blocks, where one lies inside a macro or a
    /// captured block, where the last message is to be continued, or where the text cannot be tokenized.
    pub fn render_tokens(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        tools: Option<&[Value]>,
        options: &RenderOptions,
    ) -> Result<RenderedTokens, ChatError> {
        if options.continue_final_message {
            return Err(ChatError::MaskAndContinuation);
        }
        let template = self.select(options.template.as_deref(), tools)?;
        if !template.has_generation_blocks() {
            return Err(ChatError::NoGenerationBlocks { template: template.name().to_owned() });
        }
        if template.has_misplaced_generation_block() {
            return Err(ChatError::MisplacedGenerationBlock { template: template.name().to_owned() });
        }
        let rendered = self.render_with(template, messages, tools, options)?;
        let encoding = tokenizer.encode_with_offsets(&rendered.text, SpecialTokens::Omit)?;
        let assistant_mask = mask(&encoding, &rendered.generation_spans);
        Ok(RenderedTokens { ids: encoding.ids, assistant_mask })
    }
}

/// The tokens from the one that holds a span's first character to the first that holds its last character.
///
/// A character of several tokens counts by its first token and a span that ends in the first token, or behind the last
/// one, reaches to the end: both as in `transformers`, whose masks others train with.
fn mask(encoding: &Encoding, spans: &[Range<usize>]) -> Vec<bool> {
    let mut mask = vec![false; encoding.ids.len()];
    for span in spans {
        let Some(first) = encoding.token_at(span.start) else { break };
        let last = span.end.checked_sub(1).and_then(|end| encoding.token_at(end));
        let end = last.filter(|last| *last > 0).map_or(mask.len(), |last| last + 1);
        if let Some(tokens) = mask.get_mut(first..end) {
            tokens.fill(true);
        }
    }
    mask
}
