//! What of an objective has no effect or no meaning.

use super::PolicyObjective;
use crate::loss::{Aggregation, ImportanceCorrection, RatioLevel, Surrogate};

/// Parts of an objective do not go together.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectiveError {
    /// A level of ratios that the surrogate does not look at.
    #[error("`ratio` has no part in this `surrogate`, which takes none or makes its own: leave `ratio` out")]
    IgnoredRatio,
    /// GMPO averages inside.
    #[error(
        "`surrogate.kind` = \"geometric_mean\" has one term a sequence: set `aggregation.kind` = \"sequence_mean\""
    )]
    GeometricMeanOfTokens,
    /// One ratio a sequence in an aggregation that would count it once a token, for RLOO.
    #[error("`ratio` = \"sequence_sum\" has one term a sequence: set `aggregation.kind` = \"sequence_mean\"")]
    SequenceSumOfTokens,
    /// A ceiling inside the range that ratios may have.
    #[error("`surrogate.ceiling` = {ceiling} must be greater than 1 + `surrogate.high` = {bound}")]
    CeilingInsideRange {
        /// `surrogate.ceiling`
        ceiling: f64,
        /// `1 + surrogate.high`
        bound: f64,
    },
    /// Nothing is between the bounds.
    #[error("`{key}`: `low` = {low} must be below `high` = {high}")]
    EmptyRange {
        /// Where.
        key: &'static str,
        /// `low`
        low: f64,
        /// `high`
        high: f64,
    },
    /// Limits of an estimate that is none.
    #[error("`kl.difference_limit` has no part in an exact divergence: leave it out")]
    IgnoredDifferenceLimit,
    /// A coefficient that could never be between its bounds.
    #[error("`entropy.adaptive.minimum` = {minimum} is greater than `entropy.adaptive.maximum` = {maximum}")]
    EntropyRange {
        /// `entropy.adaptive.minimum`
        minimum: f64,
        /// `entropy.adaptive.maximum`
        maximum: f64,
    },
}

impl PolicyObjective {
    /// Checks that the parts go together.
    ///
    /// # Errors
    /// If one of them would have no effect, or no meaning, beside the others.
    pub fn check(&self) -> Result<(), ObjectiveError> {
        // A bias of the divergence is corrected with the ratio, whatever the surrogate.
        let reads_ratios =
            self.surrogate.reads_ratios() || self.kl.is_some_and(|penalty| penalty.is_bias_corrected);
        if !reads_ratios && self.ratio != RatioLevel::Token {
            return Err(ObjectiveError::IgnoredRatio);
        }
        let is_sequence_mean = self.aggregation == Aggregation::SequenceMean {};
        if matches!(self.surrogate, Surrogate::GeometricMean { .. }) && !is_sequence_mean {
            return Err(ObjectiveError::GeometricMeanOfTokens);
        }
        if self.ratio == RatioLevel::SequenceSum && !is_sequence_mean {
            return Err(ObjectiveError::SequenceSumOfTokens);
        }
        self.check_numbers()
    }

    fn check_numbers(&self) -> Result<(), ObjectiveError> {
        if let Surrogate::Clipped { high, ceiling: Some(ceiling), .. } = self.surrogate {
            let (ceiling, bound) = (ceiling.get(), 1.0 + high.get());
            if ceiling <= bound {
                return Err(ObjectiveError::CeilingInsideRange { ceiling, bound });
            }
        }
        if let Some((low, high)) =
            self.importance.map(ImportanceCorrection::range).filter(|(low, high)| low >= high)
        {
            return Err(ObjectiveError::EmptyRange { key: "importance", low, high });
        }
        if self.kl.is_some_and(|penalty| penalty.is_exact() && penalty.difference_limit.is_some()) {
            return Err(ObjectiveError::IgnoredDifferenceLimit);
        }
        match self.entropy.and_then(|bonus| bonus.adaptive) {
            Some(adaptive) if adaptive.minimum > adaptive.maximum => Err(ObjectiveError::EntropyRange {
                minimum: adaptive.minimum.get(),
                maximum: adaptive.maximum.get(),
            }),
            _ => Ok(()),
        }
    }
}
