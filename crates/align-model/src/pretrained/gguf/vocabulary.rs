//! The tokens of a GGUF file and which of them are special.

use tokenizers::AddedToken;

use super::architecture::Architecture;
use super::metadata::Metadata;
use crate::pretrained::LoadError;

const TYPE_UNKNOWN: u64 = 2;
const TYPE_CONTROL: u64 = 3;
const TYPE_USER_DEFINED: u64 = 4;

/// How text becomes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Byte-pair encoding of bytes, as GPT-2 does it.
    ByteLevel,
    /// Byte-pair encoding of characters with bytes as the last resort, as `SentencePiece` does it.
    SentencePiece,
    /// Gemma's `SentencePiece`: without a space before the text, and with runs of spaces as tokens.
    Gemma,
}

/// A special token: its role, which is its name in `tokenizer_config.json`, its id and its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpecialToken<'a> {
    /// `bos_token`, `eos_token`, `unk_token` or `pad_token`.
    pub(super) role: &'static str,
    /// The index into the vocabulary.
    pub(super) id: u32,
    /// The token.
    pub(super) text: &'a str,
}

/// The tokens of a file.
#[derive(Debug)]
pub(super) struct Vocabulary<'a> {
    /// How text becomes tokens.
    pub(super) kind: Kind,
    /// The tokens; the index is the id.
    pub(super) tokens: Vec<&'a str>,
    /// The tokens with a role.
    pub(super) special: Vec<SpecialToken<'a>>,
    types: Vec<u64>,
}

impl<'a> Vocabulary<'a> {
    /// Reads the vocabulary out of a file's metadata.
    pub(super) fn read(metadata: &'a Metadata, architecture: Architecture) -> Result<Self, LoadError> {
        let kind = match metadata.string("tokenizer.ggml.model")? {
            Some("gpt2") => Kind::ByteLevel,
            Some("llama") if architecture == Architecture::Gemma3 => Kind::Gemma,
            Some("llama") => Kind::SentencePiece,
            Some(other) => {
                let reason = format!(
                    "tokenizer.ggml.model `{other}` is not supported (supported: gpt2, llama); put the model's \
                     tokenizer.json next to the file"
                );
                return Err(invalid(metadata, reason));
            }
            None => {
                return Err(invalid(
                    metadata,
                    "the file holds no tokenizer: tokenizer.ggml.model is missing",
                ));
            }
        };
        let tokens = metadata.strings("tokenizer.ggml.tokens")?.unwrap_or_default();
        if tokens.is_empty() {
            return Err(invalid(
                metadata,
                "the file holds no tokens: tokenizer.ggml.tokens is missing or empty",
            ));
        }
        let types = metadata.integers("tokenizer.ggml.token_type")?.unwrap_or_default();
        if !types.is_empty() && types.len() != tokens.len() {
            let reason =
                format!("tokenizer.ggml.token_type has {} entries for {} tokens", types.len(), tokens.len());
            return Err(invalid(metadata, reason));
        }
        let special = special_tokens(metadata, &tokens)?;
        Ok(Self { kind, tokens, special, types })
    }

    /// The special token with a role such as `bos_token`.
    pub(super) fn role(&self, role: &str) -> Option<SpecialToken<'a>> {
        self.special.iter().copied().find(|token| token.role == role)
    }

    /// The tokens that are matched whole in a text, with their ids: control tokens and those with a role are special,
    /// user-defined ones are not.
    pub(super) fn added_tokens(&self) -> Vec<(u32, AddedToken)> {
        let ids = 0..self.tokens.len() as u32;
        ids.zip(&self.tokens)
            .filter(|(_, text)| !(text.is_empty() || self.kind == Kind::Gemma && is_run_of_spaces(text)))
            .filter_map(|(id, text)| {
                let special = self.is_special(id);
                let added = special || self.types.get(id as usize) == Some(&TYPE_USER_DEFINED);
                added.then(|| (id, AddedToken::from(*text, special).normalized(false)))
            })
            .collect()
    }

    fn is_special(&self, id: u32) -> bool {
        matches!(self.types.get(id as usize), Some(&(TYPE_CONTROL | TYPE_UNKNOWN)))
            || self.special.iter().any(|token| token.id == id)
    }
}

/// Whether a token is nothing but spaces. Gemma's files spell such tokens as spaces, but its tokenizer finds them, like
/// all others, after spaces have been replaced by a mark; they are not matched in the raw text.
pub(super) fn is_run_of_spaces(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte == b' ')
}

/// The error for a tokenizer that contradicts itself or is not supported.
pub(super) fn invalid(metadata: &Metadata, reason: impl Into<String>) -> LoadError {
    LoadError::Tokenizer { path: metadata.path().to_owned(), reason: reason.into() }
}

fn special_tokens<'a>(metadata: &Metadata, tokens: &[&'a str]) -> Result<Vec<SpecialToken<'a>>, LoadError> {
    let roles =
        [("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("pad_token", "padding")];
    let mut special = Vec::new();
    for (role, name) in roles {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = metadata.integer(&key)? else { continue };
        let text = usize::try_from(id).ok().and_then(|id| tokens.get(id)).copied().ok_or_else(|| {
            invalid(metadata, format!("{key} is {id}, but there are {} tokens", tokens.len()))
        })?;
        special.push(SpecialToken { role, id: id as u32, text });
    }
    Ok(special)
}
