//! Weights of tokens and of sequences, from their lengths and from the policy.

use align_model::{logprob::TokenLogProbs, number::UnitInterval};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// LD-DPO: tokens beyond the length of the other completion of a pair count for less.
///
/// # Source
/// Liu et al. 2024, *Length Desensitization in Direct Preference Optimization*,
/// [arXiv:2409.06411](https://arxiv.org/abs/2409.06411).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthDesensitization {
    /// What such a token counts: 1 is plain DPO.
    pub alpha: UnitInterval,
    /// Whose log-probabilities are weighted; both unless given.
    #[serde(default)]
    pub of: Desensitized,
}

/// Whose log-probabilities [`LengthDesensitization`] weighs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desensitized {
    /// The policy's and the reference's, as in TRL.
    #[default]
    PolicyAndReference,
    /// The policy's, as in LLaMA-Factory.
    Policy,
}

/// Weights of LD-DPO: 1 for a token within the length of the other completion of its pair, `alpha` beyond.
///
/// # Shapes
/// - result: `[targets]`, sequence after sequence
///
/// # Panics
/// If there are not as many `partners` as `lengths`.
#[must_use]
pub fn length_desensitized(
    lengths: &[usize],
    partners: &[usize],
    alpha: UnitInterval,
    device: &Device,
) -> Tensor<1> {
    assert_eq!(lengths.len(), partners.len(), "every sequence has a partner");
    let mut weights = Vec::with_capacity(lengths.iter().sum());
    for (&length, &partner) in lengths.iter().zip(partners) {
        weights.extend((0..length).map(|token| if token < partner { 1.0 } else { alpha.get() as f32 }));
    }
    let count = weights.len();
    Tensor::from_data(TensorData::new(weights, [count]), device)
}

/// The log-probabilities times `weights`; summed, they are weighted sums of each sequence.
///
/// # Shapes
/// - `weights`: `[targets]`
#[must_use]
pub fn weigh_tokens(log_probs: &TokenLogProbs, weights: Tensor<1>) -> TokenLogProbs {
    TokenLogProbs { values: log_probs.values.clone() * weights, counts: log_probs.counts.clone() }
}

/// Weights of WPO: how likely the policy itself would write a sequence, against what it writes on average. A pair is
/// weighted by the product of its two; nothing has a gradient.
///
/// ```text
/// w = exp(mean_t(log π(y_t) − log Σ_v π(v)²))
/// ```
///
/// # Source
/// Zhou et al. 2024, *WPO*, [arXiv:2406.11827](https://arxiv.org/abs/2406.11827), Eq. 2 with its weight alignment; not
/// cut off at 1, as in TRL.
///
/// # Shapes
/// - `log_sum_squares`: `[targets]`, the logarithm of the sum over the vocabulary of squared probabilities
/// - result: `[sequences]`
#[must_use]
pub fn policy_weights(log_probs: &TokenLogProbs, log_sum_squares: Tensor<1>) -> Tensor<1> {
    let values = log_probs.values.clone().detach() - log_sum_squares.detach();
    TokenLogProbs { values, counts: log_probs.counts.clone() }.averaged().exp()
}
