//! Closures as rewards.

use std::fmt;

use super::{RewardError, RewardFn};
use crate::{rollout::Rollout, score::Score};

/// A reward that looks at one rollout at a time.
///
/// The closure may return a number, a truth, an `Option<f64>`, a `Result<f64, String>` or a [`Score`].
///
/// ```
/// use align_reward::{function::{each_fn, score_rollouts}, rollout::Rollout, score::Score};
///
/// let mut polite = each_fn("polite", |rollout: &Rollout| rollout.completion.contains("please"));
/// let scored = score_rollouts(&mut polite, &[Rollout::new("p", "Yes, please!")])?;
/// assert_eq!(scored.scores, [Score::Value(1.0)]);
/// # Ok::<(), align_reward::function::RewardError>(())
/// ```
pub fn each_fn<S: Into<Score>, F: FnMut(&Rollout) -> S>(name: impl Into<String>, function: F) -> EachFn<F> {
    EachFn { name: name.into(), function }
}

/// A reward that looks at the whole batch.
pub fn batch_fn<F>(name: impl Into<String>, function: F) -> BatchFn<F>
where
    F: FnMut(&[Rollout]) -> Result<Vec<Score>, RewardError>,
{
    BatchFn { name: name.into(), function }
}

/// See [`each_fn`].
pub struct EachFn<F> {
    name: String,
    function: F,
}

/// See [`batch_fn`].
pub struct BatchFn<F> {
    name: String,
    function: F,
}

impl<S: Into<Score>, F: FnMut(&Rollout) -> S> RewardFn for EachFn<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        Ok(rollouts.iter().map(|rollout| (self.function)(rollout).into()).collect())
    }
}

impl<F: FnMut(&[Rollout]) -> Result<Vec<Score>, RewardError>> RewardFn for BatchFn<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        (self.function)(rollouts)
    }
}

impl<F> fmt::Debug for EachFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EachFn").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for BatchFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchFn").field("name", &self.name).finish_non_exhaustive()
    }
}
