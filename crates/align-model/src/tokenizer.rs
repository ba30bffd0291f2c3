//! Text to tokens and back: the tokenizers of the Hugging Face format, as `transformers` reads them.

mod config;
mod error;
mod files;
mod stream;
#[cfg(test)]
pub(crate) mod test_tokenizers;

use std::{path::Path, sync::Arc};

use serde_json::{Map, Value};

use config::TokenizerConfig;
pub use error::TokenizerError;
pub use stream::DecodeStream;

/// Whether the tokens that the tokenizer puts around a text (`<s>` …) are added.
///
/// A special token that is written out in the text becomes that token either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Add them, as for a whole document.
    Add,
    /// Leave them out, as for a rendered chat, a piece or a continuation.
    Omit,
}

/// Whether special tokens appear in decoded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokenText {
    /// As their text.
    Keep,
    /// Not at all.
    Skip,
}

/// Tokens and where in the text they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// The tokens.
    pub ids: Vec<u32>,
    /// For each token the characters it covers, from and up to; (0, 0) for one that was added.
    pub offsets: Vec<(usize, usize)>,
}

impl Encoding {
    /// The first token that covers a character; `None` where none does.
    #[must_use]
    pub fn token_at(&self, character: usize) -> Option<usize> {
        self.offsets.iter().position(|&(start, end)| (start..end).contains(&character))
    }
}

/// A tokenizer with its special tokens and chat templates. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    tokenizer: tokenizers::Tokenizer,
    config: TokenizerConfig,
    /// Whether decoded text has its spaces before punctuation removed.
    cleans_up: bool,
    /// Whether tokens like `<0x0A>` stand for single bytes.
    byte_fallback: bool,
}

impl Tokenizer {
    /// Reads the tokenizer of a model directory: `tokenizer.json`, and where they are there `tokenizer_config.json`,
    /// `special_tokens_map.json`, `chat_template.jinja`, `additional_chat_templates/` and `chat_template.json`.
    ///
    /// # Errors
    ///
    /// Where `tokenizer.json` is missing or a file cannot be read.
    pub fn from_directory(directory: &Path) -> Result<Self, TokenizerError> {
        files::read(directory)
    }

    /// Puts a tokenizer together from its parts; the configuration is that of a `tokenizer_config.json`.
    ///
    /// # Errors
    ///
    /// Where the configuration has a key of the wrong kind or the tokenizer cannot take its tokens.
    pub fn from_parts(
        tokenizer: tokenizers::Tokenizer,
        tokenizer_config: Value,
    ) -> Result<Self, TokenizerError> {
        Self::from_config(
            tokenizer,
            TokenizerConfig::new(tokenizer_config, Path::new("tokenizer_config.json"))?,
        )
    }

    fn from_config(
        mut tokenizer: tokenizers::Tokenizer,
        config: TokenizerConfig,
    ) -> Result<Self, TokenizerError> {
        // What is cut off or filled up is for the caller to say, never for a file.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| TokenizerError::Tokenizer { reason: e.to_string() })?;
        config.apply(&mut tokenizer)?;
        let is_bpe = matches!(tokenizer.get_model(), tokenizers::ModelWrapper::BPE(_));
        let cleans_up = config.cleans_up(is_bpe);
        let decoder = serde_json::to_string(&tokenizer.get_decoder()).unwrap_or_default();
        let byte_fallback = decoder.contains("ByteFallback");
        Ok(Self { inner: Arc::new(Inner { tokenizer, config, cleans_up, byte_fallback }) })
    }

