//! Reward models: a decoder, and a head that reads its hidden states.

mod ensemble;
mod files;
mod gate;
mod head;
mod pass;
mod reward_fn;
mod ridge;
mod verbosity;

use align_model::causal_lm::{CausalLm, TokenBatch};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Int, Tensor, TensorData},
};

pub use ensemble::{EnsembleScore, combine_scores};
pub use files::{
    adapter_head, load_reward_adapter, load_reward_model, reward_model_from, save_reward_adapter,
    save_reward_model,
};
pub use gate::{
    AttributeGate, GateConfig, GateError, GateExample, GateReport, GateTrainer, GateTrainingConfig,
};
pub use head::ScoreHead;
pub use pass::ScorePass;
pub use reward_fn::{CompletionForm, RewardModelError, RewardModelFn, RewardReader};
pub use ridge::{RidgeError, ridge_regression};
pub use verbosity::verbosity_penalties;

/// A model that says how good a text is.
///
/// The head reads the last token's hidden state; a [process reward model](crate::trainer::ProcessTrainer)'s head reads
/// those at the ends of steps. On disk it is transformers' sequence or token classifier.
#[derive(Module, Debug)]
pub struct RewardModel<M: Module + ModuleDisplay> {
    /// What makes the hidden states.
    pub backbone: M,
    /// What reads them.
    pub head: ScoreHead,
}

/// A sequence could not be scored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScoringError {
    /// A sequence has no token.
    #[error("sequence {index} is empty: there is nothing to score")]
    Empty {
        /// Its place among the sequences.
        index: usize,
    },
    /// A sequence is longer than the model's context.
    #[error(
        "sequence {index} has {tokens} tokens, the reward model's context {limit}: shorten it or leave it out"
    )]
    TooLong {
        /// Its place among the sequences.
        index: usize,
        /// Its length.
        tokens: usize,
        /// What the model can read.
        limit: usize,
    },
}

impl<M: CausalLm> RewardModel<M> {
    /// A model whose head reads what `backbone` makes; see [`Decoder::without_head`](align_model::decoder::Decoder::without_head).
    #[must_use]
    pub fn new(backbone: M, head: ScoreHead) -> Self {
        Self { backbone, head }
    }

    /// Numbers that the head says of a text.
    #[must_use]
    pub fn labels(&self) -> usize {
        self.head.labels()
    }

    /// What the head says at some positions of a batch. Result `[positions, labels]`.
    ///
    /// # Panics
    /// If a position is outside the batch, or a token outside the vocabulary.
    #[must_use]
    pub fn scores(&self, batch: &TokenBatch, positions: &[usize]) -> Tensor<2> {
        let hidden = self.backbone.hidden(batch);
        let positions = position_tensor(positions, &hidden.device());
        self.head.forward(hidden.select(0, positions))
    }

    /// What the head says at the last token of each sequence, without gradients, `at_once` sequences in a forward pass.
    ///
    /// # Errors
    /// If a sequence is empty or longer than the model's context.
    ///
    /// # Panics
    /// If `at_once` is 0 or a token is outside the vocabulary.
    pub fn score_sequences<S: AsRef<[u32]>>(
        &self,
        sequences: &[S],
        at_once: usize,
    ) -> Result<Vec<Vec<f64>>, ScoringError> {
        let features = |model: &Self, batch: &TokenBatch, ends: &[usize]| model.scores(batch, ends);
        self.at_ends(sequences, at_once, features)
    }

    /// The hidden state of each sequence's last token, without gradients: what heads and gates are fitted on.
    ///
    /// # Errors
    /// If a sequence is empty or longer than the model's context.
    ///
    /// # Panics
    /// If `at_once` is 0 or a token is outside the vocabulary.
    pub fn features<S: AsRef<[u32]>>(
        &self,
        sequences: &[S],
        at_once: usize,
    ) -> Result<Vec<Vec<f64>>, ScoringError> {
        let features = |model: &Self, batch: &TokenBatch, ends: &[usize]| {
            let hidden = model.backbone.hidden(batch);
            let ends = position_tensor(ends, &hidden.device());
            hidden.select(0, ends)
        };
        self.at_ends(sequences, at_once, features)
    }

    fn at_ends<S: AsRef<[u32]>>(
        &self,
        sequences: &[S],
        at_once: usize,
        read: impl Fn(&Self, &TokenBatch, &[usize]) -> Tensor<2>,
    ) -> Result<Vec<Vec<f64>>, ScoringError> {
        let limit = self.backbone.max_positions();
        for (index, sequence) in sequences.iter().enumerate() {
            let tokens = sequence.as_ref().len();
            if tokens == 0 {
                return Err(ScoringError::Empty { index });
            }
            if tokens > limit {
                return Err(ScoringError::TooLong { index, tokens, limit });
            }
        }
        let model = self.valid();
        let mut rows = Vec::with_capacity(sequences.len());
        for chunk in sequences.chunks(at_once) {
            let batch = TokenBatch::from_sequences(chunk);
            let ends: Vec<usize> = batch
                .starts()
                .iter()
                .zip(batch.lengths())
                .map(|(start, length)| start + length - 1)
                .collect();
            let found = read(&model, &batch, &ends);
            let width = found.dims()[1];
            let found: Vec<f64> = found.into_data().iter::<f64>().collect();
            rows.extend(found.chunks(width).map(<[f64]>::to_vec));
        }
        Ok(rows)
    }
}

/// Positions on a device. Shape `[positions]`.
pub(crate) fn position_tensor(positions: &[usize], device: &burn::tensor::Device) -> Tensor<1, Int> {
    let positions: Vec<i32> = positions.iter().map(|&position| position as i32).collect();
    let count = positions.len();
    Tensor::from_data(TensorData::new(positions, [count]), device)
}
