//! `tokenizer.json` and `tokenizer_config.json` from GGUF metadata.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{BPE, BpeBuilder};
use tokenizers::{DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer};

use super::architecture::Architecture;
use super::merges;
use super::metadata::Metadata;
use super::pre_tokenizer::{self, ByteLevelRules};
use super::vocabulary::{Kind, SpecialToken, Vocabulary, invalid, is_run_of_spaces};
use crate::pretrained::LoadError;

/// `SentencePiece`'s mark of a space.
const SPACE_MARK: &str = "\u{2581}";

/// Builds the tokenizer that a file describes.
pub(super) fn build(metadata: &Metadata, architecture: Architecture) -> Result<Tokenizer, LoadError> {
    let vocabulary = Vocabulary::read(metadata, architecture)?;
    let parts = match vocabulary.kind {
        Kind::ByteLevel => byte_level(metadata, architecture, &vocabulary)?,
        Kind::SentencePiece | Kind::Gemma => sentence_piece(metadata, &vocabulary)?,
    };
    let mut tokenizer = Tokenizer::new(parts.model);
    let failed =
        |error: tokenizers::Error| invalid(metadata, format!("the tokenizer cannot be built: {error}"));
    let normalizer: Option<NormalizerWrapper> = parse(metadata, parts.normalizer)?;
    tokenizer.with_normalizer(normalizer).map_err(failed)?;
    tokenizer.with_pre_tokenizer(parse::<PreTokenizerWrapper>(metadata, parts.pre_tokenizer)?);
    tokenizer.with_decoder(parse::<DecoderWrapper>(metadata, Some(parts.decoder))?);
    let post_processor = post_processor(&vocabulary, added_ends(metadata, architecture, &vocabulary)?);
    tokenizer.with_post_processor(parse::<PostProcessorWrapper>(metadata, post_processor)?);
    let (special, plain): (Vec<_>, Vec<_>) =
        vocabulary.added_tokens().into_iter().map(|(_, token)| token).partition(|token| token.special);
    tokenizer.add_special_tokens(special).map_err(failed)?;
    tokenizer.add_tokens(plain).map_err(failed)?;
    Ok(tokenizer)
}

/// Everything `tokenizer_config.json` would say.
pub(super) fn tokenizer_config(metadata: &Metadata, architecture: Architecture) -> Result<Value, LoadError> {
    let vocabulary = Vocabulary::read(metadata, architecture)?;
    let mut config = Map::new();
    let ends = added_ends(metadata, architecture, &vocabulary)?;
    config.insert("add_bos_token".to_owned(), json!(ends.bos));
    config.insert("add_eos_token".to_owned(), json!(ends.eos));
    config.insert("add_prefix_space".to_owned(), json!(adds_prefix_space(metadata, vocabulary.kind)?));
    let added: Map<String, Value> = vocabulary
        .added_tokens()
        .into_iter()
        .map(|(id, token)| {
            (
                id.to_string(),
                json!({
                    "content": token.content,
                    "lstrip": token.lstrip,
                    "normalized": token.normalized,
                    "rstrip": token.rstrip,
                    "single_word": token.single_word,
                    "special": token.special,
                }),
            )
        })
        .collect();
    config.insert("added_tokens_decoder".to_owned(), Value::Object(added));
    for token in &vocabulary.special {
        config.insert(token.role.to_owned(), json!(token.text));
    }
    if let Some(template) = chat_template(metadata)? {
        config.insert("chat_template".to_owned(), template);
    }
    config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    if let Some(length) = metadata.integer(&format!("{}.context_length", architecture.name()))? {
        config.insert("model_max_length".to_owned(), json!(length));
    }
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    Ok(Value::Object(config))
}

/// The parts in which the kinds of tokenizers differ; all but the model as `tokenizer.json` describes them.
struct Parts {
    model: BPE,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    decoder: Value,
}

/// Which special tokens are put around every text.
#[derive(Clone, Copy)]
struct AddedEnds {
    bos: bool,
    eos: bool,
}

