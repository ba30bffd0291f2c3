//! How much memory a training step takes, computed before anything is loaded.
//!
//! The estimate counts what this crate's passes keep; it is meant for choosing a micro-batch size, and agrees with the
//! peak resident set of a run on the CPU to about a tenth. What the process itself needs (code, tokenizer, data) is the
//! caller's to measure and add.

mod activations;

use crate::{
    causal_lm::{Recompute, TokenBatch},
    decoder::{
        BaseWeights, ComputeDtype, DecoderConfig, Head, MlpKind, NormConfig, NormPlacement, Positions,
    },
    logprob::LOGITS_AT_ONCE,
};
use activations::Activations;

/// Bytes of a parameter, a gradient, a moment.
const F32: u64 = 4;

/// What a training run keeps besides activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingSetup {
    /// What is trained.
    pub trained: Trained,
    /// What is computed twice.
    pub recompute: Recompute,
    /// What activations are stored in.
    pub compute: ComputeDtype,
    /// What the weights of the blocks' linear layers are kept in.
    pub base: BaseWeights,
    /// Forward passes of a step: while one of several runs, the sum of the gradients before it is kept.
    pub passes: usize,
    /// Further copies of the trained parameters: 1 with an exponential moving average of them, else 0.
    pub copies: usize,
}

/// Which parameters are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trained {
    /// All of them.
    Everything,
    /// Those of adapters on the linear layers of every block; the model's own are frozen.
    Adapters {
        /// How many there are.
        parameters: usize,
    },
}

/// The largest forward pass of a step: its micro-batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LargestPass<'a> {
    /// The length of each sequence.
    pub lengths: &'a [usize],
    /// Tokens that carry a loss.
    pub targets: usize,
}

/// Bytes that a training step takes.
///
/// ```text
/// total = max(loading, weights + moments + copies + summed + max(at the head, in the blocks, at the end))
/// summed        = gradients, where a step is more than one pass, else 0
/// at the head   = kept + logits + 2 · head gradient
/// in the blocks = kept + head gradient + block
/// at the end    = gradients + block
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Parameters: in f32, but for a base of fewer bits.
    pub weights: u64,
    /// What there is while the model is loaded: all of it in f32, before a base of fewer bits replaces matrix after matrix.
    pub loading: u64,
    /// Gradients of what is trained, in f32.
    pub gradients: u64,
    /// The sum of the gradients of earlier passes of the step.
    pub summed: u64,
    /// AdamW's two moments of what is trained, in f32.
    pub moments: u64,
    /// Further copies of what is trained.
    pub copies: u64,
    /// What the way there keeps for the way back.
    pub kept: u64,
    /// One block on its way back, with what was kept of it or computed again.
    pub block: u64,
    /// Logits, probabilities and gradient of one chunk of positions.
    pub logits: u64,
    /// The gradient of the head, which comes first and stays to the end.
    pub head_gradient: u64,
}

impl MemoryEstimate {
    /// Estimates a step of `setup` on a model of this configuration.
    #[must_use]
    pub fn new(config: &DecoderConfig, setup: &TrainingSetup, pass: &LargestPass<'_>) -> Self {
        let segments: Vec<_> = pass.lengths.iter().map(|&length| (length, 0)).collect();
        Self::of_segments(config, setup, &segments, pass.targets)
    }

    /// As [`new`](Self::new), where the largest pass is over `batch`, which may share prompts, with a loss on `targets` of
    /// its tokens.
    #[must_use]
    pub fn of_batch(
        config: &DecoderConfig,
        setup: &TrainingSetup,
        batch: &TokenBatch,
        targets: usize,
    ) -> Self {
        let lengths = batch.lengths();
        let prompt = |continues: &Option<usize>| continues.map_or(0, |index| lengths[index]);
        let segments: Vec<_> = lengths.iter().copied().zip(batch.continues().iter().map(prompt)).collect();
        Self::of_segments(config, setup, &segments, targets)
    }

