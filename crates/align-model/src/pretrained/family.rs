//! The model families and how their checkpoints name and lay out the decoder's parameters.

use std::path::Path;

use super::LoadError;

/// A family of checkpoints that share names and layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Llama and all that say so: `SmolLM`, `TinyLlama`, Yi …
    Llama,
    /// Llama with a sliding window.
    Mistral,
    /// With biases on query, key and value.
    Qwen2,
    /// With normalised queries and keys.
    Qwen3,
    /// The text model of gemma 3.
    Gemma3,
    /// GPT-2.
    Gpt2,
    /// GPT-NeoX and Pythia.
    GptNeoX,
}

/// Where a parameter of the decoder lies in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Placement {
    /// As it is.
    Whole(String),
    /// Transposed: GPT-2 keeps `[in, out]`.
    Transposed(String),
    /// GPT-2's query, key or value: one third of the columns of `[in, 3 · out]`, or of a bias `[3 · out]`.
    Third { name: String, part: usize },
    /// GPT-NeoX's query, key or value: every third group of `head_dim` rows of `[heads · 3 · head_dim, in]`.
    HeadThird { name: String, part: usize },
}

/// Whether checkpoints keep query, key and value as one matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fusion {
    /// As three.
    None,
    /// One after the other.
    Thirds,
    /// Head by head.
    HeadThirds,
}

impl Placement {
    /// The checkpoint's name of the tensor that holds the parameter.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Whole(name)
            | Self::Transposed(name)
            | Self::Third { name, .. }
            | Self::HeadThird { name, .. } => name,
        }
    }
}

impl Family {
    /// What `config.json` may call itself, for messages.
    pub(super) const SUPPORTED: &str = "llama, mistral, qwen2, qwen3, gemma3_text, gpt2, gpt_neox";

    pub(super) fn from_model_type(path: &Path, model_type: &str) -> Result<Self, LoadError> {
        match model_type {
            "llama" => Ok(Self::Llama),
            "mistral" => Ok(Self::Mistral),
            "qwen2" => Ok(Self::Qwen2),
            "qwen3" => Ok(Self::Qwen3),
            "gemma3_text" => Ok(Self::Gemma3),
            "gpt2" => Ok(Self::Gpt2),
            "gpt_neox" => Ok(Self::GptNeoX),
            other => Err(LoadError::UnknownArchitecture {
                path: path.into(),
                model_type: other.into(),
                supported: Self::SUPPORTED,
            }),
        }
    }

    /// transformers' class of the model with its head, which `config.json` names under `architectures`.
    pub(super) fn transformers_class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Gemma3 => "Gemma3ForCausalLM",
            Self::Gpt2 => "GPT2LMHeadModel",
            Self::GptNeoX => "GPTNeoXForCausalLM",
        }
    }

    /// What transformers' class names of this family begin with, where a classifier's head reads the hidden states.
    pub(super) fn class_prefix(self) -> &'static str {
        match self {
            Self::Gemma3 => "Gemma3Text",
            other => {
                other.transformers_class().trim_end_matches("ForCausalLM").trim_end_matches("LMHeadModel")
            }
        }
    }

    /// How checkpoints of this family keep query, key and value.
    pub(crate) fn fusion(self) -> Fusion {
        match self {
            Self::Gpt2 => Fusion::Thirds,
            Self::GptNeoX => Fusion::HeadThirds,
            _ => Fusion::None,
        }
    }

    /// Whether this family keeps the weights of linear layers as `[in, out]`.
    pub(crate) fn is_transposed(self) -> bool {
        self == Self::Gpt2
    }

    /// The prefix that checkpoints of the bare model, without its head, leave out.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Gpt2 => "transformer.",
            Self::GptNeoX => "gpt_neox.",
            _ => "model.",
        }
    }

    /// Where the parameter with this path in [`Decoder`](crate::decoder::Decoder) lies.
    pub(super) fn placement(self, path: &str) -> Placement {
        match self {
            Self::Gpt2 => gpt2(path),
            Self::GptNeoX => gpt_neox(path),
            _ => Placement::Whole(llama(self, path)),
        }
    }
}

