//! Regression heads in closed form.

/// A linear head could not be fitted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RidgeError {
    /// There is nothing to fit to.
    #[error("attribute {attribute} has no rating: leave it out")]
    NoRatings {
        /// Its place among the attributes.
        attribute: usize,
    },
    /// The equations have no single solution.
    #[error(
        "attribute {attribute}: the features do not determine the weights: raise `penalty` above {penalty}"
    )]
    Undetermined {
        /// Its place among the attributes.
        attribute: usize,
        /// The penalty.
        penalty: f64,
    },
}

/// The weights that predict ratings from features with the least squared error and penalty, one row an attribute, without
/// an intercept.
///
/// ```text
/// w = argmin ‖X w − y‖² + α‖w‖²        (Xᵀ X + α I) w = Xᵀ y
/// ```
///
/// An attribute is fitted on the texts that have a rating of it. This is the first stage of `ArmoRM`, Wang et al. 2024,
/// [arXiv:2406.12845](https://arxiv.org/abs/2406.12845): features are the frozen model's last hidden states.
///
/// # Errors
/// If an attribute has no ratings at all, or `penalty` is 0 and the features do not determine the weights.
///
/// # Panics
/// If rows differ in length, or there are as many rows of features as of ratings and not.
pub fn ridge_regression(
    features: &[Vec<f64>],
    ratings: &[Vec<Option<f64>>],
    penalty: f64,
) -> Result<Vec<Vec<f64>>, RidgeError> {
    assert_eq!(features.len(), ratings.len(), "every text has features and ratings");
    let width = features.first().map_or(0, Vec::len);
    let attributes = ratings.first().map_or(0, Vec::len);
    assert!(features.iter().all(|row| row.len() == width), "every text has as many features");
    assert!(ratings.iter().all(|row| row.len() == attributes), "every text has a place for each rating");
    let fit = |attribute: usize| {
        let rated = || features.iter().zip(ratings).filter_map(|(x, y)| Some((x, y[attribute]?)));
        if rated().next().is_none() {
            return Err(RidgeError::NoRatings { attribute });
        }
        let (mut matrix, mut right) = (vec![0.0; width * width], vec![0.0; width]);
        for (x, y) in rated() {
            for (i, &a) in x.iter().enumerate() {
                right[i] += a * y;
                for (cell, &b) in matrix[i * width..=i * width + i].iter_mut().zip(x) {
                    *cell += a * b;
                }
            }
        }
        for i in 0..width {
            matrix[i * width + i] += penalty;
        }
        solve(matrix, right).ok_or(RidgeError::Undetermined { attribute, penalty })
    };
    (0..attributes).map(fit).collect()
}

/// Solves a symmetric positive definite system, of which the lower triangle is given, by Cholesky's decomposition.
fn solve(mut matrix: Vec<f64>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let n = right.len();
    let largest = (0..n).map(|i| matrix[i * n + i]).fold(0.0, f64::max);
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| matrix[i * n + k] * matrix[j * n + k]).sum();
            let value = matrix[i * n + j] - sum;
            if i != j {
                matrix[i * n + j] = value / matrix[j * n + j];
            } else if value > largest * 1e-14 {
                matrix[i * n + i] = value.sqrt();
            } else {
                return None;
            }
        }
    }
    for i in 0..n {
        let sum: f64 = (0..i).map(|k| matrix[i * n + k] * right[k]).sum();
        right[i] = (right[i] - sum) / matrix[i * n + i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| matrix[k * n + i] * right[k]).sum();
        right[i] = (right[i] - sum) / matrix[i * n + i];
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_ratings_are_found_again_and_the_penalty_shrinks() {
        let weights = [0.5, -2.0, 1.0];
        let features: Vec<Vec<f64>> = (0..8).map(|i| vec![1.0, f64::from(i), f64::from(i * i % 5)]).collect();
        let rate = |x: &Vec<f64>| x.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>();
        let ratings: Vec<Vec<Option<f64>>> = features
            .iter()
            .enumerate()
            .map(|(i, x)| vec![Some(rate(x)), (i != 3).then(|| -rate(x))])
            .collect();
        let found = ridge_regression(&features, &ratings, 0.0).unwrap();
        for (found, expected) in found.iter().zip([1.0, -1.0]) {
            for (found, weight) in found.iter().zip(weights) {
                assert!((found - expected * weight).abs() < 1e-9);
            }
        }
        // One feature: w = Σxy / (Σx² + α).
        let one =
            ridge_regression(&[vec![2.0], vec![1.0]], &[vec![Some(3.0)], vec![Some(1.0)]], 5.0).unwrap();
        assert!((one[0][0] - 0.7).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_be_fitted_is_named() {
        let features = vec![vec![1.0, 2.0], vec![2.0, 4.0]];
        let ratings = vec![vec![Some(1.0), None], vec![Some(2.0), None]];
        let undetermined = RidgeError::Undetermined { attribute: 0, penalty: 0.0 };
        assert_eq!(ridge_regression(&features, &ratings, 0.0), Err(undetermined));
        assert_eq!(ridge_regression(&features, &ratings, 0.1), Err(RidgeError::NoRatings { attribute: 1 }));
    }
}
