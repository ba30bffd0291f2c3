//! What distinguishes one decoder from another.

use super::rope::RopeConfig;

/// Sizes and choices of a decoder, whatever family its checkpoint belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// One entry a block.
    pub layers: Vec<LayerConfig>,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// One more than the largest position the model was made for.
    pub max_positions: usize,
    /// Which normalisation.
    pub norm: NormConfig,
    /// Whether blocks also normalise what they add to the residual stream (gemma3).
    pub norm_placement: NormPlacement,
    /// Whether attention and feed-forward read the same input (`gpt_neox`) or follow each other.
    pub residual: Residual,
    /// Non-linearity of the feed-forward block.
    pub activation: Activation,
    /// Feed-forward with or without a gate.
    pub mlp: MlpKind,
    /// Which attention projections have a bias.
    pub attention_bias: AttentionBias,
    /// Whether the feed-forward projections have a bias.
    pub mlp_bias: bool,
    /// Whether queries and keys are normalised head by head (qwen3, gemma3).
    pub qk_norm: bool,
    /// How the model knows positions.
    pub positions: Positions,
    /// Factor on the token embeddings (gemma3: √hidden).
    pub embedding_scale: f64,
    /// Whether the head is the embedding matrix.
    pub head: Head,
}

/// What may differ from block to block.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerConfig {
    /// Factor on the attention scores, `1/√head_dim` in most models.
    pub attention_scale: f64,
    /// A query at position i sees keys at i − window + 1 … i; `None`: all before it.
    pub window: Option<usize>,
    /// Index into the rotary variants of [`Positions::Rotary`]; 0 where positions are learned.
    pub rope: usize,
}

/// A normalisation over the last dimension.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NormConfig {
    /// `w · x / √(mean(x²) + ε)` (arXiv:1910.07467).
    Rms {
        /// ε
        epsilon: f64,
    },
    /// `(1 + w) · x / √(mean(x²) + ε)` (gemma).
    RmsPlusOne {
        /// ε
        epsilon: f64,
    },
    /// `w · (x − mean) / √(var + ε) + b` (arXiv:1607.06450).
    Layer {
        /// ε
        epsilon: f64,
    },
}

/// Where a block normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before attention and before the feed-forward block.
    Pre,
    /// Before and after each of them.
    Sandwich,
}

/// How the two halves of a block are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// `x += attention(x); x += mlp(x)`
    Sequential,
    /// `x += attention(x) + mlp(x)`
    Parallel,
}

/// Non-linearity of the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x·σ(x)`
    Silu,
    /// `x·Φ(x)`
    Gelu,
    /// The tanh approximation of `x·Φ(x)`.
    GeluTanh,
    /// `max(0, x)`
    Relu,
}

/// Shape of the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpKind {
    /// `down(act(gate(x)) · up(x))`
    Gated,
    /// `down(act(up(x)))`
    Plain,
}

/// Which attention projections have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionBias {
    /// None of them.
    None,
    /// Query, key and value (qwen2).
    QueryKeyValue,
    /// Those and the output (gpt2, `gpt_neox`, llama with `attention_bias`).
    All,
}

/// How the model knows positions.
#[derive(Debug, Clone, PartialEq)]
pub enum Positions {
    /// A learned vector a position, added to the token embedding (gpt2).
    Learned,
    /// Rotary embedding; layers choose among the variants (gemma3 has a local and a global one).
    Rotary(Vec<RopeConfig>),
}

/// Where the logits come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// The embedding matrix itself.
    Tied,
    /// A matrix of its own.
    Untied,
    /// None: the decoder stops at its hidden states, and another head reads those.
    Absent,
}