/// Splits `layers.3.attention.query.weight` into the index and the rest.
fn in_layer(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("layers.")?.split_once('.')
}

/// Splits a parameter's module from its last part, `weight` or `bias`.
fn module_and_leaf(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

#[allow(clippy::match_same_arms, reason = "a table of names reads better in the order of a block")]
fn llama(family: Family, path: &str) -> String {
    let Some((layer, rest)) = in_layer(path) else {
        return match path {
            "embedding" => "model.embed_tokens.weight".into(),
            "head.weight" => "lm_head.weight".into(),
            other => format!("model.{other}"),
        };
    };
    let (module, leaf) = module_and_leaf(rest);
    let name = match module {
        "attention_norm" => "input_layernorm",
        "mlp_norm" if family == Family::Gemma3 => "pre_feedforward_layernorm",
        "attention_post_norm" | "mlp_norm" => "post_attention_layernorm",
        "mlp_post_norm" => "post_feedforward_layernorm",
        "attention.query" => "self_attn.q_proj",
        "attention.key" => "self_attn.k_proj",
        "attention.value" => "self_attn.v_proj",
        "attention.output" => "self_attn.o_proj",
        "attention.query_norm" => "self_attn.q_norm",
        "attention.key_norm" => "self_attn.k_norm",
        "mlp.gate" => "mlp.gate_proj",
        "mlp.up" => "mlp.up_proj",
        "mlp.down" => "mlp.down_proj",
        other => other,
    };
    format!("model.layers.{layer}.{name}.{leaf}")
}

fn part_of(module: &str) -> Option<usize> {
    ["attention.query", "attention.key", "attention.value"].iter().position(|&part| part == module)
}

fn gpt2(path: &str) -> Placement {
    let Some((layer, rest)) = in_layer(path) else {
        return Placement::Whole(match path {
            "embedding" => "transformer.wte.weight".into(),
            "position_embedding" => "transformer.wpe.weight".into(),
            "head.weight" => "lm_head.weight".into(),
            other => other.replace("norm.", "transformer.ln_f."),
        });
    };
    let (module, leaf) = module_and_leaf(rest);
    if let Some(part) = part_of(module) {
        return Placement::Third { name: format!("transformer.h.{layer}.attn.c_attn.{leaf}"), part };
    }
    let name = match module {
        "attention_norm" => "ln_1",
        "mlp_norm" => "ln_2",
        "attention.output" => "attn.c_proj",
        "mlp.up" => "mlp.c_fc",
        "mlp.down" => "mlp.c_proj",
        other => other,
    };
    let name = format!("transformer.h.{layer}.{name}.{leaf}");
    let matrix = leaf == "weight" && !module.ends_with("norm");
    if matrix { Placement::Transposed(name) } else { Placement::Whole(name) }
}

fn gpt_neox(path: &str) -> Placement {
    let Some((layer, rest)) = in_layer(path) else {
        return Placement::Whole(match path {
            "embedding" => "gpt_neox.embed_in.weight".into(),
            "head.weight" => "embed_out.weight".into(),
            other => other.replace("norm.", "gpt_neox.final_layer_norm."),
        });
    };
    let (module, leaf) = module_and_leaf(rest);
    let attention = |name: &str| format!("gpt_neox.layers.{layer}.attention.{name}.{leaf}");
    if let Some(part) = part_of(module) {
        return Placement::HeadThird { name: attention("query_key_value"), part };
    }
    Placement::Whole(match module {
        "attention_norm" => format!("gpt_neox.layers.{layer}.input_layernorm.{leaf}"),
        "mlp_norm" => format!("gpt_neox.layers.{layer}.post_attention_layernorm.{leaf}"),
        "attention.output" => attention("dense"),
        "mlp.up" => format!("gpt_neox.layers.{layer}.mlp.dense_h_to_4h.{leaf}"),
        "mlp.down" => format!("gpt_neox.layers.{layer}.mlp.dense_4h_to_h.{leaf}"),
        other => format!("gpt_neox.layers.{layer}.{other}.{leaf}"),
    })
}
