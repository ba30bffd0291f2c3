//! Fractions that are bounded below one half, or away from both ends.

use serde::{Deserialize, Serialize};

/// A fraction lies outside the range that its place allows.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RateError {
    /// A [`FlipRate`] was needed.
    #[error("{value} is not a number of at least 0 and below 0.5")]
    NotFlipRate {
        /// What was given.
        value: f64,
    },
    /// An [`InnerFraction`] was needed.
    #[error("{value} is not a number greater than 0 and below 1")]
    NotInnerFraction {
        /// What was given.
        value: f64,
    },
}

/// A share of labels that are the wrong way round: at least 0 and below one half, where they say nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct FlipRate(f64);

impl FlipRate {
    /// The number itself.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for FlipRate {
    type Error = RateError;

    fn try_from(value: f64) -> Result<Self, RateError> {
        if (0.0..0.5).contains(&value) { Ok(Self(value)) } else { Err(RateError::NotFlipRate { value }) }
    }
}

impl From<FlipRate> for f64 {
    fn from(rate: FlipRate) -> Self {
        rate.0
    }
}

/// A fraction that is neither 0 nor 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct InnerFraction(f64);

impl InnerFraction {
    /// TRL's advice where a loss needs some smoothing.
    pub(crate) const SMALL: Self = Self(1e-3);

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for InnerFraction {
    type Error = RateError;

    fn try_from(value: f64) -> Result<Self, RateError> {
        if 0.0 < value && value < 1.0 { Ok(Self(value)) } else { Err(RateError::NotInnerFraction { value }) }
    }
}

impl From<InnerFraction> for f64 {
    fn from(fraction: InnerFraction) -> Self {
        fraction.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_takes_exactly_its_range() {
        let tried = [f64::NEG_INFINITY, -0.1, 0.0, 1e-9, 0.49, 0.5, 0.99, 1.0, f64::NAN];
        let rates: Vec<f64> = tried.into_iter().filter(|&v| FlipRate::try_from(v).is_ok()).collect();
        assert_eq!(rates, [0.0, 1e-9, 0.49]);
        let inner: Vec<f64> = tried.into_iter().filter(|&v| InnerFraction::try_from(v).is_ok()).collect();
        assert_eq!(inner, [1e-9, 0.49, 0.5, 0.99]);
        let message = serde_json::from_str::<FlipRate>("0.5").unwrap_err().to_string();
        assert!(message.contains("0.5 is not a number of at least 0 and below 0.5"), "{message}");
        let message = serde_json::from_str::<InnerFraction>("0").unwrap_err().to_string();
        assert!(message.contains("greater than 0 and below 1"), "{message}");
    }
}
