//! Losses of a pair that see only its margin `m`, by how much the chosen completion is ahead.

use align_model::number::{Positive, ProperFraction};
use burn::tensor::{Tensor, activation::relu};

use super::{
    rate::{FlipRate, InnerFraction},
    stable::{log_sigmoid, sigmoid, smoothed},
};

/// Direct preference optimisation; with label smoothing, conservative DPO, which takes a label to be wrong with
/// probability ε.
///
/// ```text
/// L = −(1 − ε)·log σ(β·m) − ε·log σ(−β·m)
/// ```
///
/// # Source
/// Rafailov et al. 2023, [arXiv:2305.18290](https://arxiv.org/abs/2305.18290), Eq. 7; ε: Mitchell 2023, *A note on DPO with
/// noisy preferences*, Eq. 3, as in the authors'
/// [trainers.py](https://github.com/eric-mitchell/direct-preference-optimization/blob/8a4023f5a5bde957b5d44f687569e075ff54e4f7/trainers.py).
///
/// # Shapes
/// - `margins`, result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through `margins`.
#[must_use]
pub fn sigmoid_loss(margins: Tensor<1>, beta: Positive, label_smoothing: ProperFraction) -> Tensor<1> {
    smoothed(margins * beta.get(), label_smoothing.get())
}

/// The hinge of RSO, and of SLiC on normalised likelihoods.
///
/// ```text
/// L = max(0, 1 − β·m)
/// ```
///
/// # Source
/// Liu et al. 2023, *Statistical Rejection Sampling Improves Preference Optimization*,
/// [arXiv:2309.06657](https://arxiv.org/abs/2309.06657); Zhao et al. 2023, *SLiC-HF*,
/// [arXiv:2305.10425](https://arxiv.org/abs/2305.10425).
///
/// # Shapes
/// - `margins`, result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through `margins` where they are below `1/β`.
#[must_use]
pub fn hinge_loss(margins: Tensor<1>, beta: Positive) -> Tensor<1> {
    relu(margins * -beta.get() + 1.0)
}

/// Identity preference optimisation: a squared distance from a margin that is wanted, so that certain preferences do not
/// drive the policy away from its reference without end.
///
/// ```text
/// L = (m − 1/(2β))²
/// ```
///
/// # Source
/// Azar et al. 2023, [arXiv:2310.12036](https://arxiv.org/abs/2310.12036), Eq. 17, where β is τ.
///
/// # Shapes
/// - `margins`, result: `[pairs]`; nothing is reduced. Of sums over a completion or of means per token, see
///   [`SequenceScale`](super::SequenceScale).
///
/// # Gradient
/// Flows through `margins`.
#[must_use]
pub fn ipo_loss(margins: Tensor<1>, beta: Positive) -> Tensor<1> {
    (margins - 0.5 / beta.get()).powi_scalar(2)
}

/// Efficient exact optimisation on a pair: the reverse divergence of the policy's preference from the label's.
///
/// ```text
/// L = σ(β·m)·(log σ(β·m) − log(1 − ε)) + σ(−β·m)·(log σ(−β·m) − log ε)
/// ```
///
/// # Source
/// Ji et al. 2024, [arXiv:2402.00856](https://arxiv.org/abs/2402.00856), Eq. 16.
///
/// # Shapes
/// - `margins`, result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through `margins`.
#[must_use]
pub fn exo_pair_loss(margins: Tensor<1>, beta: Positive, label_smoothing: InnerFraction) -> Tensor<1> {
    let (x, epsilon) = (margins * beta.get(), label_smoothing.get());
    let chosen = sigmoid(x.clone()) * (log_sigmoid(x.clone()) - (-epsilon).ln_1p());
    chosen + sigmoid(-x.clone()) * (log_sigmoid(-x) - epsilon.ln())
}

/// DPO whose expectation over labels that are flipped at rate ε is that of clean labels.
///
/// ```text
/// L = (−(1 − ε)·log σ(β·m) + ε·log σ(−β·m)) / (1 − 2ε)
/// ```
///
/// # Source
/// Chowdhury et al. 2024, *Provably Robust DPO*, [arXiv:2403.00409](https://arxiv.org/abs/2403.00409).
///
/// # Shapes
/// - `margins`, result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through `margins`.
#[must_use]
pub fn robust_loss(margins: Tensor<1>, beta: Positive, flip_rate: FlipRate) -> Tensor<1> {
    let (x, epsilon) = (margins * beta.get(), flip_rate.get());
    let clean = log_sigmoid(x.clone()) * (epsilon - 1.0);
    (clean + log_sigmoid(-x) * epsilon) / (1.0 - 2.0 * epsilon)
}

/// Log-ratio modulated loss, which a language model found: logistic where the margin is negative, exponential where it is
/// positive.
///
/// ```text
/// L = −log σ(β·m)·(1 − σ(β·m/τ)) + e^(−β·m)·σ(β·m/τ)
/// ```
///
/// # Source
/// Lu et al. 2024, *Discovering Preference Optimization Algorithms with and for Large Language Models* (DiscoPOP),
/// [arXiv:2406.08414](https://arxiv.org/abs/2406.08414), Eq. 5.
///
/// # Shapes
/// - `margins`, result: `[pairs]`; nothing is reduced. Finite for `τ ≤ 1`.
///
/// # Gradient
/// Flows through `margins`.
#[must_use]
pub fn discopop_loss(margins: Tensor<1>, beta: Positive, temperature: Positive) -> Tensor<1> {
    let x = margins * beta.get();
    let scaled = x.clone() / temperature.get();
    let logistic = -log_sigmoid(x.clone()) * sigmoid(-scaled.clone());
    // One exponential: its two factors, taken apart, are ∞ and 0 for a margin far below 0.
    logistic + (log_sigmoid(scaled) - x).exp()
}

/// DPO with a price on length: the policy need not prefer the chosen completion for being longer.
///
/// ```text
/// L = −log σ(β·m + α·(|y_c| − |y_r|))
/// ```
///
/// # Source
/// Park et al. 2024, *Disentangling Length from Quality in Direct Preference Optimization* (R-DPO),
/// [arXiv:2403.19159](https://arxiv.org/abs/2403.19159): what follows
/// from maximising `r − α·|y|` instead of `r`.
///
/// # Shapes
/// - `margins`, `chosen_tokens`, `rejected_tokens`, result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through `margins`.
#[must_use]
pub fn length_regularized_loss(
    margins: Tensor<1>,
    chosen_tokens: Tensor<1>,
    rejected_tokens: Tensor<1>,
    beta: Positive,
    alpha: f64,
) -> Tensor<1> {
    -log_sigmoid(margins * beta.get() + (chosen_tokens - rejected_tokens) * alpha)
}
