//! What online preference learning minimises, one term a pair or a completion.

use align_model::{
    logprob::TokenLogProbs,
    number::{NonNegative, Positive, UnitInterval},
};
use align_reward::loss::bradley_terry_loss;
use burn::tensor::Tensor;

/// Direct preference optimisation on pairs that the policy wrote itself.
///
/// ```text
/// m = (log π(y_c|x) − log π(y_r|x)) − (log π_ref(y_c|x) − log π_ref(y_r|x))        sums over tokens
/// L = −log σ(β·m)
/// ```
///
/// # Source
/// Guo et al. 2024, *Direct Language Model Alignment from Online AI Feedback*,
/// [arXiv:2402.04792](https://arxiv.org/abs/2402.04792), Eq. 1.
///
/// # Shapes
/// - `margins`: `m`, `[pairs]`
/// - result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through `margins`.
#[must_use]
pub fn online_dpo_loss(margins: Tensor<1>, beta: Positive) -> Tensor<1> {
    let nothing = margins.zeros_like();
    bradley_terry_loss(margins * beta.get(), nothing, None, UnitInterval::new(0.0))
}

/// Identity preference optimisation on pairs that the policy wrote itself: a squared distance from a margin that is wanted.
///
/// ```text
/// L = (m − 1/(2β))²
/// ```
///
/// Margins are of sums over tokens, as the paper has them and TRL's `OnlineDPOTrainer`, unlike TRL's `DPOTrainer`.
///
/// # Source
/// Calandriello et al. 2024, *Human Alignment of Large Language Models through Online Preference Optimisation*,
/// [arXiv:2403.08635](https://arxiv.org/abs/2403.08635), Eq. 7.
///
/// # Shapes
/// - `margins`: as for [`online_dpo_loss`], `[pairs]`
/// - result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through `margins`.
#[must_use]
pub fn online_ipo_loss(margins: Tensor<1>, beta: Positive) -> Tensor<1> {
    (margins - 0.5 / beta.get()).powi_scalar(2)
}

/// Nash mirror descent by policy gradient: the policy is to be preferred to a mixture of itself and its reference.
///
/// ```text
/// L = β·Σ_t sg(log π_t − log π_ref,t)·log π_t − (P − ½)·Σ_t log π_t
/// ```
///
/// P is the probability that the completion is better than one that the [geometric mixture](super::GeometricMixture) wrote;
/// one half is a control variate. Only the gradient has a meaning; the value is not a distance of anything.
///
/// # Source
/// Munos et al. 2023, *Nash Learning from Human Feedback*, [arXiv:2312.00886](https://arxiv.org/abs/2312.00886), §7, as in
/// TRL's [nash_md_trainer.py](https://github.com/huggingface/trl/blob/f2cd57710/trl/experimental/nash_md/nash_md_trainer.py).
///
/// # Shapes
/// - `log_probs`: of the policy's own completions, `[targets]`
/// - `reference`: of the reference, `[targets]`
/// - `preferences`: P, `[sequences]`
/// - result: `[sequences]`; nothing is reduced
///
/// # Gradient
/// Flows through `log_probs`, where they stand outside `sg`.
#[must_use]
pub fn nash_md_loss(
    log_probs: &TokenLogProbs,
    reference: Tensor<1>,
    preferences: Tensor<1>,
    beta: NonNegative,
) -> Tensor<1> {
    let ratios = log_probs.values.clone().detach() - reference;
    let values = log_probs.values.clone() * ratios;
    let held = TokenLogProbs { values, counts: log_probs.counts.clone() };
    held.summed() * beta.get() - (preferences - 0.5) * log_probs.summed()
}

/// Exploratory preference optimisation: a pair's loss, and a bonus for what the reference would not write.
///
/// ```text
/// L = L_pair + α·Σ_t log π(y_ref,t)
/// ```
///
/// One completion of each pair is the policy's own, the other, `y_ref`, the reference's. The bonus makes the latter less
/// likely, whichever won.
///
/// # Source
/// Xie et al. 2024, *Exploratory Preference Optimization*, [arXiv:2405.21046](https://arxiv.org/abs/2405.21046),
/// algorithm 1.
///
/// # Shapes
/// - `pair_losses`: such as those of [`online_dpo_loss`], `[pairs]`
/// - `reference_completions`: `Σ_t log π(y_ref,t)`, of the policy, `[pairs]`
/// - result: `[pairs]`; nothing is reduced
///
/// # Gradient
/// Flows through both.
#[must_use]
pub fn xpo_loss(pair_losses: Tensor<1>, reference_completions: Tensor<1>, alpha: NonNegative) -> Tensor<1> {
    pair_losses + reference_completions * alpha.get()
}

