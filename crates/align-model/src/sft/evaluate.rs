//! How well a model predicts demonstrations that it is not trained on.

use std::num::NonZeroUsize;

use burn::tensor::Tensor;

use super::{SftExample, config::SftLoss, trainer::pack};
use crate::{
    causal_lm::CausalLm,
    logprob::{LogProbPass, Targets},
};

/// What an evaluation measured, over all target tokens of all samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvaluationReport {
    /// Mean loss, by the loss of training. transformers takes the mean over batches of their means; this one does not
    /// depend on how samples are cut into batches.
    pub loss: f64,
    /// Exponential of the mean negative log-likelihood.
    pub perplexity: f64,
    /// Share of target tokens that were the most likely one.
    pub mean_token_accuracy: f64,
    /// Mean entropy of the next-token distribution at their positions, in nats.
    pub entropy: f64,
    /// Target tokens.
    pub num_tokens: u64,
}

impl EvaluationReport {
    /// Names as TRL logs them, without `eval_`, and values.
    #[must_use]
    pub fn metrics(&self) -> [(&'static str, f64); 5] {
        [
            ("loss", self.loss),
            ("perplexity", self.perplexity),
            ("mean_token_accuracy", self.mean_token_accuracy),
            ("entropy", self.entropy),
            ("num_tokens", self.num_tokens as f64),
        ]
    }
}

/// Samples could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// No token carries a loss.
    #[error("no token of the {samples} samples for evaluation carries a loss")]
    NoTargets {
        /// How many samples there are.
        samples: usize,
    },
    /// A sample is longer than the model's context.
    #[error(
        "sample {index} for evaluation has {tokens} tokens, the model's context {limit}: lower `max_length`"
    )]
    TooLong {
        /// Its place among the samples.
        index: usize,
        /// Its length.
        tokens: usize,
        /// What the model can read.
        limit: usize,
    },
}

/// Scores samples without gradients, so many in a forward pass.
///
/// # Errors
/// If there is nothing to score, or a sample does not fit the model.
pub fn evaluate<M: CausalLm>(
    model: &M,
    samples: &[SftExample],
    loss: SftLoss,
    micro_batch_size: NonZeroUsize,
) -> Result<EvaluationReport, EvaluationError> {
    let limit = model.max_positions();
    if let Some((index, long)) = samples.iter().enumerate().find(|(_, sample)| sample.tokens.len() > limit) {
        return Err(EvaluationError::TooLong { index, tokens: long.tokens.len(), limit });
    }
    let model = model.valid();
    let (mut targets, mut sums) = (0, [0.0; 4]);
    for samples in samples.chunks(micro_batch_size.get()) {
        let (tokens, selected) = pack(&samples.iter().collect::<Vec<_>>());
        let targets_here = Targets::selected(&tokens, &selected);
        if targets_here.is_empty() {
            continue;
        }
        let scores = LogProbPass::forward(&model, &tokens, &targets_here).scores();
        let losses = loss.per_token(&scores);
        let parts = [losses, -scores.log_probs.values, scores.entropies, scores.correct];
        let read = Tensor::cat(parts.to_vec(), 0).into_data();
        let read: Vec<f64> = read.iter::<f64>().collect();
        for (sum, part) in sums.iter_mut().zip(read.chunks(targets_here.len())) {
            *sum += part.iter().sum::<f64>();
        }
        targets += targets_here.len();
    }
    if targets == 0 {
        return Err(EvaluationError::NoTargets { samples: samples.len() });
    }
    let [loss, nll, entropy, correct] = sums.map(|sum| sum / targets as f64);
    let perplexity = nll.exp();
    let num_tokens = targets as u64;
    Ok(EvaluationReport { loss, perplexity, mean_token_accuracy: correct, entropy, num_tokens })
}
