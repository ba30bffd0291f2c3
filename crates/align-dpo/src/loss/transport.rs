//! Alignment by optimal transport: distributions of a batch are compared, not its pairs.

use align_model::number::{Positive, ProperFraction};
use burn::tensor::Tensor;

use super::stable::smoothed;

/// Paired alignment by optimal transport: the policy's margins, as a distribution, are to lie above the reference's.
///
/// ```text
/// u = sort(log π(y_c) − log π(y_r)), v = sort(log π_ref(y_c) − log π_ref(y_r))
/// L_i = −(1 − ε)·log σ(β·(u_i − v_i)) − ε·log σ(−β·(u_i − v_i))
/// ```
///
/// # Source
/// Melnyk et al. 2024, *Distributional Preference Alignment of LLMs via Optimal Transport*,
/// [arXiv:2406.05882](https://arxiv.org/abs/2406.05882), with the logistic loss.
///
/// # Shapes
/// - `policy`, `reference`: `[pairs]`, log-probability of the chosen less that of the rejected completion
/// - result: `[pairs]`, by rank; it depends on which pairs are in the batch
///
/// # Gradient
/// Flows through `policy`.
#[must_use]
pub fn aot_loss(
    policy: Tensor<1>,
    reference: Tensor<1>,
    beta: Positive,
    label_smoothing: ProperFraction,
) -> Tensor<1> {
    smoothed((policy.sort(0) - reference.sort(0)) * beta.get(), label_smoothing.get())
}

/// Unpaired alignment by optimal transport: the log-ratios of chosen completions, as a distribution, are to lie above those
/// of rejected ones.
///
/// ```text
/// u = sort(x_c), v = sort(x_r)
/// L_i = −(1 − ε)·log σ(β·(u_i − v_i)) − ε·log σ(−β·(u_i − v_i))
/// ```
///
/// # Source
/// Melnyk et al. 2024, *Distributional Preference Alignment of LLMs via Optimal Transport*,
/// [arXiv:2406.05882](https://arxiv.org/abs/2406.05882), with the logistic loss.
///
/// # Shapes
/// - `chosen`, `rejected`: `[pairs]`, log-ratios
/// - result: `[pairs]`, by rank; it depends on which pairs are in the batch
///
/// # Gradient
/// Flows through both.
#[must_use]
pub fn aot_unpaired_loss(
    chosen: Tensor<1>,
    rejected: Tensor<1>,
    beta: Positive,
    label_smoothing: ProperFraction,
) -> Tensor<1> {
    smoothed((chosen.sort(0) - rejected.sort(0)) * beta.get(), label_smoothing.get())
}