#[cfg(test)]
mod tests {
    use align_model::logprob::{plain, vector};
    use burn::tensor::Device;
    use proptest::prelude::*;

    use super::*;

    fn leaf(values: &[f32]) -> Tensor<1> {
        vector(values.iter().copied(), &Device::flex().autodiff()).require_grad()
    }

    fn read(x: Tensor<1>) -> Vec<f64> {
        plain(x).into_data().iter::<f64>().collect()
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-5 * b.abs() + 1e-6
    }

    proptest! {
        #[test]
        fn pair_losses_are_those_of_their_formulas(margin in -60.0f32..60.0, beta in 0.01f64..2.0) {
            let beta = Positive::new(beta);
            let x = beta.get() * f64::from(margin);
            let of = |loss: fn(Tensor<1>, Positive) -> Tensor<1>| {
                let margins = leaf(&[margin]);
                let loss = loss(margins.clone(), beta);
                let gradients = loss.clone().sum().backward();
                (read(loss)[0], read(margins.grad(&gradients).unwrap())[0])
            };
            let (value, gradient) = of(online_dpo_loss);
            prop_assert!(close(value, (-x).max(0.0) + (-x.abs()).exp().ln_1p()), "{value}");
            prop_assert!(close(gradient, -beta.get() / (1.0 + x.exp())), "{gradient}");
            let (value, gradient) = of(online_ipo_loss);
            let distance = f64::from(margin) - 0.5 / beta.get();
            prop_assert!(close(value, distance * distance) && close(gradient, 2.0 * distance));
        }

        #[test]
        fn a_policy_gradient_has_its_weights_and_no_others(
            log_probs in prop::collection::vec(-5.0f32..0.0, 5), reference in prop::collection::vec(-5.0f32..0.0, 5),
            preferences in prop::collection::vec(0.0f32..1.0, 2), beta in 0.0f64..1.0,
        ) {
            let (values, counts) = (leaf(&log_probs), vec![3, 2]);
            let given = TokenLogProbs { values: values.clone(), counts };
            let device = Device::flex();
            let reference_values = Tensor::from_inner(vector(reference.iter().copied(), &device));
            let given_preferences = Tensor::from_inner(vector(preferences.iter().copied(), &device));
            let loss = nash_md_loss(&given, reference_values, given_preferences, NonNegative::new(beta));
            let gradients = loss.clone().sum().backward();
            let gradient = read(values.grad(&gradients).unwrap());
            let loss = read(loss);
            for (row, range) in [0..3, 3..5].into_iter().enumerate() {
                let mut expected = 0.0;
                for token in range {
                    let (own, other) = (f64::from(log_probs[token]), f64::from(reference[token]));
                    let weight = beta * (own - other) - (f64::from(preferences[row]) - 0.5);
                    prop_assert!((gradient[token] - weight).abs() < 1e-5);
                    expected += weight * own;
                }
                prop_assert!((loss[row] - expected).abs() < 1e-4, "{} {expected}", loss[row]);
            }
        }
    }

    #[test]
    fn the_bonus_pushes_the_references_completions_down() {
        let (margins, completions) = (leaf(&[0.3, -0.2]), leaf(&[-4.0, -7.0]));
        let pairs = online_dpo_loss(margins, Positive::new(0.1));
        let loss = xpo_loss(pairs.clone(), completions.clone(), NonNegative::new(0.5));
        let (with, without) = (read(loss.clone()), read(pairs));
        assert!(close(with[0], without[0] - 2.0) && close(with[1], without[1] - 3.5));
        let gradients = loss.sum().backward();
        assert_eq!(read(completions.grad(&gradients).unwrap()), [0.5, 0.5]);
    }

    #[test]
    fn certain_pairs_stay_finite() {
        for margin in [-1e4, 1e4] {
            let margins = leaf(&[margin]);
            let loss = online_dpo_loss(margins.clone(), Positive::new(1.0));
            let gradients = loss.clone().sum().backward();
            assert!(read(loss)[0].is_finite() && read(margins.grad(&gradients).unwrap())[0].is_finite());
        }
    }
}