fn byte_level(
    metadata: &Metadata,
    architecture: Architecture,
    vocabulary: &Vocabulary<'_>,
) -> Result<Parts, LoadError> {
    let rules = byte_level_rules(metadata, architecture)?;
    let tokens = byte_level_spelling(vocabulary);
    let ids = ids_of(tokens.iter().map(AsRef::as_ref));
    let Some(listed) = metadata.strings("tokenizer.ggml.merges")? else {
        return Err(invalid(metadata, "the file holds no merges: tokenizer.ggml.merges is missing"));
    };
    let merges = merges::parse(&listed, &ids).map_err(|reason| invalid(metadata, reason))?;
    let add_prefix_space = adds_prefix_space(metadata, Kind::ByteLevel)?;
    Ok(Parts {
        model: build_model(metadata, &ids, merges, BPE::builder().ignore_merges(rules.whole_words_and_bos))?,
        normalizer: rules.normalizer(),
        pre_tokenizer: Some(rules.pre_tokenizer(add_prefix_space)),
        decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
    })
}

fn sentence_piece(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Parts, LoadError> {
    let gemma = vocabulary.kind == Kind::Gemma;
    let tokens = if gemma { marked_spaces(vocabulary) } else { plain_spelling(vocabulary) };
    let texts: Vec<&str> = tokens.iter().map(AsRef::as_ref).collect();
    let ids = ids_of(texts.iter().copied());
    let merges = match metadata.strings("tokenizer.ggml.merges")? {
        Some(listed) => merges::parse(&listed, &ids),
        None => merges::from_scores(&texts, &merge_scores(metadata, gemma, texts.len())?, &ids),
    };
    let merges = merges.map_err(|reason| invalid(metadata, reason))?;
    let mut builder = BPE::builder().fuse_unk(true).byte_fallback(true);
    if let Some(unknown) = vocabulary.role("unk_token") {
        builder = builder.unk_token(unknown.text.to_owned());
    }
    let model = build_model(metadata, &ids, merges, builder)?;
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    let mark_spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK});
    let (normalizer, pre_tokenizer) = if gemma {
        let split = json!({
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false
        });
        (mark_spaces, Some(split))
    } else if adds_prefix_space(metadata, vocabulary.kind)? {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        let prepend = json!({"type": "Prepend", "prepend": SPACE_MARK});
        (json!({"type": "Sequence", "normalizers": [prepend, mark_spaces]}), None)
    } else {
        (mark_spaces, None)
    };
    let decoder = json!({"type": "Sequence", "decoders": decoders});
    Ok(Parts { model, normalizer: Some(normalizer), pre_tokenizer, decoder })
}

fn build_model(
    metadata: &Metadata,
    ids: &HashMap<&str, u32>,
    merges: Vec<(String, String)>,
    builder: BpeBuilder,
) -> Result<BPE, LoadError> {
    let vocabulary: tokenizers::models::bpe::Vocab =
        ids.iter().map(|(token, id)| ((*token).to_owned(), *id)).collect();
    let model = builder.vocab_and_merges(vocabulary, merges).build();
    model.map_err(|error| invalid(metadata, format!("the tokenizer cannot be built: {error}")))
}

fn ids_of<'a>(tokens: impl Iterator<Item = &'a str>) -> HashMap<&'a str, u32> {
    tokens.zip(0..).collect()
}

fn plain_spelling<'a>(vocabulary: &Vocabulary<'a>) -> Vec<Cow<'a, str>> {
    vocabulary.tokens.iter().map(|token| Cow::Borrowed(*token)).collect()
}

/// The tokens with runs of spaces written as the tokenizer looks them up.
fn marked_spaces<'a>(vocabulary: &Vocabulary<'a>) -> Vec<Cow<'a, str>> {
    let respell = |token: &'a str| {
        if is_run_of_spaces(token) {
            Cow::Owned(SPACE_MARK.repeat(token.len()))
        } else {
            Cow::Borrowed(token)
        }
    };
    vocabulary.tokens.iter().map(|token| respell(token)).collect()
}

/// Tokens that are not written in GPT-2's alphabet of bytes and are not matched whole either are brought into it.
fn byte_level_spelling<'a>(vocabulary: &Vocabulary<'a>) -> Vec<Cow<'a, str>> {
    let alphabet = byte_alphabet();
    let mut tokens = plain_spelling(vocabulary);
    let whole: Vec<u32> = vocabulary.added_tokens().into_iter().map(|(id, _)| id).collect();
    for (id, token) in (0..).zip(&mut tokens) {
        let spelled = token.chars().all(|character| alphabet.contains(&character));
        if !spelled && whole.binary_search(&id).is_err() {
            *token = Cow::Owned(token.bytes().map(|byte| alphabet[usize::from(byte)]).collect());
        }
    }
    tokens
}

