//! Estimators of a divergence, one number a token.

use align_model::number::Positive;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Differences of log-probabilities beyond this count as this: their exponential would soon leave what f32 can hold.
const LARGEST_EXPONENT: f64 = 80.0;

/// How `KL(π ‖ π_ref)` is estimated from sampled tokens. Below, `d = log π_ref − log π` of the token.
///
/// # Source
/// Schulman 2020, *Approximating KL Divergence*; the straight-through forms:
/// [core_algos.py](https://github.com/volcengine/verl/blob/b178a3cd56f58b2d502255daba591e92833930a7/verl/trainer/ppo/core_algos.py).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `−d`: unbiased, often negative. Its gradient is 0 on average: for rewards, not for losses.
    K1,
    /// `|d|`
    Absolute,
    /// `½·d²`: biased, its gradient is that of the divergence.
    K2,
    /// `e^d − d − 1`: unbiased and never negative; its gradient is that of the forward divergence.
    #[default]
    K3,
    /// The value of `K1` with the gradient of `K2`.
    K1StraightThrough,
    /// The value of `K3` with the gradient of `K2`.
    K3StraightThrough,
    /// The divergence itself, over the whole vocabulary.
    Exact,
}

impl KlEstimator {
    /// The estimates of some tokens.
    ///
    /// # Shapes
    /// - `log_probs`, `reference`, result: `[targets]`; nothing is reduced
    ///
    /// # Gradient
    /// Flows through `log_probs`.
    ///
    /// # Panics
    /// If it is [`Exact`](Self::Exact), which is no function of sampled tokens.
    #[must_use]
    pub fn estimates(self, log_probs: Tensor<1>, reference: Tensor<1>) -> Tensor<1> {
        let differences = reference - log_probs;
        self.with_gradient(self.values(differences.clone()), differences)
    }

    fn values(self, d: Tensor<1>) -> Tensor<1> {
        assert!(self != Self::Exact, "an exact divergence is no function of sampled tokens");
        match self {
            Self::K1 | Self::K1StraightThrough | Self::Exact => -d,
            Self::Absolute => d.abs(),
            Self::K2 => k2(d),
            Self::K3 | Self::K3StraightThrough => k3(d),
        }
    }

    /// Values, with the gradient of `k2` if the estimator says so.
    fn with_gradient(self, values: Tensor<1>, d: Tensor<1>) -> Tensor<1> {
        if !matches!(self, Self::K1StraightThrough | Self::K3StraightThrough) {
            return values;
        }
        let k2 = k2(d);
        // The difference of two equal numbers is exactly 0, so that the value is not disturbed.
        values.detach() + (k2.clone() - k2.detach())
    }

    /// The estimate of one token on the host.
    ///
    /// # Panics
    /// If it is [`Exact`](Self::Exact), which is no function of sampled tokens.
    #[must_use]
    pub fn estimate(self, log_prob: f64, reference: f64) -> f64 {
        assert!(self != Self::Exact, "an exact divergence is no function of sampled tokens");
        let d = reference - log_prob;
        match self {
            Self::K1 | Self::K1StraightThrough | Self::Exact => -d,
            Self::Absolute => d.abs(),
            Self::K2 => 0.5 * d * d,
            Self::K3 | Self::K3StraightThrough => (d.exp_m1() - d).max(0.0),
        }
    }
}

/// `e^d − d − 1`, at least 0 and exact also near 0.
///
/// `e^d − 1 = tanh(d/2)·(e^d + 1)` subtracts nothing; the gradient is that of `e^d − d`.
fn k3(d: Tensor<1>) -> Tensor<1> {
    let exponent = d.clone().clamp_max(LARGEST_EXPONENT);
    let rough = exponent.clone().exp() - d.clone();
    let exact = (exponent.clone() * 0.5).tanh() * (exponent.exp() + 1.0) - d;
    rough.clone() + (exact.clamp_min(0.0) - rough).detach()
}

fn k2(d: Tensor<1>) -> Tensor<1> {
    d.powi_scalar(2) * 0.5
}

/// A divergence from the reference that is added to the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KlPenalty {
    /// How it is estimated.
    #[serde(default)]
    pub estimator: KlEstimator,
    /// What it is multiplied by: TRL's `beta`.
    pub coefficient: Positive,
    /// Whether an estimate is multiplied by the token's ratio, which makes it one of the policy's own divergence when another
    /// policy sampled (TRL's `use_bias_correction_kl`; DeepSeek-V3.2, [arXiv:2512.02556](https://arxiv.org/abs/2512.02556)).
    #[serde(default)]
    pub is_bias_corrected: bool,
    /// Differences of log-probabilities beyond this count as this and have no gradient; verl's 20. None unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference_limit: Option<Positive>,
    /// Estimates beyond this, in both directions, count as this and have no gradient; 10 in verl and OpenRLHF. None unless
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_limit: Option<Positive>,
}

impl KlPenalty {
    /// `k3` with this coefficient and nothing else.
    #[must_use]
    pub fn k3(coefficient: Positive) -> Self {
        Self {
            estimator: KlEstimator::K3,
            coefficient,
            is_bias_corrected: false,
            difference_limit: None,
            estimate_limit: None,
        }
    }