    /// The tokens of a text.
    ///
    /// # Errors
    ///
    /// Where the tokenizer has no token for a part of the text, not even an unknown one.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.tokenizer.encode_fast(text, special == SpecialTokens::Add);
        Ok(encoding.map_err(|e| TokenizerError::Encode { reason: e.to_string() })?.get_ids().to_vec())
    }

    /// The tokens of a text and the characters that each covers.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_with_offsets(
        &self,
        text: &str,
        special: SpecialTokens,
    ) -> Result<Encoding, TokenizerError> {
        let encoding = self.inner.tokenizer.encode_char_offsets(text, special == SpecialTokens::Add);
        let encoding = encoding.map_err(|e| TokenizerError::Encode { reason: e.to_string() })?;
        Ok(Encoding { ids: encoding.get_ids().to_vec(), offsets: encoding.get_offsets().to_vec() })
    }

    /// The text of tokens. Ids that the tokenizer does not have are left out.
    ///
    /// # Errors
    ///
    /// Where the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], special: SpecialTokenText) -> Result<String, TokenizerError> {
        let text = self.decode_raw(ids, special)?;
        Ok(if self.inner.cleans_up { clean_up(&text) } else { text })
    }

    fn decode_raw(&self, ids: &[u32], special: SpecialTokenText) -> Result<String, TokenizerError> {
        let text = self.inner.tokenizer.decode(ids, special == SpecialTokenText::Skip);
        text.map_err(|e| TokenizerError::Decode { reason: e.to_string() })
    }

    /// Decodes tokens one by one, as they are generated.
    #[must_use]
    pub fn decode_stream(&self, special: SpecialTokenText) -> DecodeStream {
        DecodeStream::new(self.clone(), special)
    }

    /// The id of a token; `None` where there is no such token.
    #[must_use]
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(token)
    }

    /// The token of an id, as the vocabulary writes it; `None` where there is no such id.
    #[must_use]
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.tokenizer.id_to_token(id)
    }

    /// The number of tokens, added ones included.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.tokenizer.get_vocab_size(true)
    }

    /// Whether an id is a special token, one that [`SpecialTokenText::Skip`] leaves out.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        let added = self.inner.tokenizer.get_added_vocabulary();
        self.id_to_token(id).is_some_and(|token| added.is_special_token(&token))
    }

    /// The token that begins a text.
    #[must_use]
    pub fn bos_token(&self) -> Option<&str> {
        self.special_token("bos_token")
    }

    /// The token that ends a text.
    #[must_use]
    pub fn eos_token(&self) -> Option<&str> {
        self.special_token("eos_token")
    }

    /// The token that fills up a batch.
    #[must_use]
    pub fn pad_token(&self) -> Option<&str> {
        self.special_token("pad_token")
    }

    /// The token that stands for what the vocabulary lacks.
    #[must_use]
    pub fn unk_token(&self) -> Option<&str> {
        self.special_token("unk_token")
    }

    /// The id of [`bos_token`](Self::bos_token).
    #[must_use]
    pub fn bos_id(&self) -> Option<u32> {
        self.bos_token().and_then(|token| self.token_to_id(token))
    }

    /// The id of [`eos_token`](Self::eos_token).
    #[must_use]
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_token().and_then(|token| self.token_to_id(token))
    }

    /// The id of [`pad_token`](Self::pad_token).
    #[must_use]
    pub fn pad_id(&self) -> Option<u32> {
        self.pad_token().and_then(|token| self.token_to_id(token))
    }

    /// The id of [`unk_token`](Self::unk_token).
    #[must_use]
    pub fn unk_id(&self) -> Option<u32> {
        self.unk_token().and_then(|token| self.token_to_id(token))
    }

    /// The special tokens by their names (`bos_token`, `sep_token` …): what chat templates see.
    #[must_use]
    pub fn special_tokens(&self) -> &Map<String, Value> {
        &self.inner.config.special_tokens
    }

    /// The chat templates by their names; `default` first where there is one.
    #[must_use]
    pub fn chat_templates(&self) -> &[(String, String)] {
        &self.inner.config.chat_templates
    }

    /// The tokenizer configuration, without its templates.
    #[must_use]
    pub fn config(&self) -> &Map<String, Value> {
        &self.inner.config.json
    }

    /// The same tokenizer with another default chat template.
    #[must_use]
    pub fn with_chat_template(&self, source: impl Into<String>) -> Self {
        let mut config = self.inner.config.clone();
        config.set_default_template(source.into());
        let inner = &self.inner;
        Self {
            inner: Arc::new(Inner {
                tokenizer: inner.tokenizer.clone(),
                config,
                cleans_up: inner.cleans_up,
                byte_fallback: inner.byte_fallback,
            }),
        }
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and the chat templates into a directory, which is made if need
    /// be. Each file appears whole or not at all.
    ///
    /// # Errors
    ///
    /// Where a file cannot be written or a template's name is no file name.
    pub fn save(&self, directory: &Path) -> Result<(), TokenizerError> {
        files::write(self, directory)
    }

    fn special_token(&self, name: &str) -> Option<&str> {
        self.inner.config.special_tokens.get(name).and_then(Value::as_str)
    }
}

