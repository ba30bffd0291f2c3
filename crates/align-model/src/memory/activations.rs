//! What a block keeps from the way there for the way back.

use super::{F32, LargestPass, Trained, TrainingSetup, block_matrices};
use crate::{
    causal_lm::Recompute,
    decoder::{Activation, DecoderConfig, MlpKind, NormConfig, NormPlacement, attention_cells},
};

/// Bytes of activations.
pub(super) struct Activations {
    /// Kept until the way back.
    pub(super) kept: u64,
    /// Of one block on its way back.
    pub(super) block: u64,
}

impl Activations {
    pub(super) fn new(config: &DecoderConfig, setup: &TrainingSetup, pass: &LargestPass<'_>) -> Self {
        let tokens: usize = pass.lengths.iter().sum();
        let token = Token::new(config, setup.trained);
        let bytes = setup.compute.bytes() as u64;
        // bf16 copies of the weights that products were made with.
        let copies = if bytes < F32 { bytes * block_matrices(config) as u64 } else { 0 };
        let row = tokens as u64 * bytes * config.hidden_size as u64;
        let open = tokens as u64 * (bytes * token.narrow + F32 * token.wide) + copies;
        let windows = config.layers.iter().map(|layer| layer.window);
        let cells: Vec<u64> =
            windows.map(|window| (config.heads * attention_cells(pass.lengths, window)) as u64).collect();
        let weights = bytes * cells.iter().sum::<u64>();
        let layers = config.layers.len() as u64;
        // The norm before the head: its input, and what it makes of it.
        let end = tokens as u64 * F32 * 4 * config.hidden_size as u64;
        let kept = match setup.recompute {
            Recompute::Nothing => layers * (row + open) + weights,
            Recompute::Attention => layers * (row + open),
            Recompute::Layers => layers * row,
        };
        let again = if setup.recompute == Recompute::Layers { row + open } else { 0 };
        let largest = cells.iter().copied().max().unwrap_or(0);
        // Gradients of about half of what is kept are alive at once, and three matrices the size of the scores.
        Self { kept: kept + end, block: again + open / 2 + 3 * F32 * largest }
    }
}

/// Numbers that a block keeps a token, besides its input.
struct Token {
    /// In the type that is computed in.
    narrow: u64,
    /// In f32: what normalisation keeps of its input and of its result before the weight.
    wide: u64,
}

impl Token {
    fn new(config: &DecoderConfig, trained: Trained) -> Self {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (query, key) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        // The result before the weight is kept for the weight's gradient alone.
        let before_weight = usize::from(trained == Trained::Everything);
        let centred = usize::from(matches!(config.norm, NormConfig::Layer { .. }));
        let norm = |width: usize| (before_weight + centred) * width;
        let attention = 2 * query + 2 * key;
        // Two normalised inputs, and the residual stream between the two halves.
        let mut narrow = 3 * hidden + attention + activation_kept(config) * inner;
        let mut wide = 2 * norm(hidden);
        if config.norm_placement == NormPlacement::Sandwich {
            narrow += 2 * hidden;
            wide += 2 * norm(hidden);
        }
        if config.qk_norm {
            narrow += query + key;
            wide += norm(query + key);
        }
        Self { narrow: narrow as u64, wide: wide as u64 }
    }
}

/// Tensors of the inner width that the feed-forward block keeps: the inputs of its products and of its activation, and
/// what that keeps itself.
fn activation_kept(config: &DecoderConfig) -> usize {
    let of_activation = match config.activation {
        Activation::Relu => 0,
        Activation::Gelu => 1,
        Activation::Silu => 2,
        Activation::GeluTanh => 5,
    };
    let of_products = match config.mlp {
        MlpKind::Gated => 3,
        MlpKind::Plain => 1,
    };
    of_activation + of_products
}