    /// `segments`: the length of each, and that of the prompt it continues.
    fn of_segments(
        config: &DecoderConfig,
        setup: &TrainingSetup,
        segments: &[(usize, usize)],
        targets: usize,
    ) -> Self {
        let of_model = parameters(config) as u64;
        let (trained, of_adapters, head) = match setup.trained {
            Trained::Everything => (of_model, 0, (config.vocab_size * config.hidden_size) as u64),
            Trained::Adapters { parameters } => (parameters as u64, parameters as u64, 0),
        };
        let activations = Activations::new(config, setup, segments, targets);
        let chunk = targets.div_ceil(targets.div_ceil((LOGITS_AT_ONCE / config.vocab_size).max(1)).max(1));
        Self {
            weights: F32 * of_adapters + weight_bytes(config, setup.base),
            loading: F32 * of_model,
            gradients: F32 * trained,
            summed: if setup.passes > 1 { F32 * trained } else { 0 },
            moments: 2 * F32 * trained,
            copies: F32 * trained * setup.copies as u64,
            kept: activations.kept,
            block: activations.block,
            logits: 3 * F32 * (chunk * config.vocab_size) as u64,
            head_gradient: F32 * head,
        }
    }

    /// Peak of the whole step. `process`: bytes that the program holds for other things.
    #[must_use]
    pub fn total(&self, process: u64) -> u64 {
        let at_the_head = self.kept + self.logits + 2 * self.head_gradient;
        let in_the_blocks = self.kept + self.head_gradient + self.block;
        let at_the_end = self.gradients + self.block;
        let step = at_the_head.max(in_the_blocks).max(at_the_end);
        process + self.loading.max(self.weights + self.moments + self.copies + self.summed + step)
    }
}

/// Number of parameters of a decoder.
#[must_use]
pub fn parameters(config: &DecoderConfig) -> usize {
    let hidden = config.hidden_size;
    let table = config.vocab_size * hidden;
    let positions = match config.positions {
        Positions::Learned => config.max_positions * hidden,
        Positions::Rotary(_) => 0,
    };
    let head = if config.head == Head::Untied { table } else { 0 };
    table + positions + head + norm(config, hidden) + config.layers.len() * block_parameters(config)
}

/// Bytes of the model's own parameters. A base of fewer bits has one scale in f32 for 64 numbers.
fn weight_bytes(config: &DecoderConfig, base: BaseWeights) -> u64 {
    let matrices = (config.layers.len() * block_matrices(config)) as u64;
    let others = F32 * (parameters(config) as u64 - matrices);
    let scales = F32 * (matrices / 64);
    others
        + match base {
            BaseWeights::Full => F32 * matrices,
            BaseWeights::Int8 => matrices + scales,
            BaseWeights::NormalFloat4 => matrices / 2 + scales,
        }
}

fn block_parameters(config: &DecoderConfig) -> usize {
    use crate::decoder::AttentionBias;
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (query, key) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let attention_bias = match config.attention_bias {
        AttentionBias::None => 0,
        AttentionBias::QueryKeyValue => query + 2 * key,
        AttentionBias::All => query + 2 * key + hidden,
    };
    let mlp_bias = match (config.mlp_bias, config.mlp) {
        (false, _) => 0,
        (true, MlpKind::Gated) => 2 * inner + hidden,
        (true, MlpKind::Plain) => inner + hidden,
    };
    let norms = if config.norm_placement == NormPlacement::Sandwich { 4 } else { 2 };
    let head_norms = if config.qk_norm { 2 * norm(config, config.head_dim) } else { 0 };
    block_matrices(config) + attention_bias + mlp_bias + norms * norm(config, hidden) + head_norms
}

/// Weights of the linear layers of a block.
fn block_matrices(config: &DecoderConfig) -> usize {
    let (query, key) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let mlp = if config.mlp == MlpKind::Gated { 3 } else { 2 };
    config.hidden_size * (2 * query + 2 * key + mlp * config.intermediate_size)
}

fn norm(config: &DecoderConfig, width: usize) -> usize {
    if matches!(config.norm, NormConfig::Layer { .. }) { 2 * width } else { width }
}

#[cfg(test)]
mod tests;
