//! Numbers that carry their range in their type, so that a configuration is checked where it is parsed.

mod proportion;

pub use proportion::Proportion;
use serde::{Deserialize, Serialize};

/// A number lies outside the range that its place allows.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NumberError {
    /// A [`Positive`] was needed.
    #[error("{value} is not a finite number greater than 0")]
    NotPositive {
        /// What was given.
        value: f64,
    },
    /// A [`NonNegative`] was needed.
    #[error("{value} is not a finite number of at least 0")]
    NotNonNegative {
        /// What was given.
        value: f64,
    },
    /// A [`UnitInterval`] was needed.
    #[error("{value} is not a number from 0 to 1")]
    OutsideUnitInterval {
        /// What was given.
        value: f64,
    },
    /// A [`PositiveUnit`] was needed.
    #[error("{value} is not a number greater than 0 and at most 1")]
    OutsidePositiveUnit {
        /// What was given.
        value: f64,
    },
    /// A [`ProperFraction`] was needed.
    #[error("{value} is not a number of at least 0 and below 1")]
    NotProperFraction {
        /// What was given.
        value: f64,
    },
}

/// Declares a number type: its documentation, its name, its error variant and its range.
macro_rules! ranged {
    ($(#[$doc:meta])* $name:ident, $error:ident, $value:ident => $inside:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(f64);

        impl $name {
            /// Takes a number that the program itself wrote down; what a user gave goes through `try_from`.
            ///
            /// # Panics
            /// If the number is outside the range.
            #[must_use]
            #[allow(clippy::manual_range_contains)] // `contains` is no `const fn`
            pub const fn new($value: f64) -> Self {
                assert!($inside, "the number is outside the range of its type");
                Self($value)
            }

            /// The number itself.
            #[must_use]
            pub const fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = NumberError;

            #[allow(clippy::manual_range_contains)] // one expression serves both
            fn try_from($value: f64) -> Result<Self, NumberError> {
                if $inside { Ok(Self($value)) } else { Err(NumberError::$error { value: $value }) }
            }
        }

        impl From<$name> for f64 {
            fn from(number: $name) -> Self {
                number.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

ranged! {
    /// A finite number greater than zero.
    Positive, NotPositive, value => value.is_finite() && 0.0 < value
}

ranged! {
    /// A finite number that is zero or greater.
    NonNegative, NotNonNegative, value => value.is_finite() && 0.0 <= value
}

ranged! {
    /// A number from 0 to 1, both included.
    UnitInterval, OutsideUnitInterval, value => 0.0 <= value && value <= 1.0
}

ranged! {
    /// A number greater than 0 and at most 1.
    PositiveUnit, OutsidePositiveUnit, value => 0.0 < value && value <= 1.0
}

ranged! {
    /// A number of at least 0 and below 1.
    ProperFraction, NotProperFraction, value => 0.0 <= value && value < 1.0
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // nothing is computed
mod tests {
    use super::*;

    /// The numbers that a type takes, of a list that has every border.
    fn accepted<T: TryFrom<f64>>() -> Vec<f64> {
        let tried = [
            f64::NEG_INFINITY,
            -1.0,
            -1e-300,
            0.0,
            1e-300,
            0.5,
            1.0,
            1.000_000_1,
            7.0,
            f64::INFINITY,
            f64::NAN,
        ];
        tried.into_iter().filter(|&value| T::try_from(value).is_ok()).collect()
    }

    #[test]
    fn each_type_takes_exactly_its_range() {
        assert_eq!(accepted::<Positive>(), [1e-300, 0.5, 1.0, 1.000_000_1, 7.0]);
        assert_eq!(accepted::<NonNegative>(), [0.0, 1e-300, 0.5, 1.0, 1.000_000_1, 7.0]);
        assert_eq!(accepted::<UnitInterval>(), [0.0, 1e-300, 0.5, 1.0]);
        assert_eq!(accepted::<PositiveUnit>(), [1e-300, 0.5, 1.0]);
        assert_eq!(accepted::<ProperFraction>(), [0.0, 1e-300, 0.5]);
    }

    #[test]
    fn a_configuration_is_refused_with_the_number_and_the_range() {
        let message = |error: serde_json::Error| error.to_string();
        assert!(
            message(serde_json::from_str::<Positive>("0").unwrap_err()).contains("0 is not a finite number")
        );
        assert!(message(serde_json::from_str::<NonNegative>("-0.5").unwrap_err()).contains("-0.5"));
        assert!(message(serde_json::from_str::<UnitInterval>("1.5").unwrap_err()).contains("from 0 to 1"));
        assert!(message(serde_json::from_str::<PositiveUnit>("0.0").unwrap_err()).contains("greater than 0"));
        assert!(message(serde_json::from_str::<ProperFraction>("1").unwrap_err()).contains("below 1"));
    }

    #[test]
    fn numbers_are_written_as_plain_numbers() {
        assert_eq!(serde_json::to_string(&Positive::new(0.25)).unwrap(), "0.25");
        assert_eq!(serde_json::from_str::<Positive>("3").unwrap().get(), 3.0);
        assert_eq!(f64::from(UnitInterval::new(0.125)), 0.125);
        assert_eq!(NonNegative::new(1.5).to_string(), "1.5");
    }

    #[test]
    #[should_panic(expected = "outside the range")]
    fn a_wrong_literal_panics() {
        let _ = Positive::new(-1.0);
    }
}
