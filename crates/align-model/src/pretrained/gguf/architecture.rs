//! How each architecture's tensors are called and laid out in GGUF, against Hugging Face.

/// The GGUF architectures that can be read, as errors list them.
pub(super) const SUPPORTED: &str = "llama, qwen2, qwen3, gemma3, gpt2, gptneox";

/// An architecture by its GGUF name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    /// `llama`: Llama, SmolLM2, Mistral.
    Llama,
    /// `qwen2`.
    Qwen2,
    /// `qwen3`.
    Qwen3,
    /// `gemma3`: the text model of Gemma 3.
    Gemma3,
    /// `gpt2`.
    Gpt2,
    /// `gptneox`: GPT-NeoX and Pythia.
    GptNeox,
}

/// What the converter did to a tensor and what reading has to undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Nothing.
    Same,
    /// The two halves of every head's rows were interleaved (queries or keys, by their number of heads).
    InterleavedHalves {
        /// Heads that share the rows.
        heads: usize,
    },
    /// The matrix was transposed.
    Transposed,
    /// One was added.
    PlusOne,
    /// The heads' query, key and value rows were gathered: all queries, all keys, all values.
    GatheredQueryKeyValue {
        /// Attention heads.
        heads: usize,
    },
}

/// The numbers of heads that layouts depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeadCounts {
    /// Query heads.
    pub(super) query: usize,
    /// Key and value heads.
    pub(super) key_value: usize,
}

type Names = &'static [(&'static str, &'static str)];

const LLAMA_TOP: Names =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];
const LLAMA_LAYER: Names = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];
const HEAD_NORMS: Names = &[("attn_q_norm", "self_attn.q_norm"), ("attn_k_norm", "self_attn.k_norm")];
const GEMMA_NORMS: Names = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];
const GPT2_TOP: Names = &[
    ("token_embd", "transformer.wte"),
    ("position_embd", "transformer.wpe"),
    ("output_norm", "transformer.ln_f"),
    ("output", "lm_head"),
];
const GPT2_LAYER: Names = &[
    ("attn_norm", "ln_1"),
    ("attn_qkv", "attn.c_attn"),
    ("attn_output", "attn.c_proj"),
    ("ffn_norm", "ln_2"),
    ("ffn_up", "mlp.c_fc"),
    ("ffn_down", "mlp.c_proj"),
];
const NEOX_TOP: Names = &[
    ("token_embd", "gpt_neox.embed_in"),
    ("output_norm", "gpt_neox.final_layer_norm"),
    ("output", "embed_out"),
];
const NEOX_LAYER: Names = &[
    ("attn_norm", "input_layernorm"),
    ("attn_qkv", "attention.query_key_value"),
    ("attn_output", "attention.dense"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_up", "mlp.dense_h_to_4h"),
    ("ffn_down", "mlp.dense_4h_to_h"),
];

impl Architecture {
    /// The architecture called `name` in `general.architecture`.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "llama" => Some(Self::Llama),
            "qwen2" => Some(Self::Qwen2),
            "qwen3" => Some(Self::Qwen3),
            "gemma3" => Some(Self::Gemma3),
            "gpt2" => Some(Self::Gpt2),
            "gptneox" => Some(Self::GptNeox),
            _ => None,
        }
    }

    /// The GGUF name, which is also the prefix of the architecture's metadata keys.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3",
            Self::Gpt2 => "gpt2",
            Self::GptNeox => "gptneox",
        }
    }

    /// The Hugging Face name of the tensor `name`, or `None` if the architecture has no such tensor.
    pub(super) fn hugging_face_name(self, name: &str) -> Option<String> {
        let (stem, suffix) =
            name.rsplit_once('.').filter(|(_, suffix)| matches!(*suffix, "weight" | "bias"))?;
        let Some(rest) = stem.strip_prefix("blk.") else {
            return Some(format!("{}.{suffix}", find(self.top_names(), stem)?));
        };
        let (layer, part) = rest.split_once('.')?;
        let layer: usize = layer.parse().ok().filter(|number: &usize| number.to_string() == layer)?;
        let part = self.layer_names().iter().find_map(|names| find(names, part))?;
        Some(format!("{}.{layer}.{part}.{suffix}", self.layer_prefix()))
    }

    /// What reading the tensor `name` has to undo.
    pub(super) fn layout(self, name: &str, heads: HeadCounts) -> Layout {
        match self {
            Self::Llama if name.contains(".attn_q.") => Layout::InterleavedHalves { heads: heads.query },
            Self::Llama if name.contains(".attn_k.") => Layout::InterleavedHalves { heads: heads.key_value },
            Self::Gemma3 if name.ends_with("norm.weight") => Layout::PlusOne,
            Self::Gpt2 if name.starts_with("blk.") && name.ends_with(".weight") && !name.contains("norm") => {
                Layout::Transposed
            }
            Self::GptNeox if name.contains(".attn_qkv.") => {
                Layout::GatheredQueryKeyValue { heads: heads.query }
            }
            _ => Layout::Same,
        }
    }

    fn layer_prefix(self) -> &'static str {
        match self {
            Self::Llama | Self::Qwen2 | Self::Qwen3 | Self::Gemma3 => "model.layers",
            Self::Gpt2 => "transformer.h",
            Self::GptNeox => "gpt_neox.layers",
        }
    }

    fn top_names(self) -> Names {
        match self {
            Self::Llama | Self::Qwen2 | Self::Qwen3 | Self::Gemma3 => LLAMA_TOP,
            Self::Gpt2 => GPT2_TOP,
            Self::GptNeox => NEOX_TOP,
        }
    }

    /// The tables to look in, the first hit wins.
    fn layer_names(self) -> &'static [Names] {
        match self {
            Self::Llama | Self::Qwen2 => &[LLAMA_LAYER],
            Self::Qwen3 => &[HEAD_NORMS, LLAMA_LAYER],
            Self::Gemma3 => &[GEMMA_NORMS, HEAD_NORMS, LLAMA_LAYER],
            Self::Gpt2 => &[GPT2_LAYER],
            Self::GptNeox => &[NEOX_LAYER],
        }
    }
}

