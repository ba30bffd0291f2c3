//! Little tokenizers for tests, one of each family.

use serde_json::{Value, json};

use super::Tokenizer;

fn special_tokens() -> Value {
    let token = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    json!([token(0, "<unk>"), token(1, "<s>"), token(2, "</s>")])
}

fn build(parts: Value, config: Value) -> Tokenizer {
    let mut json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special_tokens(),
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
    });
    json.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    let tokenizer = tokenizers::Tokenizer::from_bytes(serde_json::to_vec(&json).unwrap()).unwrap();
    Tokenizer::from_parts(tokenizer, config).unwrap()
}

fn config() -> Value {
    json!({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "</s>"})
}

/// A token a byte, with a few merges; the family of GPT-2.
pub(crate) fn byte_level() -> Tokenizer {
    let mut alphabet: Vec<char> =
        tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let pieces = ["<unk>", "<s>", "</s>"].map(String::from).into_iter();
    let pieces = pieces
        .chain(alphabet.iter().map(char::to_string))
        .chain(["th", "the", "Ġthe", "Ġt"].map(String::from));
    let vocab: serde_json::Map<String, Value> =
        pieces.enumerate().map(|(id, piece)| (piece, Value::from(id))).collect();
    let level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    let parts = json!({
        "pre_tokenizer": level, "decoder": level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "model": {"type": "BPE", "vocab": vocab, "merges": [["t", "h"], ["th", "e"], ["Ġ", "the"], ["Ġ", "t"]]},
    });
    build(parts, config())
}

/// Spaces as `▁`, unknown characters as bytes; the family of Llama 2.
pub(crate) fn byte_fallback() -> Tokenizer {
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    let pieces = ["<unk>", "<s>", "</s>"].map(String::from).into_iter().chain(bytes);
    let pieces = pieces.chain(std::iter::once("▁".to_owned())).chain(('a'..='z').map(String::from));
    let vocab: serde_json::Map<String, Value> =
        pieces.enumerate().map(|(id, piece)| (piece, Value::from(id))).collect();
    let parts = json!({
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": "<unk>", "byte_fallback": true,
                  "fuse_unk": true},
    });
    build(parts, config())
}

/// Whole words and pieces of words, cleaned up when decoded; the family of BERT.
pub(crate) fn word_piece() -> Tokenizer {
    let words = [
        "<unk>", "<s>", "</s>", "it", "is", "n", "##t", "do", "'", ".", ",", "?", "!", "s", "m", "ve", "re",
        "##s",
    ];
    let vocab: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), Value::from(id))).collect();
    let parts = json!({
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": false},
        "model": {"type": "WordPiece", "vocab": vocab, "unk_token": "<unk>", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100},
    });
    let mut config = config();
    config["clean_up_tokenization_spaces"] = json!(true);
    build(parts, config)
}
