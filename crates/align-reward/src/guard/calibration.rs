//! Whether probabilities are what they say.

use std::num::NonZeroUsize;

use align_model::number::{ProperFraction, UnitInterval};
use serde::{Deserialize, Serialize};

use super::{Interval, wilson_interval};

/// How predicted probabilities compare with what happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The expected calibration error: the mean distance between prediction and outcome over the bins, weighted by
    /// their sizes.
    pub expected_error: f64,
    /// The largest such distance of any bin.
    pub maximal_error: f64,
    /// The mean squared error of the predictions; a coin has ¼.
    pub brier: f64,
    /// The bins that hold something, in ascending order.
    pub bins: Vec<ReliabilityBin>,
}

/// The predictions between two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Where it begins.
    pub low: f64,
    /// Where it ends; only the last one contains its end.
    pub high: f64,
    /// How many predictions it holds.
    pub count: usize,
    /// Their mean.
    pub predicted: f64,
    /// The part of them that came true.
    pub observed: f64,
    /// Wilson's interval of that part.
    pub interval: Interval,
}

/// Compares predictions with outcomes, in bins of equal width.
///
/// For a reward model, predictions are `σ(r_chosen − r_rejected)` turned so that they are at least one half, and an
/// outcome is whether the model agrees with the label; or, keeping a random order within each pair, `P(a ≻ b)` and
/// whether `a` was chosen. `None` without predictions.
///
/// # Source
/// Guo et al. 2017, *On Calibration of Modern Neural Networks*, [arXiv:1706.04599](https://arxiv.org/abs/1706.04599).
#[must_use]
pub fn calibration(
    predictions: &[(UnitInterval, bool)],
    bins: NonZeroUsize,
    confidence: ProperFraction,
) -> Option<Calibration> {
    if predictions.is_empty() {
        return None;
    }
    let width = 1.0 / bins.get() as f64;
    let place = |p: UnitInterval| ((p.get() / width) as usize).min(bins.get() - 1);
    let mut sums = vec![(0usize, 0.0, 0usize); bins.get()];
    let mut squares = 0.0;
    for &(prediction, outcome) in predictions {
        let (count, sum, hits) = &mut sums[place(prediction)];
        *count += 1;
        *sum += prediction.get();
        *hits += usize::from(outcome);
        squares += (prediction.get() - f64::from(u8::from(outcome))).powi(2);
    }
    let filled = sums.into_iter().enumerate().filter(|(_, (count, ..))| *count > 0);
    let bins: Vec<ReliabilityBin> = filled
        .map(|(index, (count, sum, hits))| ReliabilityBin {
            low: index as f64 * width,
            high: (index + 1) as f64 * width,
            count,
            predicted: sum / count as f64,
            observed: hits as f64 / count as f64,
            interval: wilson_interval(hits, count, confidence),
        })
        .collect();
    let distance = |bin: &ReliabilityBin| (bin.predicted - bin.observed).abs();
    let total = predictions.len() as f64;
    Some(Calibration {
        expected_error: bins.iter().map(|bin| bin.count as f64 / total * distance(bin)).sum(),
        maximal_error: bins.iter().map(distance).fold(0.0, f64::max),
        brier: squares / total,
        bins,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIDENCE: ProperFraction = ProperFraction::new(0.95);

    fn of(predictions: &[(f64, bool)]) -> Calibration {
        let predictions: Vec<_> = predictions.iter().map(|(p, hit)| (UnitInterval::new(*p), *hit)).collect();
        calibration(&predictions, NonZeroUsize::new(10).unwrap(), CONFIDENCE).unwrap()
    }

    #[test]
    fn the_errors_are_those_of_the_definition() {
        let found = of(&[(0.75, true), (0.75, true), (0.72, false), (0.98, true), (1.0, false)]);
        assert_eq!(found.bins.iter().map(|bin| bin.count).collect::<Vec<_>>(), [3, 2]);
        let (low, high) = ((0.74 - 2.0 / 3.0f64).abs(), (0.99 - 0.5f64).abs());
        assert!((found.expected_error - (0.6 * low + 0.4 * high)).abs() < 1e-12);
        assert!((found.maximal_error - high).abs() < 1e-12);
        let squares = 2.0 * 0.0625 + 0.72f64.powi(2) + 0.02f64.powi(2) + 1.0;
        assert!((found.brier - squares / 5.0).abs() < 1e-12);
        assert_eq!(calibration(&[], NonZeroUsize::MIN, CONFIDENCE), None);
    }

    proptest! {
        #[test]
        fn every_prediction_is_in_a_bin(rows in prop::collection::vec((0f64..=1.0, any::<bool>()), 1..50)) {
            let found = of(&rows);
            prop_assert_eq!(found.bins.iter().map(|bin| bin.count).sum::<usize>(), rows.len());
            prop_assert!((0.0..=1.0).contains(&found.brier) && (0.0..=1.0).contains(&found.expected_error));
            for bin in &found.bins {
                prop_assert!(bin.low - 1e-9 <= bin.predicted && bin.predicted <= bin.high + 1e-9);
            }
        }
    }
}