/// Whether a tensor holds nothing that weights are made of: tables of rotary frequencies.
pub(super) fn is_rotary_table(name: &str) -> bool {
    name.starts_with("rope_")
        || name.ends_with(".attn_rot_embd.weight")
        || name.ends_with(".rope_freqs.weight")
}

impl Layout {
    /// The Hugging Face shape of a tensor stored with `shape`, or what speaks against it.
    pub(super) fn hugging_face_shape(self, shape: &[usize]) -> Result<Vec<usize>, String> {
        let divisor = match self {
            Self::InterleavedHalves { heads } => heads.checked_mul(2),
            Self::GatheredQueryKeyValue { heads } => heads.checked_mul(3),
            Self::Transposed if shape.len() != 2 => return Err("is not a matrix".to_owned()),
            Self::Transposed => return Ok(vec![shape[1], shape[0]]),
            Self::Same | Self::PlusOne => return Ok(shape.to_vec()),
        };
        match divisor {
            Some(divisor) if divisor > 0 && shape[0].is_multiple_of(divisor) => Ok(shape.to_vec()),
            _ => Err(format!("has {} rows, which cannot be divided among its heads ({self:?})", shape[0])),
        }
    }

    /// Brings values stored with `shape` into the Hugging Face layout.
    pub(super) fn restore(self, mut values: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        let rows = shape[0];
        let width = values.len() / rows;
        match self {
            Self::Same => values,
            Self::PlusOne => {
                for value in &mut values {
                    *value -= 1.0;
                }
                values
            }
            Self::Transposed => {
                (0..values.len()).map(|index| values[index % rows * width + index / rows]).collect()
            }
            Self::InterleavedHalves { heads } => {
                let half = rows / heads / 2;
                gather_rows(&values, width, rows, |row| {
                    let (head, within) = (row / (2 * half), row % (2 * half));
                    head * 2 * half + within % half * 2 + within / half
                })
            }
            Self::GatheredQueryKeyValue { heads } => {
                let head_size = rows / heads / 3;
                gather_rows(&values, width, rows, |row| {
                    let (head, within) = (row / (3 * head_size), row % (3 * head_size));
                    within / head_size * heads * head_size + head * head_size + within % head_size
                })
            }
        }
    }
}

fn gather_rows(values: &[f32], width: usize, rows: usize, source: impl Fn(usize) -> usize) -> Vec<f32> {
    (0..rows).flat_map(|row| &values[source(row) * width..][..width]).copied().collect()
}

fn find(names: Names, stem: &str) -> Option<&'static str> {
    names.iter().find(|(gguf, _)| *gguf == stem).map(|(_, hugging_face)| *hugging_face)
}
