//! Losses of rankings: of several responses to one prompt the order is known.

use burn::tensor::{Int, Tensor};

/// The negative log-likelihood of Plackett and Luce's model, by which the best of what is left is drawn with a probability
/// proportional to exp(s), again and again. Two responses make it Bradley and Terry's.
///
/// ```text
/// L = −Σₖ (sₖ − log Σ_{j ≥ k} exp(sⱼ))        k from the best to the last but one
/// ```
///
/// # Source
/// Plackett 1975 and Luce 1959; as eq. 18 of Rafailov et al. 2023, [arXiv:2305.18290](https://arxiv.org/abs/2305.18290),
/// appendix A.3, with scores in the place of implicit rewards.
///
/// # Shapes
/// - `scores`: `[lists, responses]`, each row from best to worst
/// - result: `[lists]`; nothing is reduced
///
/// # Gradient
/// Flows through `scores`.
#[must_use]
pub fn plackett_luce_loss(scores: Tensor<2>) -> Tensor<1> {
    let [lists, responses] = scores.dims();
    let device = scores.device();
    // Row k of each list sees what is left when k responses have been drawn.
    let left = scores.clone().unsqueeze_dim::<3>(1).expand([lists, responses, responses]);
    let place = Tensor::<1, Int>::arange(0..responses as i64, &device);
    let drawn = place
        .clone()
        .unsqueeze_dim::<2>(0)
        .expand([responses, responses])
        .lower(place.unsqueeze_dim::<2>(1).expand([responses, responses]))
        .unsqueeze_dim::<3>(0)
        .expand([lists, responses, responses]);
    let left = left.mask_fill(drawn, f32::NEG_INFINITY);
    let largest = left.clone().max_dim(2).detach();
    let normaliser: Tensor<2> = ((left - largest.clone()).exp().sum_dim(2).log() + largest).squeeze_dim(2);
    (normaliser - scores).sum_dim(1).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use align_model::number::UnitInterval;
    use burn::tensor::Device;

    use super::*;
    use crate::loss::bradley_terry_loss;

    #[test]
    fn three_responses_by_hand() {
        let scores: [f64; 3] = [0.5, 1.25, -0.75];
        let exp = scores.map(f64::exp);
        let likelihood = exp[0] / (exp[0] + exp[1] + exp[2]) * (exp[1] / (exp[1] + exp[2]));
        let loss = plackett_luce_loss(Tensor::from_data([scores.map(|s| s as f32)], &Device::flex()));
        assert!((loss.into_scalar::<f64>() + likelihood.ln()).abs() < 1e-6);
    }

    #[test]
    fn two_responses_are_bradley_and_terry_s_with_the_same_gradient() {
        let device = Device::flex().autodiff();
        let scores =
            Tensor::<2>::from_data([[0.3f32, -1.2], [-90.0, 95.0], [4.0, 4.0]], &device).require_grad();
        let ranked = plackett_luce_loss(scores.clone());
        let column = |i: usize| scores.clone().narrow(1, i, 1).squeeze_dim::<1>(1);
        let pairs = bradley_terry_loss(column(0), column(1), None, UnitInterval::new(0.0));
        let values = |x: Tensor<1>| x.into_data().iter::<f64>().collect::<Vec<_>>();
        for (one, other) in values(ranked.clone()).into_iter().zip(values(pairs.clone())) {
            assert!((one - other).abs() < 1e-4, "{one} {other}");
        }
        let gradient = |loss: Tensor<1>| scores.grad(&loss.sum().backward()).unwrap().into_data();
        let (one, other) = (gradient(ranked), gradient(pairs));
        for (one, other) in one.iter::<f64>().zip(other.iter::<f64>()) {
            assert!((one - other).abs() < 1e-5, "{one} {other}");
        }
    }

    #[test]
    fn no_order_is_more_likely_than_the_scores_own() {
        let loss = |order: [f32; 4]| {
            plackett_luce_loss(Tensor::from_data([order], &Device::flex())).into_scalar::<f64>()
        };
        assert!(loss([3.0, 2.0, 1.0, 0.0]) < loss([2.0, 3.0, 1.0, 0.0]));
        assert!((loss([1.0; 4]) - 24f64.ln()).abs() < 1e-6);
    }
}
