//! Several reward models as one: their disagreement says where none of them knows.

use align_model::number::NonNegative;
use serde::{Deserialize, Serialize};

/// What several models' scores of the same text become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EnsembleScore {
    /// Their mean.
    #[default]
    Mean,
    /// The lowest: worst-case optimisation.
    Minimum,
    /// The mean less so many standard deviations: a lower confidence bound.
    LowerBound {
        /// How many.
        deviations: NonNegative,
    },
    /// The mean less so many variances: uncertainty-weighted optimisation.
    VarianceWeighted {
        /// How many.
        weight: NonNegative,
    },
}

/// One score for each text from those of several models, and the standard deviation among the models.
///
/// `scores`: one row a model, one entry a text. Deviation and variance are those of the members themselves (divided by
/// their number), as in Coste et al. 2023, [arXiv:2310.02743](https://arxiv.org/abs/2310.02743), whose three combinations
/// are [`Mean`](EnsembleScore::Mean), [`Minimum`](EnsembleScore::Minimum) and
/// [`VarianceWeighted`](EnsembleScore::VarianceWeighted). A score that is not finite makes its text's result NaN: no
/// member is left out in silence.
///
/// # Panics
/// If there is no model, or the rows differ in length.
#[must_use]
pub fn combine_scores(scores: &[Vec<f64>], how: EnsembleScore) -> Vec<(f64, f64)> {
    assert!(!scores.is_empty(), "an ensemble has at least one member");
    assert!(scores.iter().all(|row| row.len() == scores[0].len()), "every member scores the same texts");
    let members = scores.len() as f64;
    let one = |text: usize| {
        let of_text = || scores.iter().map(|row| row[text]);
        if !of_text().all(f64::is_finite) {
            return (f64::NAN, f64::NAN);
        }
        let mean = of_text().sum::<f64>() / members;
        let variance = of_text().map(|score| (score - mean).powi(2)).sum::<f64>() / members;
        let deviation = variance.sqrt();
        let score = match how {
            EnsembleScore::Mean => mean,
            EnsembleScore::Minimum => of_text().fold(f64::INFINITY, f64::min),
            EnsembleScore::LowerBound { deviations } => mean - deviations.get() * deviation,
            EnsembleScore::VarianceWeighted { weight } => mean - weight.get() * variance,
        };
        (score, deviation)
    };
    (0..scores[0].len()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_by_hand() {
        let scores = [vec![1.0, 5.0], vec![3.0, 5.0]];
        let with = |how| combine_scores(&scores, how);
        assert_eq!(with(EnsembleScore::Mean), [(2.0, 1.0), (5.0, 0.0)]);
        assert_eq!(with(EnsembleScore::Minimum), [(1.0, 1.0), (5.0, 0.0)]);
        let deviations = NonNegative::new(0.5);
        assert_eq!(with(EnsembleScore::LowerBound { deviations }), [(1.5, 1.0), (5.0, 0.0)]);
        let weight = NonNegative::new(2.0);
        assert_eq!(with(EnsembleScore::VarianceWeighted { weight }), [(0.0, 1.0), (5.0, 0.0)]);
    }

    #[test]
    fn a_member_that_fails_is_not_left_out() {
        let combined = combine_scores(&[vec![1.0, 2.0], vec![f64::NAN, 4.0]], EnsembleScore::Minimum);
        assert!(combined[0].0.is_nan());
        assert_eq!(combined[1], (2.0, 1.0));
    }
}
