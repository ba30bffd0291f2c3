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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::test_tokenizers::{byte_fallback, byte_level};

    const MARKED: &str = "{% for m in messages %}{{ m.role[0] }}:{% if m.role == 'assistant' %}\
                          {% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}\
                          {% endfor %}";

    fn render(source: &str, options: &RenderOptions) -> Result<RenderedTokens, ChatError> {
        let tokenizer = byte_level().with_chat_template(source);
        let templates = ChatTemplates::from_tokenizer(&tokenizer)?;
        templates.render_tokens(
            &tokenizer,
            &[Message::user("x"), Message::assistant("the cat")],
            None,
            options,
        )
    }

    #[test]
    fn the_assistants_tokens_are_marked() {
        let rendered = render(MARKED, &RenderOptions::default()).unwrap();
        let marked: Vec<u32> = rendered
            .ids
            .iter()
            .zip(&rendered.assistant_mask)
            .filter_map(|(&id, &marked)| marked.then_some(id))
            .collect();
        assert_eq!(marked, byte_level().encode("the cat", SpecialTokens::Omit).unwrap());
        let templates = ChatTemplates::from_tokenizer(&byte_level().with_chat_template(MARKED)).unwrap();
        let messages = [Message::user("x"), Message::assistant("the cat")];
        let ids = templates.render_ids(&byte_level(), &messages, None, &RenderOptions::default()).unwrap();
        assert_eq!(ids, rendered.ids);
    }

    #[test]
    fn a_mask_needs_marks_at_the_top_level() {
        let options = RenderOptions::default();
        assert!(matches!(render("{{ messages }}", &options), Err(ChatError::NoGenerationBlocks { .. })));
        let aside = format!("{{% set x %}}{MARKED}{{% endset %}}{{{{ x }}}}");
        assert!(matches!(render(&aside, &options), Err(ChatError::MisplacedGenerationBlock { .. })));
        let options = RenderOptions { continue_final_message: true, ..options };
        assert!(matches!(render(MARKED, &options), Err(ChatError::MaskAndContinuation)));
    }

    #[test]
    fn a_tokenizer_without_template_says_so() {
        assert!(matches!(ChatTemplates::from_tokenizer(&byte_fallback()), Err(ChatError::NoTemplate)));
    }

    #[test]
    fn spans_map_to_tokens_as_in_transformers() {
        let encoding =
            |offsets: &[(usize, usize)]| Encoding { ids: vec![0; offsets.len()], offsets: offsets.to_vec() };
        let mask = |encoding: &Encoding, span: Range<usize>| {
            super::mask(encoding, &[span]).iter().map(|&set| u8::from(set)).collect::<Vec<_>>()
        };
        let plain = encoding(&[(0, 2), (2, 3), (3, 6)]);
        assert_eq!(mask(&plain, 2..3), [0, 1, 0]);
        assert_eq!(mask(&plain, 1..4), [1, 1, 1]);
        assert_eq!(mask(&plain, 9..10), [0, 0, 0]);
        assert_eq!(mask(&plain, 0..1), [1, 1, 1], "a span that ends in the first token reaches to the end");
        assert_eq!(mask(&encoding(&[(0, 1), (1, 2), (1, 2), (2, 3)]), 1..2), [0, 1, 0, 0]);
    }
}
