//! Mean 0 and variance 1.

use serde::{Deserialize, Serialize};

/// What is added to a variance, or what it is at least, before its root divides.
const VARIANCE_FLOOR: f64 = 1e-8;

/// The mean of some numbers and how far they spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments {
    /// How many there are.
    pub count: usize,
    /// Their mean; 0 of none.
    pub mean: f64,
    /// Their sum of squared distances from the mean.
    pub squares: f64,
}

impl Moments {
    /// The moments of some numbers. Equal numbers have squares of exactly 0.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64, IntoIter: Clone>) -> Self {
        let values = values.into_iter();
        let (mut count, mut sum, mut least, mut greatest) = (0, 0.0, f64::INFINITY, f64::NEG_INFINITY);
        for value in values.clone() {
            count += 1;
            sum += value;
            least = least.min(value);
            greatest = greatest.max(value);
        }
        if count == 0 || least >= greatest {
            return Self { count, mean: if count == 0 { 0.0 } else { least }, squares: 0.0 };
        }
        let mean = sum / count as f64;
        let squares = values.map(|value| (value - mean) * (value - mean)).sum();
        Self { count, mean, squares }
    }

    /// The variance with Bessel's correction: the squares over one less than the count; 0 of fewer than two.
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.count > 1 { self.squares / (self.count - 1) as f64 } else { 0.0 }
    }

    /// The squares over the count; 0 of none.
    #[must_use]
    pub fn biased_variance(&self) -> f64 {
        self.squares / self.count.max(1) as f64
    }

    /// The root of the [variance](Self::variance).
    #[must_use]
    pub fn deviation(&self) -> f64 {
        self.variance().sqrt()
    }
}

/// How numbers are whitened. Libraries differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whitening {
    /// `(a − mean)/√(variance + 10⁻⁸)`, the variance with Bessel's correction: TRL, verl.
    #[default]
    Corrected,
    /// `(a − mean)/√max(variance, 10⁻⁸)`, the variance without it: OpenRLHF.
    Biased,
    /// `a − mean`
    Centered,
}

impl Whitening {
    /// What numbers with these moments are multiplied by once their mean is taken off.
    #[must_use]
    pub fn scale(self, moments: &Moments) -> f64 {
        match self {
            Self::Corrected => (moments.variance() + VARIANCE_FLOOR).sqrt().recip(),
            Self::Biased => moments.biased_variance().max(VARIANCE_FLOOR).sqrt().recip(),
            Self::Centered => 1.0,
        }
    }
}

/// Numbers with mean 0 and variance 1; all of them 0 if they are equal.
///
/// # Source
/// As in TRL's
/// [ppo_trainer.py](https://github.com/huggingface/trl/blob/f2cd57710/trl/experimental/ppo/ppo_trainer.py), `masked_whiten`.
#[must_use]
pub fn whiten(values: &[f64], whitening: Whitening) -> Vec<f64> {
    let moments = Moments::of(values.iter().copied());
    let scale = whitening.scale(&moments);
    values.iter().map(|value| (value - moments.mean) * scale).collect()
}

/// Numbers with variance 1 and the mean that they had: how TRL's PPO whitens rewards.
#[must_use]
pub fn whiten_around_mean(values: &[f64], whitening: Whitening) -> Vec<f64> {
    let mean = Moments::of(values.iter().copied()).mean;
    whiten(values, whitening).into_iter().map(|value| value + mean).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_conventions_differ_as_they_say() {
        // statistics.variance([1, 2, 4]) = 7/3, pvariance = 14/9
        let values = [1.0, 2.0, 4.0];
        let first = |whitening| whiten(&values, whitening)[0];
        assert!((first(Whitening::Corrected) - (-4.0 / 3.0) / (7.0_f64 / 3.0 + 1e-8).sqrt()).abs() < 1e-15);
        assert!((first(Whitening::Biased) - (-4.0 / 3.0) / (14.0_f64 / 9.0).sqrt()).abs() < 1e-15);
        assert!((first(Whitening::Centered) + 4.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn equal_numbers_become_zero() {
        for whitening in [Whitening::Corrected, Whitening::Biased, Whitening::Centered] {
            assert_eq!(whiten(&[0.1; 3], whitening), [0.0; 3]);
            assert_eq!(whiten(&[7.0], whitening), [0.0]);
            assert!(whiten(&[], whitening).is_empty());
        }
    }

    proptest! {
        #[test]
        fn white_numbers_have_mean_zero_and_variance_one(values in prop::collection::vec(-50.0..50.0_f64, 2..40)) {
            let moments = Moments::of(whiten(&values, Whitening::Corrected));
            prop_assert!(moments.mean.abs() < 1e-9);
            let spread = Moments::of(values.iter().copied()).variance();
            prop_assume!(spread > 1e-3);
            prop_assert!((moments.variance() - 1.0).abs() < 1e-4);
        }
    }
}
