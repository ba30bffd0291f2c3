//! Mean and variance of a stream of numbers.

use serde::{Deserialize, Serialize};

/// Mean and variance of all numbers so far, without keeping them.
///
/// # Source
/// Welford 1962, *Note on a Method for Calculating Corrected Sums of Squares and Products*.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunningMoments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl RunningMoments {
    /// Takes a number in.
    pub fn push(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    /// How many numbers came.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; 0 before the first.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Their sample standard deviation; `None` before the second.
    #[must_use]
    pub fn standard_deviation(&self) -> Option<f64> {
        (self.count > 1).then(|| (self.squares / (self.count - 1) as f64).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn moments_are_those_of_the_whole(values in prop::collection::vec(-1e3f64..1e3, 2..40)) {
            let mut moments = RunningMoments::default();
            for value in &values {
                moments.push(*value);
            }
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            let deviation = (squares / (values.len() - 1) as f64).sqrt();
            prop_assert!((moments.mean() - mean).abs() < 1e-9);
            prop_assert!((moments.standard_deviation().unwrap() - deviation).abs() < 1e-9);
        }
    }

    #[test]
    fn one_number_has_no_deviation() {
        let mut moments = RunningMoments::default();
        assert_eq!(moments.standard_deviation(), None);
        moments.push(3.0);
        assert_eq!((moments.count(), moments.standard_deviation()), (1, None));
    }
}
