//! What a training pass keeps, and what it needs for a moment.

use super::{F32, TrainingSetup};
use crate::{
    causal_lm::Recompute,
    decoder::{DecoderConfig, MlpKind, NormPlacement, attention_cells},
};

/// Bytes of activations.
pub(super) struct Activations {
    /// Kept until the way back.
    pub(super) kept: u64,
    /// Of one block on its way back, what was kept of it included.
    pub(super) block: u64,
}

impl Activations {
    /// Of a pass with a loss on `targets` tokens. `segments`: the length of each, and that of the prompt it continues.
    pub(super) fn new(
        config: &DecoderConfig,
        setup: &TrainingSetup,
        segments: &[(usize, usize)],
        targets: usize,
    ) -> Self {
        let tokens = segments.iter().map(|(length, _)| length).sum::<usize>() as u64;
        let bytes = setup.compute.bytes() as u64;
        let row = tokens * bytes * config.hidden_size as u64;
        let open = tokens * bytes * kept_of_block(config) as u64;
        let windows = config.layers.iter().map(|layer| layer.window);
        let cells: Vec<u64> =
            windows.map(|window| (config.heads * attention_cells(segments, window)) as u64).collect();
        let weights = bytes * cells.iter().sum::<u64>();
        let largest = cells.iter().copied().max().unwrap_or(0);
        let layers = config.layers.len() as u64;
        let kept = match setup.recompute {
            Recompute::Nothing => layers * (row + open) + weights,
            Recompute::Attention => layers * (row + open),
            Recompute::Layers => layers * row,
        };
        // What the norm before the head reads; in f32 its result, that at the targets, and the gradients of both.
        let wide = F32 * config.hidden_size as u64;
        let end = row + 2 * wide * (tokens + targets as u64);
        // Either half of a block at work: scores and their gradient, or gate, up, what they make and its gradient.
        let in_attention = 2 * F32 * largest;
        let in_feed_forward = 4 * tokens * bytes * config.intermediate_size as u64;
        // Besides the open block: the gradients of the residual stream and of a branch of it, and what a norm made.
        let block = 4 * row + open + bytes * largest + in_attention.max(in_feed_forward);
        Self { kept: kept + end, block }
    }
}

/// Numbers that an open block keeps a token besides its input: queries, keys, values, what attention mixed, the residual
/// stream after it, gate and up; and whatever a further norm reads.
fn kept_of_block(config: &DecoderConfig) -> usize {
    let (query, key) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let inner = if config.mlp == MlpKind::Gated { 2 } else { 1 } * config.intermediate_size;
    let after_norms =
        if config.norm_placement == NormPlacement::Sandwich { 2 * config.hidden_size } else { 0 };
    let before_head_norms = if config.qk_norm { query + key } else { 0 };
    2 * query + 2 * key + config.hidden_size + inner + after_norms + before_head_norms
}
