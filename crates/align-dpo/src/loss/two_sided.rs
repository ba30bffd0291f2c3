//! Losses of a pair that see each completion by itself, not only the margin between them.

use align_model::number::{NonNegative, Positive};
use burn::tensor::{Tensor, activation::relu};

use super::stable::{log_sigmoid, sigmoid};

/// Noise-contrastive alignment on a pair: besides the margin it holds each completion's own likelihood.
///
/// ```text
/// L = −log σ(β·x_c) − ½·log σ(−β·x_c) − ½·log σ(−β·x_r)
/// ```
///
/// # Source
/// Chen et al. 2024, *Noise Contrastive Alignment*, [arXiv:2402.05369](https://arxiv.org/abs/2402.05369).
///
/// # Shapes
/// - `chosen`, `rejected`: `[pairs]`, log-ratios; result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through both.
#[must_use]
pub fn nca_pair_loss(chosen: Tensor<1>, rejected: Tensor<1>, beta: Positive) -> Tensor<1> {
    let (chosen, rejected) = (chosen * beta.get(), rejected * beta.get());
    -log_sigmoid(chosen.clone()) - (log_sigmoid(-chosen) + log_sigmoid(-rejected)) * 0.5
}

/// Binary classification of chosen and rejected completions, without a shift of the rewards.
///
/// ```text
/// L = −log σ(β·x_c) − log σ(−β·x_r)
/// ```
///
/// # Source
/// Jung et al. 2024, *Binary Classifier Optimization*, [arXiv:2404.04656](https://arxiv.org/abs/2404.04656), with δ = 0,
/// as TRL's `bco_pair`; [`bco_loss`](super::bco_loss) has the shift.
///
/// # Shapes
/// - `chosen`, `rejected`: `[pairs]`, log-ratios; result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through both.
#[must_use]
pub fn bco_pair_loss(chosen: Tensor<1>, rejected: Tensor<1>, beta: Positive) -> Tensor<1> {
    -log_sigmoid(chosen * beta.get()) - log_sigmoid(rejected * -beta.get())
}

/// Self-play preference optimisation with the pair's own label: the chosen completion wins always, the other never.
///
/// ```text
/// L = (x_c − 1/(2β))² + (x_r + 1/(2β))²
/// ```
///
/// # Source
/// Wu et al. 2024, [arXiv:2405.00675](https://arxiv.org/abs/2405.00675), Eq. 4.7 with P = 1 and 0; η there is 1/β.
///
/// # Shapes
/// - `chosen`, `rejected`: `[pairs]`, log-ratios; result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through both.
#[must_use]
pub fn sppo_hard_loss(chosen: Tensor<1>, rejected: Tensor<1>, beta: Positive) -> Tensor<1> {
    let half = 0.5 / beta.get();
    (chosen - half).powi_scalar(2) + (rejected + half).powi_scalar(2)
}

/// Self-play preference optimisation with estimated probabilities of winning against the policy.
///
/// ```text
/// L = (x_c − (P_c − ½)/β)² + (x_r − (P_r − ½)/β)²
/// ```
///
/// # Source
/// Wu et al. 2024, [arXiv:2405.00675](https://arxiv.org/abs/2405.00675), Eq. 4.7; η there is 1/β.
///
/// # Shapes
/// - `chosen`, `rejected`: `[pairs]`, log-ratios; `chosen_wins`, `rejected_wins`: `[pairs]`, probabilities
/// - result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through the log-ratios.
#[must_use]
pub fn sppo_soft_loss(
    chosen: Tensor<1>,
    rejected: Tensor<1>,
    chosen_wins: Tensor<1>,
    rejected_wins: Tensor<1>,
    beta: Positive,
) -> Tensor<1> {
    let wanted = |wins: Tensor<1>| (wins - 0.5) / beta.get();
    (chosen - wanted(chosen_wins)).powi_scalar(2) + (rejected - wanted(rejected_wins)).powi_scalar(2)
}

/// Anchored preference optimisation for pairs whose chosen completion is better than what the model writes: it becomes
/// likelier, the rejected one less likely.
///
/// ```text
/// L = (1 − σ(β·x_c)) + σ(β·x_r)
/// ```
///
/// # Source
/// D'Oosterlinck et al. 2024, *Anchored Preference Optimization*, [arXiv:2408.06266](https://arxiv.org/abs/2408.06266),
/// Eq. 7.
///
/// # Shapes
/// - `chosen`, `rejected`: `[pairs]`, log-ratios; result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through both.
#[must_use]
pub fn apo_zero_loss(chosen: Tensor<1>, rejected: Tensor<1>, beta: Positive) -> Tensor<1> {
    sigmoid(chosen * -beta.get()) + sigmoid(rejected * beta.get())
}

/// Anchored preference optimisation for pairs whose chosen completion is worse than what the model writes: both become
/// less likely, the rejected one more so.
///
/// ```text
/// L = σ(β·x_c) + (1 − σ(β·(x_c − x_r)))
/// ```
///
/// # Source
/// D'Oosterlinck et al. 2024, *Anchored Preference Optimization*, [arXiv:2408.06266](https://arxiv.org/abs/2408.06266),
/// Eq. 8.
///
/// # Shapes
/// - `chosen`, `rejected`: `[pairs]`, log-ratios; result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through both.
#[must_use]
pub fn apo_down_loss(chosen: Tensor<1>, rejected: Tensor<1>, beta: Positive) -> Tensor<1> {
    sigmoid(chosen.clone() * beta.get()) + sigmoid((chosen - rejected) * -beta.get())
}

/// DPO-positive: DPO with a price on a chosen completion that becomes less likely than under the reference.
///
/// ```text
/// L = −log σ(β·(x_c − x_r − λ·max(0, −x_c)))
/// ```
///
/// # Source
/// Pal et al. 2024, *Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive*,
/// [arXiv:2402.13228](https://arxiv.org/abs/2402.13228), Eq. 3.
///
/// # Shapes
/// - `chosen`, `rejected`: `[pairs]`, log-ratios; result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through both.
#[must_use]
pub fn dpop_loss(chosen: Tensor<1>, rejected: Tensor<1>, beta: Positive, lambda: NonNegative) -> Tensor<1> {
    let lost = relu(-chosen.clone());
    -log_sigmoid((chosen - rejected - lost * lambda.get()) * beta.get())
}
