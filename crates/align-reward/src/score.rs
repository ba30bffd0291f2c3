//! The outcome of scoring: a number, or a reason why there is none.

use serde::{Deserialize, Serialize};

/// What a reward says of a rollout.
///
/// A wrong answer is a low value. A rollout of which nothing can be said is [`Score::Unscored`], and it stays so
/// through every composition, selection and statistic of this crate: no number ever stands in for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// A finite number; higher is better.
    Value(f64),
    /// There is none.
    Unscored {
        /// Why, for the reader of a log.
        reason: String,
    },
}

impl Score {
    /// No score, for this reason.
    pub fn unscored(reason: impl Into<String>) -> Self {
        Self::Unscored { reason: reason.into() }
    }

    /// The number, if there is one.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        match self {
            Self::Value(value) => Some(*value),
            Self::Unscored { .. } => None,
        }
    }

    /// Whether there is no number.
    #[must_use]
    pub fn is_unscored(&self) -> bool {
        matches!(self, Self::Unscored { .. })
    }

    /// The score with another number, if there is one; what is not finite becomes unscored.
    #[must_use]
    pub fn map(self, function: impl FnOnce(f64) -> f64) -> Self {
        match self {
            Self::Value(value) => Self::from(function(value)),
            unscored @ Self::Unscored { .. } => unscored,
        }
    }
}

/// NaN and infinities are no scores.
impl From<f64> for Score {
    fn from(value: f64) -> Self {
        if value.is_finite() { Self::Value(value) } else { Self::unscored(format!("the score is {value}")) }
    }
}

/// Right is 1, wrong is 0.
impl From<bool> for Score {
    fn from(right: bool) -> Self {
        Self::Value(f64::from(u8::from(right)))
    }
}

/// `None` is TRL's way to leave a rollout out.
impl From<Option<f64>> for Score {
    fn from(value: Option<f64>) -> Self {
        value.map_or_else(|| Self::unscored("the reward function gave no score"), Self::from)
    }
}

/// An error is the reason.
impl<T: Into<Score>> From<Result<T, String>> for Score {
    fn from(result: Result<T, String>) -> Self {
        result.map_or_else(Self::unscored, Into::into)
    }
}

/// Mean, spread and number of the scores that there are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ScoreSummary {
    /// How many have a number.
    pub scored: usize,
    /// How many have none.
    pub unscored: usize,
    /// The mean of the numbers; `None` without any.
    pub mean: Option<f64>,
    /// The sample standard deviation of the numbers; `None` with fewer than two.
    pub standard_deviation: Option<f64>,
}

impl ScoreSummary {
    /// Of these scores.
    #[must_use]
    pub fn of(scores: &[Score]) -> Self {
        let values: Vec<f64> = scores.iter().filter_map(Score::value).collect();
        let count = values.len();
        let mean = (count > 0).then(|| values.iter().sum::<f64>() / count as f64);
        let standard_deviation = mean.filter(|_| count > 1).map(|mean| {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            (squares / (count - 1) as f64).sqrt()
        });
        Self { scored: count, unscored: scores.len() - count, mean, standard_deviation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_unscored() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Score::from(value), Score::unscored(format!("the score is {value}")));
        }
        assert!(Score::from(None::<f64>).is_unscored());
        assert!(Score::Value(1.0).map(|value| value / 0.0).is_unscored());
        assert_eq!(Score::from(Err::<f64, _>("no column".to_string())), Score::unscored("no column"));
    }

    #[test]
    fn summaries_leave_the_unscored_out() {
        let scores = [Score::Value(1.0), Score::unscored("x"), Score::Value(4.0), Score::from(true)];
        let summary = ScoreSummary::of(&scores);
        assert_eq!((summary.scored, summary.unscored, summary.mean), (3, 1, Some(2.0)));
        assert!((summary.standard_deviation.unwrap() - 3f64.sqrt()).abs() < 1e-12);
        let none = ScoreSummary::of(&[Score::unscored("x")]);
        assert_eq!((none.mean, none.standard_deviation), (None, None));
    }
}
