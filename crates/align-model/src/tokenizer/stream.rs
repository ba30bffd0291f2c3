//! Decoding token by token.

use super::{SpecialTokenText, Tokenizer, TokenizerError, clean_up};

/// Text as it becomes certain while tokens arrive.
///
/// What a token means can depend on the next one: half of a character, a space that falls away. Such text is held back
/// until it is settled, so that the pieces one after another are exactly what [`Tokenizer::decode`] makes of all the
/// tokens.
#[derive(Debug, Clone)]
pub struct DecodeStream {
    tokenizer: Tokenizer,
    special: SpecialTokenText,
    /// The latest tokens: `context` of them whose text has been handed out, then the others.
    ids: Vec<u32>,
    /// The text of the context.
    context: String,
    /// Text that the clean-up may still change.
    unclean: String,
}

impl DecodeStream {
    pub(super) fn new(tokenizer: Tokenizer, special: SpecialTokenText) -> Self {
        Self { tokenizer, special, ids: Vec::new(), context: String::new(), unclean: String::new() }
    }

    /// Takes a token and returns the text that is certain now; empty where nothing is.
    ///
    /// # Errors
    ///
    /// Where the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        let Some(token) = self.tokenizer.id_to_token(id) else { return Ok(String::new()) };
        if self.special == SpecialTokenText::Skip && self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        self.ids.push(id);
        // One wrong byte makes a whole run of byte tokens unreadable, so a run counts when it has ended.
        if self.tokenizer.inner.byte_fallback && is_byte(&token) {
            return Ok(String::new());
        }
        let text = self.tokenizer.decode_raw(&self.ids, SpecialTokenText::Keep)?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let Some(new) = text.strip_prefix(self.context.as_str()).map(str::to_owned) else {
            return Ok(String::new());
        };
        self.forget(text)?;
        Ok(self.settle(new, false))
    }

    /// The text that was still held back, now that no further token comes.
    ///
    /// # Errors
    ///
    /// Where the tokenizer's decoder fails.
    pub fn finish(mut self) -> Result<String, TokenizerError> {
        let text = self.tokenizer.decode_raw(&self.ids, SpecialTokenText::Keep)?;
        let new = text.strip_prefix(self.context.as_str()).unwrap_or_default().to_owned();
        Ok(self.settle(new, true))
    }

    /// Keeps only as many tokens as the next one needs before it: those of the last piece.
    fn forget(&mut self, text: String) -> Result<(), TokenizerError> {
        const KEPT: usize = 4;
        self.context = text;
        if self.ids.len() <= 2 * KEPT {
            return Ok(());
        }
        let kept = self.ids[self.ids.len() - KEPT..].to_vec();
        let context = self.tokenizer.decode_raw(&kept, SpecialTokenText::Keep)?;
        // A context of its own must begin with whole characters and must leave a text for the next token to follow.
        if !context.is_empty() && self.context.ends_with(&context) {
            self.ids = kept;
            self.context = context;
        }
        Ok(())
    }

    fn settle(&mut self, new: String, last: bool) -> String {
        if !self.tokenizer.inner.cleans_up {
            return new;
        }
        self.unclean.push_str(&new);
        let certain = if last { self.unclean.len() } else { certain_length(&self.unclean) };
        let rest = self.unclean.split_off(certain);
        clean_up(&std::mem::replace(&mut self.unclean, rest))
    }
}

/// How much of a text the clean-up treats the same whatever follows: up to the last space behind a letter or digit, as
/// every pattern that begins earlier ends before it.
fn certain_length(text: &str) -> usize {
    let mut certain = 0;
    let mut previous = None;
    for (index, character) in text.char_indices() {
        if character == ' ' && previous.is_some_and(char::is_alphanumeric) {
            certain = index;
        }
        previous = Some(character);
    }
    certain
}

/// Whether a token stands for one byte: `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
