//! The tokenizer of the world: one token a word.

use serde_json::{Value, json};

use super::vocabulary::{SPECIAL_TOKENS, tokens};

/// No text of the world, framed by its special tokens, is longer than this many tokens.
pub(crate) const LONGEST_SEQUENCE: usize = 48;

/// The files of the tokenizer: names as Hugging Face has them, and contents.
pub(crate) fn tokenizer_files() -> [(&'static str, String); 3] {
    [
        ("tokenizer.json", format!("{:#}\n", tokenizer())),
        ("tokenizer_config.json", include_str!("../tokenizer_config.json").to_owned()),
        ("chat_template.jinja", include_str!("../chat_template.jinja").to_owned()),
    ]
}

fn tokenizer() -> Value {
    let vocabulary: serde_json::Map<_, _> =
        tokens().enumerate().map(|(id, token)| (token.to_owned(), json!(id))).collect();
    let added: Vec<_> = SPECIAL_TOKENS
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({
                "id": id, "content": token, "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let start = json!({"SpecialToken": {"id": "<bos>", "type_id": 0}});
    let text = |name: &str, type_id: u8| json!({"Sequence": {"id": name, "type_id": type_id}});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, text("A", 0)],
            "pair": [start, text("A", 0), text("B", 1)],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [1], "tokens": ["<bos>"]}},
        },
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    })
}