    /// Whether it is made of divergences over the whole vocabulary.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.estimator == KlEstimator::Exact
    }

    /// The divergences of some tokens, not yet multiplied by the coefficient. `divergences` are those over the whole
    /// vocabulary, `ratios` those that a bias is corrected with.
    ///
    /// # Shapes
    /// - every tensor: `[targets]`; nothing is reduced
    ///
    /// # Panics
    /// If the estimator is exact and there are no divergences, or it is not and there is no reference.
    #[must_use]
    pub fn per_token(
        &self,
        log_probs: Tensor<1>,
        reference: Option<Tensor<1>>,
        divergences: Option<Tensor<1>>,
        ratios: Tensor<1>,
    ) -> Tensor<1> {
        let differences = reference.map(|reference| reference - log_probs);
        let given = if self.estimator == KlEstimator::Exact { divergences } else { differences };
        assert!(
            given.is_some(),
            "give the reference's log-probabilities, or divergences where they are exact"
        );
        let Some(given) = given else { return ratios };
        let mut estimates = given.clone();
        if self.estimator != KlEstimator::Exact {
            if let Some(limit) = self.difference_limit {
                estimates = estimates.clamp(-limit.get(), limit.get());
            }
            estimates = self.estimator.values(estimates);
        }
        if let Some(limit) = self.estimate_limit {
            estimates = estimates.clamp(-limit.get(), limit.get());
        }
        let estimates = self.estimator.with_gradient(estimates, given);
        if self.is_bias_corrected { estimates * ratios } else { estimates }
    }
}

#[cfg(test)]
mod tests {
    use align_model::logprob::vector;
    use burn::tensor::Device;
    use proptest::prelude::*;

    use super::*;

    const ESTIMATORS: [KlEstimator; 6] = [
        KlEstimator::K1,
        KlEstimator::Absolute,
        KlEstimator::K2,
        KlEstimator::K3,
        KlEstimator::K1StraightThrough,
        KlEstimator::K3StraightThrough,
    ];

    fn values_and_gradients(
        estimator: KlEstimator,
        policy: &[f32],
        reference: &[f32],
    ) -> (Vec<f64>, Vec<f64>) {
        let device = Device::flex().autodiff();
        let log_probs = vector(policy.iter().copied(), &device).require_grad();
        let estimates = estimator.estimates(log_probs.clone(), vector(reference.iter().copied(), &device));
        let gradients = estimates.clone().sum().backward();
        let read = |x: Tensor<1>| x.into_data().iter::<f64>().collect();
        (read(estimates), read(log_probs.grad(&gradients).unwrap()))
    }

    #[test]
    fn each_estimator_has_its_value_and_gradient() {
        let (policy, reference) = ([-1.0, -2.0], [-1.5, -0.5]);
        let d = [-0.5_f64, 1.5];
        for estimator in ESTIMATORS {
            let (values, gradients) = values_and_gradients(estimator, &policy, &reference);
            for ((value, gradient), d) in values.into_iter().zip(gradients).zip(d) {
                let (expected, slope) = match estimator {
                    KlEstimator::K1 => (-d, 1.0),
                    KlEstimator::Absolute => (d.abs(), -d.signum()),
                    KlEstimator::K2 => (0.5 * d * d, -d),
                    KlEstimator::K3 => (d.exp() - d - 1.0, 1.0 - d.exp()),
                    KlEstimator::K1StraightThrough => (-d, -d),
                    _ => (d.exp() - d - 1.0, -d),
                };
                assert!((value - expected).abs() < 1e-6, "{estimator:?}: {value} for {expected}");
                assert!((gradient - slope).abs() < 1e-6, "{estimator:?}: {gradient} for {slope}");
            }
        }
    }

    #[test]
    fn limits_hold_and_leave_a_straight_through_gradient() {
        let device = Device::flex().autodiff();
        let read = |x: Tensor<1>| x.into_data().iter::<f64>().collect::<Vec<_>>();
        for (estimator, expected, slope) in
            [(KlEstimator::K3, 10.0, 0.0), (KlEstimator::K3StraightThrough, 10.0, -30.0)]
        {
            let penalty = KlPenalty {
                estimator,
                difference_limit: Some(Positive::new(20.0)),
                estimate_limit: Some(Positive::new(10.0)),
                ..KlPenalty::k3(Positive::new(1.0))
            };
            let log_probs = vector([-31.0], &device).require_grad();
            let reference = Some(vector([-1.0], &device));
            let ratios = vector([1.0], &device);
            let estimates = penalty.per_token(log_probs.clone(), reference, None, ratios);
            let gradients = estimates.clone().sum().backward();
            assert_eq!(read(estimates), [expected]);
            assert_eq!(read(log_probs.grad(&gradients).unwrap()), [slope]);
        }
    }

    proptest! {
        #[test]
        fn k3_is_never_negative(d in prop_oneof![-60.0..60.0_f32, -1e-3..1e-3_f32]) {
            let (values, gradients) = values_and_gradients(KlEstimator::K3, &[-1.0], &[-1.0 + d]);
            prop_assert!(values[0] >= 0.0 && values[0].is_finite() && gradients[0].is_finite());
            prop_assert!(KlEstimator::K3.estimate(-1.0, -1.0 + f64::from(d)) >= 0.0);
        }

        #[test]
        fn the_host_computes_the_same(policy in -5.0..0.0_f32, reference in -5.0..0.0_f32) {
            for estimator in ESTIMATORS {
                let (values, _) = values_and_gradients(estimator, &[policy], &[reference]);
                let expected = estimator.estimate(policy.into(), reference.into());
                prop_assert!((values[0] - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{:?}", estimator);
            }
        }
    }
}
