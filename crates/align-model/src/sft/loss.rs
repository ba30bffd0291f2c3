//! Losses of supervised fine-tuning, one term a token.

use burn::tensor::Tensor;

use crate::number::UnitInterval;

/// Negative log-likelihood of each target token.
///
/// ```text
/// L = −log p(y)
/// ```
///
/// # Source
/// Maximum likelihood; as `nll` in TRL,
/// [sft_trainer.py](https://github.com/huggingface/trl/blob/f2cd57710/trl/trainer/sft_trainer.py).
///
/// # Shapes
/// - `log_probs`, result: `[targets]`; nothing is reduced
///
/// # Gradient
/// Flows through `log_probs`.
#[must_use]
pub fn nll_loss(log_probs: Tensor<1>) -> Tensor<1> {
    -log_probs
}

/// Negative log-likelihood of each target token, part of it spread over the vocabulary.
///
/// ```text
/// L = −(1 − ε)·log p(y) − ε·mean_v log p(v)
/// ```
///
/// # Source
/// Szegedy et al. 2015, [arXiv:1512.00567](https://arxiv.org/abs/1512.00567), §7; with transformers' convention that the
/// target itself has its part of ε.
///
/// # Shapes
/// - `log_probs`: `[targets]`; `uniform_log_probs`: `[targets]`, the mean log-probability over the vocabulary
/// - result: `[targets]`; nothing is reduced
///
/// # Gradient
/// Flows through both.
#[must_use]
pub fn smoothed_nll_loss(
    log_probs: Tensor<1>,
    uniform_log_probs: Tensor<1>,
    epsilon: UnitInterval,
) -> Tensor<1> {
    let epsilon = epsilon.get();
    log_probs * (epsilon - 1.0) - uniform_log_probs * epsilon
}

/// Dynamic fine-tuning: each token's likelihood loss weighted by its own probability, which takes away the inverse
/// probability that likelihood training hides in its gradient.
///
/// ```text
/// L = −sg(p(y))·log p(y)
/// ```
///
/// # Source
/// Wu et al. 2025, *On the Generalization of SFT*, [arXiv:2508.05629](https://arxiv.org/abs/2508.05629).
///
/// # Shapes
/// - `log_probs`, result: `[targets]`; nothing is reduced
///
/// # Gradient
/// Flows through the logarithm alone; the weight is detached.
#[must_use]
pub fn dft_loss(log_probs: Tensor<1>) -> Tensor<1> {
    -(log_probs.clone().exp().detach() * log_probs)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    // lp = torch.tensor([-0.5, -2.0], requires_grad=True); l = -(lp.exp().detach() * lp); l.sum().backward()
    #[test]
    fn dft_weighs_by_probability_without_differentiating_the_weight() {
        let device = Device::flex().autodiff();
        let log_probs = Tensor::<1>::from_floats([-0.5, -2.0], &device).require_grad();
        let loss = dft_loss(log_probs.clone());
        let gradients = loss.clone().sum().backward();
        let read = |t: Tensor<1>| t.into_data().iter::<f32>().collect::<Vec<_>>();
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close(&read(loss.inner()), &[0.303_265_33, 0.270_670_56]));
        assert!(close(&read(log_probs.grad(&gradients).unwrap()), &[-0.606_530_66, -0.135_335_28]));
    }
}