/// The character by which GPT-2 writes each byte: itself where it is printable, else one from U+0100 on.
fn byte_alphabet() -> Vec<char> {
    let mut next = 0x100_u32;
    let mut spell = |byte: u8| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    };
    (0..=u8::MAX).map(&mut spell).collect()
}

/// What decides which merge comes first. Gemma's scores do not follow its merges, the order of its tokens does.
fn merge_scores(metadata: &Metadata, gemma: bool, tokens: usize) -> Result<Vec<f64>, LoadError> {
    if gemma {
        return Ok((0..tokens).map(|index| -(index as f64)).collect());
    }
    let scores = metadata.numbers("tokenizer.ggml.scores")?.unwrap_or_default();
    if scores.len() != tokens {
        let reason = format!("tokenizer.ggml.scores has {} entries for {tokens} tokens", scores.len());
        return Err(invalid(metadata, reason));
    }
    Ok(scores)
}

fn byte_level_rules(metadata: &Metadata, architecture: Architecture) -> Result<ByteLevelRules, LoadError> {
    let name = metadata.string("tokenizer.ggml.pre")?.unwrap_or("default");
    ByteLevelRules::from_name(name, architecture).ok_or_else(|| {
        let supported = pre_tokenizer::SUPPORTED;
        let reason = format!("tokenizer.ggml.pre `{name}` is not supported (supported: {supported})");
        invalid(metadata, reason)
    })
}

fn adds_prefix_space(metadata: &Metadata, kind: Kind) -> Result<bool, LoadError> {
    Ok(metadata.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(kind == Kind::SentencePiece))
}

fn added_ends(
    metadata: &Metadata,
    architecture: Architecture,
    vocabulary: &Vocabulary<'_>,
) -> Result<AddedEnds, LoadError> {
    let bos = match (metadata.boolean("tokenizer.ggml.add_bos_token")?, vocabulary.kind) {
        (Some(stated), _) => stated,
        (None, Kind::SentencePiece | Kind::Gemma) => true,
        (None, Kind::ByteLevel) => byte_level_rules(metadata, architecture)?.whole_words_and_bos,
    };
    let eos = metadata.boolean("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    Ok(AddedEnds { bos, eos })
}

fn post_processor(vocabulary: &Vocabulary<'_>, ends: AddedEnds) -> Option<Value> {
    let bos = vocabulary.role("bos_token").filter(|_| ends.bos);
    let eos = vocabulary.role("eos_token").filter(|_| ends.eos);
    if bos.is_none() && eos.is_none() {
        return None;
    }
    let special = |token: SpecialToken<'_>, sequence: u32| json!({"SpecialToken": {"id": token.text, "type_id": sequence}});
    let around = |id: &str, sequence: u32| {
        let text = json!({"Sequence": {"id": id, "type_id": sequence}});
        let begin = bos.map(|token| special(token, sequence));
        begin.into_iter().chain([text]).chain(eos.map(|token| special(token, sequence))).collect::<Vec<_>>()
    };
    let tokens: Map<String, Value> = bos
        .into_iter()
        .chain(eos)
        .map(|token| {
            (token.text.to_owned(), json!({"id": token.text, "ids": [token.id], "tokens": [token.text]}))
        })
        .collect();
    let pair = [around("A", 0), around("B", 1)].concat();
    Some(json!({
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": pair,
        "special_tokens": tokens,
    }))
}

/// One template as a string; several as a list of names and templates, as `tokenizer_config.json` has them.
fn chat_template(metadata: &Metadata) -> Result<Option<Value>, LoadError> {
    let key = "tokenizer.chat_template";
    let default = metadata.string(key)?;
    let mut named = Vec::new();
    for full in metadata.keys_with_prefix("tokenizer.chat_template.") {
        named.push((&full[key.len() + 1..], metadata.string(full)?));
    }
    if named.is_empty() {
        return Ok(default.map(|template| json!(template)));
    }
    let all = default.map(|template| ("default", Some(template))).into_iter().chain(named);
    Ok(Some(all.map(|(name, template)| json!({"name": name, "template": template})).collect()))
}

fn parse<T: DeserializeOwned>(
    metadata: &Metadata,
    description: Option<Value>,
) -> Result<Option<T>, LoadError> {
    let parsed = description.map(serde_json::from_value).transpose();
    parsed.map_err(|error| invalid(metadata, format!("the tokenizer cannot be built: {error}")))
}
