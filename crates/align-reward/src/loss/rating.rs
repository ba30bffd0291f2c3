//! Losses of ratings: a response's quality is a number or a grade.

use burn::tensor::{Int, Tensor, activation::log_sigmoid};

/// Squared distance between scores and ratings.
///
/// ```text
/// L = (s − y)²
/// ```
///
/// # Source
/// Least squares, as the regression heads of Wang et al. 2024 (`HelpSteer2`),
/// [arXiv:2406.08673](https://arxiv.org/abs/2406.08673).
///
/// # Shapes
/// - `scores`, `ratings`, result: `[ratings]`; nothing is reduced
///
/// # Gradient
/// Flows through `scores`: 2(s − y).
#[must_use]
pub fn squared_error_loss(scores: Tensor<1>, ratings: Tensor<1>) -> Tensor<1> {
    (scores - ratings).square()
}

/// Cross-entropy between ratings from 0 to 1 and the scores' logistic function.
///
/// ```text
/// L = −y·log σ(s) − (1 − y)·log σ(−s)
/// ```
///
/// # Source
/// Logistic regression; with ratings between 0 and 1 as Math-Shepherd trains on estimated shares, Wang et al. 2023,
/// [arXiv:2312.08935](https://arxiv.org/abs/2312.08935).
///
/// # Shapes
/// - `scores`, `ratings` (0 to 1), result: `[ratings]`; nothing is reduced
///
/// # Gradient
/// Flows through `scores`: σ(s) − y.
#[must_use]
pub fn binary_cross_entropy_loss(scores: Tensor<1>, ratings: Tensor<1>) -> Tensor<1> {
    let missing = -ratings.clone() + 1.0;
    -log_sigmoid(scores.clone()) * ratings - log_sigmoid(-scores) * missing
}

/// The negative log-likelihood of grades by the cumulative-logit (proportional-odds) model.
///
/// ```text
/// P(y ≤ k) = σ(θₖ − s)        θ₀ < θ₁ < … , grades from 0 to the number of thresholds
/// L = −log(σ(θ_y − s) − σ(θ_{y−1} − s))
///   = −log σ(θ_y − s) − log σ(s − θ_{y−1}) − log(1 − exp(θ_{y−1} − θ_y))
/// ```
///
/// with σ(θ) = 0 below the first threshold and 1 above the last. The second form does not cancel.
///
/// # Source
/// `McCullagh` 1980, *Regression Models for Ordinal Data*; the cumulative-link model of Pedregosa, Bach and Gramfort 2014,
/// [arXiv:1408.2327](https://arxiv.org/abs/1408.2327).
///
/// # Shapes
/// - `scores`, `grades`: `[responses]`; `thresholds`: `[grades - 1]`, increasing
/// - result: `[responses]`; nothing is reduced
///
/// # Gradient
/// Flows through `scores` and `thresholds`.
#[must_use]
pub fn cumulative_logit_loss(scores: Tensor<1>, thresholds: Tensor<1>, grades: Tensor<1, Int>) -> Tensor<1> {
    let last = thresholds.dims()[0];
    let is_lowest = grades.clone().equal_elem(0);
    let is_highest = grades.clone().equal_elem(last as i64);
    let above = thresholds.clone().select(0, grades.clone().clamp_max(last as i64 - 1));
    let below = thresholds.select(0, (grades - 1).clamp_min(0));
    let not_above = log_sigmoid(above.clone() - scores.clone()).mask_fill(is_highest.clone(), 0.0);
    let not_below = log_sigmoid(scores - below.clone()).mask_fill(is_lowest.clone(), 0.0);
    // A gap of 1 where there is no second threshold: the logarithm of 0 would leave NaN in the gradient.
    let ends = is_lowest.bool_or(is_highest);
    let gap = (above - below).mask_fill(ends.clone(), 1.0);
    let both = (-(-gap).exp() + 1.0).log().mask_fill(ends, 0.0);
    -(not_above + not_below + both)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn numbers(values: &[f32]) -> Tensor<1> {
        Tensor::from_data(values, &Device::flex())
    }

    fn read(values: Tensor<1>) -> Vec<f64> {
        values.into_data().iter::<f64>().collect()
    }

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    #[test]
    fn distances_and_cross_entropies_by_hand() {
        assert_eq!(read(squared_error_loss(numbers(&[1.5, -1.0]), numbers(&[1.0, 1.0]))), [0.25, 4.0]);
        let losses =
            read(binary_cross_entropy_loss(numbers(&[0.4, 0.4, -700.0]), numbers(&[1.0, 0.25, 1.0])));
        let expected = [-sigmoid(0.4).ln(), -0.25 * sigmoid(0.4).ln() - 0.75 * sigmoid(-0.4).ln(), 700.0];
        for (loss, expected) in losses.iter().zip(expected) {
            assert!((loss - expected).abs() < 1e-4 * expected, "{loss} {expected}");
        }
    }

    fn ordinal(scores: &[f32], thresholds: &[f32], grades: &[i32]) -> Vec<f64> {
        let grades = Tensor::from_data(grades, &Device::flex());
        read(cumulative_logit_loss(numbers(scores), numbers(thresholds), grades))
    }

    #[test]
    fn the_probabilities_of_all_grades_are_those_of_the_model_and_sum_to_1() {
        let thresholds = [-1.0f32, 0.25, 2.0];
        for score in [-3.0f32, 0.0, 0.7, 5.0] {
            let losses = ordinal(&[score; 4], &thresholds, &[0, 1, 2, 3]);
            let at = |k: usize| sigmoid(f64::from(thresholds[k]) - f64::from(score));
            let expected = [at(0), at(1) - at(0), at(2) - at(1), 1.0 - at(2)];
            for (loss, expected) in losses.iter().zip(expected) {
                assert!(((-loss).exp() - expected).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn two_grades_are_logistic_regression() {
        let (score, threshold) = (0.8f64, 0.3f64);
        let losses = ordinal(&[score as f32; 2], &[threshold as f32], &[0, 1]);
        assert!((losses[0] + sigmoid(threshold - score).ln()).abs() < 1e-6);
        assert!((losses[1] + sigmoid(score - threshold).ln()).abs() < 1e-6);
    }

    #[test]
    fn far_scores_keep_finite_losses_and_gradients() {
        let device = Device::flex().autodiff();
        let scores = Tensor::<1>::from_data([-200.0f32, 200.0, 0.0, 300.0], &device).require_grad();
        let thresholds = Tensor::<1>::from_data([-1.0f32, 1.0], &device).require_grad();
        let grades = Tensor::<1, Int>::from_data([2, 0, 1, 1], &device);
        let loss = cumulative_logit_loss(scores.clone(), thresholds.clone(), grades);
        let gradients = loss.clone().sum().backward();
        let all =
            [read(loss), read(scores.grad(&gradients).unwrap()), read(thresholds.grad(&gradients).unwrap())];
        assert!(all.iter().flatten().all(|x| x.is_finite()), "{all:?}");
        assert!((all[0][0] - 201.0).abs() < 1e-3 && (all[1][0] + 1.0).abs() < 1e-6, "{all:?}");
    }
}
