//! How text is cut before byte-pair encoding, by the name that `tokenizer.ggml.pre` gives to it.

use serde_json::{Value, json};

use super::architecture::Architecture;

/// The names that are known, as errors list them.
pub(super) const SUPPORTED: &str = "default, gpt-2, mpt, jais, phi-2, olmo, dolly-v2, gpt-neox, smollm, starcoder, refact, codeshell, \
     llama-bpe, llama3, llama-v3, falcon3, pixtral, qwen2, stablelm2, deepseek-r1-qwen, tekken";

const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN_PATTERN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What a pre-tokenizer's name implies for a byte-level tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteLevelRules {
    split: Split,
    /// Whether text is brought into Unicode's composed form first.
    composed: bool,
    /// Llama 3 and Tekken: a whole word that is a token is taken without going through the merges, and a
    /// beginning-of-sequence token is added where the file does not say.
    pub(super) whole_words_and_bos: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    Gpt2,
    DigitsThenGpt2,
    Pattern(&'static str),
}

impl ByteLevelRules {
    /// The rules called `name`, or `None` if the name is not known.
    pub(super) fn from_name(name: &str, architecture: Architecture) -> Option<Self> {
        let plain = Self { split: Split::Gpt2, composed: false, whole_words_and_bos: false };
        let rules = match name {
            // OLMo and Dolly use GPT-NeoX's tokenizer, which composes.
            "olmo" | "dolly-v2" | "gpt-neox" => Self { composed: true, ..plain },
            "default" | "gpt-2" | "mpt" | "jais" | "phi-2" => {
                Self { composed: architecture == Architecture::GptNeox, ..plain }
            }
            "smollm" | "starcoder" | "refact" | "codeshell" => Self { split: Split::DigitsThenGpt2, ..plain },
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" => {
                Self { split: Split::Pattern(LLAMA3_PATTERN), whole_words_and_bos: true, ..plain }
            }
            "qwen2" | "stablelm2" | "deepseek-r1-qwen" => {
                Self { split: Split::Pattern(QWEN2_PATTERN), composed: true, ..plain }
            }
            "tekken" => Self { split: Split::Pattern(TEKKEN_PATTERN), whole_words_and_bos: true, ..plain },
            _ => return None,
        };
        Some(rules)
    }

    /// The pre-tokenizer, as `tokenizer.json` would describe it.
    pub(super) fn pre_tokenizer(self, add_prefix_space: bool) -> Value {
        let byte_level = |use_regex: bool| {
            json!({
                "type": "ByteLevel",
                "add_prefix_space": add_prefix_space,
                "trim_offsets": true,
                "use_regex": use_regex,
            })
        };
        match self.split {
            Split::Gpt2 => byte_level(true),
            Split::DigitsThenGpt2 => {
                sequence(json!({"type": "Digits", "individual_digits": true}), byte_level(true))
            }
            Split::Pattern(pattern) => sequence(
                json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}),
                byte_level(false),
            ),
        }
    }

    /// The normalizer, as `tokenizer.json` would describe it.
    pub(super) fn normalizer(self) -> Option<Value> {
        self.composed.then(|| json!({"type": "NFC"}))
    }
}

fn sequence(first: Value, second: Value) -> Value {
    json!({"type": "Sequence", "pretokenizers": [first, second]})
}