/// `transformers`' removal of spaces before punctuation and contractions.
fn clean_up(text: &str) -> String {
    const REPLACEMENTS: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    REPLACEMENTS.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        test_tokenizers::{byte_fallback, byte_level, word_piece},
        *,
    };

    fn streamed(tokenizer: &Tokenizer, ids: &[u32], special: SpecialTokenText) -> String {
        let mut stream = tokenizer.decode_stream(special);
        let pieces: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        pieces + &stream.finish().unwrap()
    }

    #[test]
    fn texts_come_back() {
        let tokenizer = byte_level();
        let ids = tokenizer.encode("the <s>cat", SpecialTokens::Add).unwrap();
        assert_eq!(&ids[..1], [1]);
        assert_eq!(tokenizer.decode(&ids, SpecialTokenText::Keep).unwrap(), "<s>the <s>cat");
        assert_eq!(tokenizer.decode(&ids, SpecialTokenText::Skip).unwrap(), "the cat");
        assert_eq!(tokenizer.encode("the", SpecialTokens::Omit).unwrap().len(), 1);
        assert_eq!(tokenizer.decode(&[1, 99_999], SpecialTokenText::Keep).unwrap(), "<s>");
    }

    #[test]
    fn offsets_count_characters() {
        let encoding = byte_level().encode_with_offsets("é the", SpecialTokens::Omit).unwrap();
        assert_eq!(encoding.offsets, [(0, 1), (0, 1), (1, 5)]);
        assert_eq!(encoding.token_at(0), Some(0));
        assert_eq!(encoding.token_at(2), Some(2));
        assert_eq!(encoding.token_at(5), None);
    }

    #[test]
    fn special_tokens_are_known() {
        let tokenizer = byte_level();
        assert_eq!((tokenizer.bos_token(), tokenizer.bos_id()), (Some("<s>"), Some(1)));
        assert_eq!((tokenizer.eos_token(), tokenizer.eos_id()), (Some("</s>"), Some(2)));
        assert_eq!((tokenizer.pad_token(), tokenizer.pad_id()), (Some("</s>"), Some(2)));
        assert_eq!((tokenizer.unk_token(), tokenizer.unk_id()), (Some("<unk>"), Some(0)));
        assert_eq!(tokenizer.vocab_size(), 3 + 256 + 4);
        assert!(tokenizer.is_special(1) && !tokenizer.is_special(3));
        assert_eq!(tokenizer.id_to_token(1).as_deref(), Some("<s>"));
        assert_eq!(tokenizer.token_to_id("nothing"), None);
    }

    #[test]
    fn a_special_token_that_is_missing_is_added() {
        let config =
            serde_json::json!({"pad_token": "<pad>", "added_tokens_decoder": {"263": {"content": "<x>"}}});
        let tokenizer = Tokenizer::from_parts(byte_level().inner.tokenizer.clone(), config).unwrap();
        assert_eq!(tokenizer.token_to_id("<x>"), Some(263));
        assert_eq!(tokenizer.pad_id(), Some(264));
        assert_eq!(tokenizer.encode("a<pad>", SpecialTokens::Omit).unwrap()[1..], [264]);
        assert!(tokenizer.is_special(264) && !tokenizer.is_special(263));
    }

    #[test]
    fn halves_of_characters_wait() {
        let tokenizer = byte_level();
        let mut stream = tokenizer.decode_stream(SpecialTokenText::Keep);
        let ids = tokenizer.encode("a😀b", SpecialTokens::Omit).unwrap();
        let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        assert_eq!(pieces, ["a", "", "", "", "😀", "b"]);
        let mut stream = tokenizer.decode_stream(SpecialTokenText::Keep);
        assert_eq!(stream.push(ids[1]).unwrap(), "");
        assert_eq!(stream.finish().unwrap(), "\u{fffd}");
    }

    #[test]
    fn clean_up_is_that_of_transformers() {
        let tokenizer = word_piece();
        let ids = tokenizer.encode("it ' s , do n't . is it ?", SpecialTokens::Omit).unwrap();
        let text = tokenizer.decode(&ids, SpecialTokenText::Keep).unwrap();
        assert_eq!(text, clean_up("it ' s , do n ' <unk> . is it ?"));
        assert_eq!(streamed(&tokenizer, &ids, SpecialTokenText::Keep), text);
        assert_eq!(clean_up("do n't , it 's a ' b"), "don't, it's a'b");
    }

    #[test]
    fn a_saved_tokenizer_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let mut tokenizer = byte_level().with_chat_template("{{ messages }}");
        Arc::get_mut(&mut tokenizer.inner)
            .unwrap()
            .config
            .chat_templates
            .push(("tool_use".into(), "tools".into()));
        tokenizer.save(directory.path()).unwrap();
        let read = Tokenizer::from_directory(directory.path()).unwrap();
        assert_eq!(read.chat_templates(), tokenizer.chat_templates());
        assert_eq!(read.special_tokens(), tokenizer.special_tokens());
        let text = "the é <s> 1";
        assert_eq!(
            read.encode(text, SpecialTokens::Add).unwrap(),
            tokenizer.encode(text, SpecialTokens::Add).unwrap()
        );
        let files = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(files, 4, "nothing but the tokenizer, its configuration and its templates");
    }

    #[test]
    fn template_names_cannot_leave_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let config = serde_json::json!({"chat_template": [{"name": "../x", "template": "a"}]});
        let tokenizer = Tokenizer::from_parts(byte_level().inner.tokenizer.clone(), config).unwrap();
        assert!(matches!(tokenizer.save(directory.path()), Err(TokenizerError::Config { .. })));
    }

    #[test]
    fn template_files_win_over_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        byte_level().save(directory.path()).unwrap();
        let templates = || Tokenizer::from_directory(directory.path()).unwrap().chat_templates().to_vec();
        assert!(templates().is_empty());
        write("chat_template.json", r#"{"chat_template": "processor"}"#);
        assert_eq!(templates(), [("default".into(), "processor".into())]);
        write("tokenizer_config.json", r#"{"chat_template": "configuration"}"#);
        write("special_tokens_map.json", r#"{"bos_token": {"content": "<s>"}, "pad_token": "<unk>"}"#);
        assert_eq!(templates(), [("default".into(), "configuration".into())]);
        write("chat_template.jinja", "file");
        std::fs::create_dir(directory.path().join("additional_chat_templates")).unwrap();
        write("additional_chat_templates/rag.jinja", "rag");
        assert_eq!(templates(), [("default".into(), "file".into()), ("rag".into(), "rag".into())]);
        let tokenizer = Tokenizer::from_directory(directory.path()).unwrap();
        assert_eq!((tokenizer.bos_token(), tokenizer.pad_token()), (Some("<s>"), Some("<unk>")));
    }

    #[test]
    fn missing_and_broken_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = Tokenizer::from_directory(directory.path()).unwrap_err();
        assert!(matches!(error, TokenizerError::Missing { .. }));
        assert!(error.to_string().contains("save_pretrained"), "{error}");
        std::fs::write(directory.path().join("tokenizer.json"), "{").unwrap();
        let error = Tokenizer::from_directory(directory.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: not a valid tokenizer"), "{error}");
        byte_level().save(directory.path()).unwrap();
        std::fs::write(directory.path().join("tokenizer_config.json"), "[").unwrap();
        let error = Tokenizer::from_directory(directory.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json: not valid JSON"), "{error}");
    }

    proptest! {
        #[test]
        fn byte_level_texts_come_back(text in any::<String>()) {
            let tokenizer = byte_level();
            let encoding = tokenizer.encode_with_offsets(&text, SpecialTokens::Omit).unwrap();
            let decoded = tokenizer.decode(&encoding.ids, SpecialTokenText::Keep).unwrap();
            prop_assert_eq!(&decoded, &text);
            let length = text.chars().count();
            prop_assert!(encoding.offsets.iter().all(|&(start, end)| start <= end && end <= length));
        }

        #[test]
        fn streams_say_what_decoding_says(ids in prop::collection::vec(0u32..300, 0..40)) {
            for tokenizer in [byte_level(), byte_fallback(), word_piece()] {
                for special in [SpecialTokenText::Keep, SpecialTokenText::Skip] {
                    let decoded = tokenizer.decode(&ids, special).unwrap();
                    prop_assert_eq!(streamed(&tokenizer, &ids, special), decoded);
                }
            }
        }

        #[test]
        fn short_words_stream_as_they_decode(ids in prop::collection::vec(0u32..18, 0..30)) {
            let tokenizer = word_piece();
            let decoded = tokenizer.decode(&ids, SpecialTokenText::Keep).unwrap();
            prop_assert_eq!(streamed(&tokenizer, &ids, SpecialTokenText::Keep), decoded);
        }
    }
}
