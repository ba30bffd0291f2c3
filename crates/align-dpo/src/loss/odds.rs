//! Odds of completions.

use align_model::number::Positive;
use burn::tensor::Tensor;

use super::stable::{log_one_minus_exp, log_sigmoid};

/// The odds-ratio term of ORPO, which is added to the likelihood of the chosen completions.
///
/// ```text
/// L = −β·log σ(log odds(y_c) − log odds(y_r))        odds(y) = p / (1 − p), log p = mean log-probability per token
/// ```
///
/// # Source
/// Hong et al. 2024, *ORPO*, [arXiv:2403.07691](https://arxiv.org/abs/2403.07691), Eq. 7, where β is λ.
///
/// # Shapes
/// - `chosen`, `rejected`: `[pairs]`, mean log-probability per token
/// - result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through both.
#[must_use]
pub fn orpo_loss(chosen: Tensor<1>, rejected: Tensor<1>, beta: Positive) -> Tensor<1> {
    log_sigmoid(log_odds(chosen) - log_odds(rejected)) * -beta.get()
}

/// `log(p / (1 − p))` of `log p`, exact also where p is almost 1; `log p` counts as at most −10⁻⁷.
///
/// # Shapes
/// - `log_probs`, result: `[pairs]`
#[must_use]
pub fn log_odds(log_probs: Tensor<1>) -> Tensor<1> {
    log_probs.clone() - log_one_minus_exp(log_probs)
}
