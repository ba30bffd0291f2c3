//! A model, a tokenizer and a chat template.

use std::path::Path;

use align_model::{
    chat::{ChatTemplates, RenderOptions},
    decoder::Decoder,
    generate::{Decoding, Sampling, StopAt},
    pretrained::Architecture,
    tokenizer::Tokenizer,
};
use align_rl::environment::ConversationTokenizer;
use burn::tensor::Device;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::{Value, json};

const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|assistant|>{% endif %}";

/// A template that forgets what was said once something follows it.
pub(crate) const FORGETFUL: &str = "{% for m in messages %}<|{{ m.role }}|>{% if loop.last %}{{ m.content }}{% endif %}\
                                    <|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

const SPECIAL: [&str; 5] = ["<unk>", "<|end|>", "<|user|>", "<|assistant|>", "<|tool|>"];

/// The token that ends a turn.
pub(crate) const END: u32 = 1;

/// Positions that the model knows.
pub(crate) const CONTEXT: usize = 160;

pub(crate) struct World {
    pub(crate) model: Decoder,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) templates: ChatTemplates,
    pub(crate) render: RenderOptions,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_template(TEMPLATE)
    }

    pub(crate) fn with_template(template: &str) -> Self {
        let tokenizer = tokenizer().with_chat_template(template);
        let json = json!({
            "model_type": "llama", "vocab_size": tokenizer.vocab_size(), "hidden_size": 16, "intermediate_size": 24,
            "head_dim": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
            "max_position_embeddings": CONTEXT, "initializer_range": 0.2,
        });
        let architecture = Architecture::from_json(Path::new("config.json"), json).unwrap();
        let templates = ChatTemplates::from_tokenizer(&tokenizer).unwrap();
        Self {
            model: architecture.random(&mut ChaCha8Rng::seed_from_u64(4), &Device::flex()),
            tokenizer,
            templates,
            render: RenderOptions::default(),
        }
    }

    pub(crate) fn conversation(&self) -> ConversationTokenizer<'_> {
        ConversationTokenizer { tokenizer: &self.tokenizer, templates: &self.templates, render: &self.render }
    }
}

pub(crate) fn stop() -> StopAt {
    StopAt { tokens: vec![END], strings: Vec::new() }
}

/// A distribution that filters take a part of.
pub(crate) fn filtered() -> Decoding {
    Decoding::Sample(Sampling { top_k: std::num::NonZeroUsize::new(9), ..Sampling::default() })
}

/// A token a letter, from a to h; and space, newline and the marks of the template.
fn tokenizer() -> Tokenizer {
    let pieces =
        SPECIAL.map(String::from).into_iter().chain(('a'..='h').chain([' ', '\n']).map(String::from));
    let vocab: serde_json::Map<String, Value> =
        pieces.enumerate().map(|(id, piece)| (piece, Value::from(id))).collect();
    let added = |(id, content): (usize, &&str)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": SPECIAL.iter().enumerate().map(added).collect::<Vec<_>>(),
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": false},
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("tokenizer.json"), json.to_string()).unwrap();
    let config = json!({"unk_token": "<unk>", "eos_token": "<|end|>"});
    std::fs::write(directory.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    Tokenizer::from_directory(directory.path()).unwrap()
}
