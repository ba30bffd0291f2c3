//! Losses of pairs: of two responses the better one is known.

use align_model::number::UnitInterval;
use burn::tensor::{Tensor, activation::log_sigmoid};

/// The negative log-likelihood of Bradley and Terry's model, by which a response wins with probability σ(c − r).
///
/// ```text
/// Δ = c − r − m
/// L = −(1 − ε)·log σ(Δ) − ε·log σ(−Δ)
/// ```
///
/// The margin m says by how much the chosen response should win; the smoothing ε is the share of labels taken to be wrong.
///
/// # Source
/// As in TRL, [reward_trainer.py](https://github.com/huggingface/trl/blob/f2cd57710/trl/trainer/reward_trainer.py); the
/// margin of Touvron et al. 2023, [arXiv:2307.09288](https://arxiv.org/abs/2307.09288), §3.2.2; the smoothing as in
/// conservative DPO.
///
/// # Shapes
/// - `chosen`, `rejected`, `margin`: `[pairs]`
/// - result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through `chosen` and `rejected`: ∂L/∂c = −∂L/∂r = σ(Δ) − 1 + ε.
#[must_use]
pub fn bradley_terry_loss(
    chosen: Tensor<1>,
    rejected: Tensor<1>,
    margin: Option<Tensor<1>>,
    smoothing: UnitInterval,
) -> Tensor<1> {
    let difference = chosen - rejected;
    let difference = match margin {
        Some(margin) => difference - margin,
        None => difference,
    };
    let epsilon = smoothing.get();
    if epsilon > 0.0 {
        -log_sigmoid(difference.clone()) * (1.0 - epsilon) - log_sigmoid(-difference) * epsilon
    } else {
        -log_sigmoid(difference)
    }
}

/// Pulls the scores of a pair towards a mean of 0, which pairs leave open.
///
/// ```text
/// L = (c + r)²
/// ```
///
/// The paper's coefficient is 0.01.
///
/// # Source
/// Eisenstein et al. 2023, *Helping or Herding?*, [arXiv:2312.09244](https://arxiv.org/abs/2312.09244), §2; as in TRL's
/// `center_rewards_coefficient`.
///
/// # Shapes
/// - `chosen`, `rejected`, result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through both: 2(c + r).
#[must_use]
pub fn centering_loss(chosen: Tensor<1>, rejected: Tensor<1>) -> Tensor<1> {
    (chosen + rejected).square()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn numbers(values: &[f32]) -> Tensor<1> {
        Tensor::from_data(values, &Device::flex())
    }

    fn loss(chosen: f32, rejected: f32, margin: Option<f32>, smoothing: f64) -> f64 {
        let margin = margin.map(|margin| numbers(&[margin]));
        let smoothing = UnitInterval::new(smoothing);
        bradley_terry_loss(numbers(&[chosen]), numbers(&[rejected]), margin, smoothing).into_scalar::<f64>()
    }

    #[test]
    fn values_by_hand() {
        let softplus = |x: f64| x.exp().ln_1p();
        let cases = [
            (1.5, 0.5, None, 0.0, softplus(-1.0)),
            (1.5, 0.5, Some(2.0), 0.0, softplus(1.0)),
            (0.3, 0.3, None, 0.0, 2f64.ln()),
            (1.5, 0.5, None, 0.1, 0.9 * softplus(-1.0) + 0.1 * softplus(1.0)),
        ];
        for (chosen, rejected, margin, smoothing, expected) in cases {
            assert!((loss(chosen, rejected, margin, smoothing) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn far_apart_scores_neither_overflow_nor_lose_their_gradient() {
        assert!((loss(-500.0, 500.0, None, 0.0) - 1000.0).abs() < 1e-2);
        assert!(loss(500.0, -500.0, None, 0.0).abs() < 1e-6);
        let device = Device::flex().autodiff();
        let chosen = Tensor::<1>::from_data([-500.0f32, 500.0], &device).require_grad();
        let rejected = Tensor::<1>::from_data([500.0f32, -500.0], &device);
        let loss = bradley_terry_loss(chosen.clone(), rejected, None, UnitInterval::new(0.0));
        let gradient = chosen.grad(&loss.sum().backward()).unwrap().into_data();
        assert_eq!(gradient.iter::<f64>().collect::<Vec<_>>(), [-1.0, 0.0]);
    }

    #[test]
    fn centering_is_the_squared_sum() {
        let loss = centering_loss(numbers(&[1.0, 2.0]), numbers(&[0.5, -2.0])).into_data();
        assert_eq!(loss.iter::<f64>().collect::<Vec<_>>(), [2.25, 0.0]);
    }
}
