//! Losses of process reward models: each step of a solution has a class.

use burn::tensor::{Int, Tensor, activation::log_softmax};

/// Cross-entropy of each labelled token's class.
///
/// ```text
/// L = −log softmax(z)_y
/// ```
///
/// # Source
/// As in TRL's token classification,
/// [prm_trainer.py](https://github.com/huggingface/trl/blob/f2cd57710/trl/experimental/prm/prm_trainer.py); Lightman et al.
/// 2023, *Let's Verify Step by Step*, [arXiv:2305.20050](https://arxiv.org/abs/2305.20050).
///
/// # Shapes
/// - `logits`: `[steps, classes]`; `classes`: `[steps]`
/// - result: `[steps]`; nothing is reduced
///
/// # Gradient
/// Flows through `logits`: `softmax(z) − 1_y`.
#[must_use]
pub fn class_loss(logits: Tensor<2>, classes: Tensor<1, Int>) -> Tensor<1> {
    -log_softmax(logits, 1).gather(1, classes.unsqueeze_dim(1)).squeeze_dim::<1>(1)
}

/// Cross-entropy of each labelled token with a distribution over its classes, such as the share of completions from a step
/// on that reach the right answer.
///
/// ```text
/// L = −Σ_c p_c·log softmax(z)_c
/// ```
///
/// # Source
/// The soft estimation of Math-Shepherd, Wang et al. 2023, [arXiv:2312.08935](https://arxiv.org/abs/2312.08935).
///
/// # Shapes
/// - `logits`, `probabilities`: `[steps, classes]`, rows of the latter sum to 1
/// - result: `[steps]`; nothing is reduced
///
/// # Gradient
/// Flows through `logits`: softmax(z) − p.
#[must_use]
pub fn soft_class_loss(logits: Tensor<2>, probabilities: Tensor<2>) -> Tensor<1> {
    -(log_softmax(logits, 1) * probabilities).sum_dim(1).squeeze_dim::<1>(1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_certain_distribution_is_a_class() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_data([[0.2f32, -1.0], [3.0, 500.0]], &device);
        let hard = class_loss(logits.clone(), Tensor::from_data([1, 0], &device)).into_data();
        let soft =
            soft_class_loss(logits, Tensor::from_data([[0.0f32, 1.0], [1.0, 0.0]], &device)).into_data();
        let expected = [(1.2f64.exp() + 1.0).ln(), 497.0];
        for ((hard, soft), expected) in hard.iter::<f64>().zip(soft.iter::<f64>()).zip(expected) {
            assert!((hard - expected).abs() < 1e-4 && (soft - expected).abs() < 1e-4);
        }
    }

    #[test]
    fn the_gradient_is_the_difference_of_distributions() {
        let device = Device::flex().autodiff();
        let logits = Tensor::<2>::from_data([[0.0f32, 0.0]], &device).require_grad();
        let loss = soft_class_loss(logits.clone(), Tensor::from_data([[0.3f32, 0.7]], &device));
        let gradient = logits.grad(&loss.sum().backward()).unwrap().into_data();
        for (found, expected) in gradient.iter::<f64>().zip([0.2, -0.2]) {
            assert!((found - expected).abs() < 1e-6);
        }
    }
}
