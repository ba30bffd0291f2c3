//! Corrections for tokens that another policy, or another program, has sampled.

use align_model::number::{NonNegative, Positive};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{ratio::bounded_exp, sequences::Sequences};

/// How the difference between the sampler's probabilities and the trainer's is corrected. Below, `ρ_t = π_old/π_sampler` of a
/// token and `ρ = Π_t ρ_t` of its sequence.
///
/// # Source
/// As in TRL's `vllm_importance_sampling_mode`
/// ([grpo_trainer.py](https://github.com/huggingface/trl/blob/f2cd57710/trl/trainer/grpo_trainer.py)); masked tokens: `IcePop`,
/// [arXiv:2510.18855](https://arxiv.org/abs/2510.18855).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ImportanceCorrection {
    /// `clip(ρ_t, low, high)`
    TokenTruncated {
        /// The least weight; 0 unless given.
        #[serde(default = "zero")]
        low: NonNegative,
        /// The greatest weight.
        high: Positive,
    },
    /// `ρ_t` where it lies between `low` and `high`, else 0: `IcePop`.
    TokenMasked {
        /// The least weight that counts; 0 unless given.
        #[serde(default = "zero")]
        low: NonNegative,
        /// The greatest weight that counts.
        high: Positive,
    },
    /// `clip(ρ, low, high)`, one a sequence.
    SequenceTruncated {
        /// The least weight; 0 unless given.
        #[serde(default = "zero")]
        low: NonNegative,
        /// The greatest weight.
        high: Positive,
    },
    /// `ρ` where it lies between `low` and `high`, else 0. A product: long sequences easily leave the range.
    SequenceMasked {
        /// The least weight that counts; 0 unless given.
        #[serde(default = "zero")]
        low: NonNegative,
        /// The greatest weight that counts.
        high: Positive,
    },
    /// `ρ_t` of sequences whose geometric mean of `ρ_t` lies between `low` and `high`, 0 for the others: OpenRLHF's
    /// `seq-mask-tis`.
    SequenceMeanMasked {
        /// The least mean that counts; 0 unless given.
        #[serde(default = "zero")]
        low: NonNegative,
        /// The greatest mean that counts.
        high: Positive,
    },
}

impl ImportanceCorrection {
    /// The weight of each token, without a gradient.
    ///
    /// # Shapes
    /// - `old`, `sampling`: log-probabilities, `[targets]`, sequence after sequence, `counts` of them each
    /// - result: `[targets]`
    #[must_use]
    pub fn weights(self, old: Tensor<1>, sampling: Tensor<1>, counts: &[usize]) -> Tensor<1> {
        let differences = (old - sampling).detach();
        let sequences = Sequences::new(counts, &differences);
        let (low, high) = self.range();
        match self {
            Self::TokenTruncated { .. } => bounded_exp(differences).clamp(low, high),
            Self::TokenMasked { .. } => within(bounded_exp(differences), low, high),
            Self::SequenceTruncated { .. } => bounded_exp(sequences.spread_sum(differences)).clamp(low, high),
            Self::SequenceMasked { .. } => within(bounded_exp(sequences.spread_sum(differences)), low, high),
            Self::SequenceMeanMasked { .. } => {
                let mean = bounded_exp(sequences.spread_mean(differences.clone()));
                let is_outside = outside(mean, low, high);
                bounded_exp(differences).mask_fill(is_outside, 0.0)
            }
        }
    }

    /// The least and the greatest weight.
    #[must_use]
    pub fn range(self) -> (f64, f64) {
        let (Self::TokenTruncated { low, high }
        | Self::TokenMasked { low, high }
        | Self::SequenceTruncated { low, high }
        | Self::SequenceMasked { low, high }
        | Self::SequenceMeanMasked { low, high }) = self;
        (low.get(), high.get())
    }
}

/// 1 for tokens that may be learnt from, 0 for those of sequences that the policy has left: with a negative advantage, and
/// less likely by more than `threshold` a token, on average, than when they were sampled.
///
/// # Source
/// DeepSeek-AI 2025, *DeepSeek-V3.2*, [arXiv:2512.02556](https://arxiv.org/abs/2512.02556), as in TRL's
/// [grpo_trainer.py](https://github.com/huggingface/trl/blob/f2cd57710/trl/trainer/grpo_trainer.py).
///
/// # Shapes
/// - `log_probs`, `sampling` (log-probabilities when they were sampled), `advantages`: `[targets]`, sequence after sequence,
///   `counts` of them each
/// - result: `[targets]`, without a gradient
#[must_use]
pub fn off_policy_mask(
    log_probs: Tensor<1>,
    sampling: Tensor<1>,
    advantages: Tensor<1>,
    counts: &[usize],
    threshold: NonNegative,
) -> Tensor<1> {
    let differences = (sampling - log_probs).detach();
    let mean = Sequences::new(counts, &differences).spread_mean(differences);
    let is_left = mean.greater_scalar(threshold.get()).float() * advantages.lower_scalar(0.0).float();
    -is_left + 1.0
}

fn within(weights: Tensor<1>, low: f64, high: f64) -> Tensor<1> {
    let is_outside = outside(weights.clone(), low, high);
    weights.mask_fill(is_outside, 0.0)
}

fn outside(weights: Tensor<1>, low: f64, high: f64) -> Tensor<1, burn::tensor::Bool> {
    weights.clone().lower_scalar(low).bool_or(weights.greater_scalar(high))
}

fn zero() -> NonNegative {
    NonNegative::new(0.0)
}
