//! One reward, its numbers changed by a fixed rule.

use std::fmt;

use serde_json::Value;

use crate::{
    function::{BoxedReward, RewardError, RewardFn, score_rollouts},
    rollout::Rollout,
    score::Score,
};

/// A reward that is kept between two numbers.
pub struct Clipped {
    reward: BoxedReward,
    low: f64,
    high: f64,
}

/// `scale · r + shift`.
pub struct Affine {
    reward: BoxedReward,
    scale: f64,
    shift: f64,
}

impl Clipped {
    /// Keeps a reward between `low` and `high`.
    ///
    /// # Panics
    /// If `low` is above `high`, or one of them is NaN.
    #[must_use]
    pub fn new(reward: BoxedReward, low: f64, high: f64) -> Self {
        assert!(low <= high, "the lower bound {low} must not be above the upper one, {high}");
        Self { reward, low, high }
    }
}

impl Affine {
    /// Scales a reward, then shifts it.
    #[must_use]
    pub fn new(reward: BoxedReward, scale: f64, shift: f64) -> Self {
        Self { reward, scale, shift }
    }
}

/// The scores of a reward, each number changed.
fn mapped(
    reward: &mut BoxedReward,
    rollouts: &[Rollout],
    change: impl Fn(f64) -> f64,
) -> Result<Vec<Score>, RewardError> {
    let scores = score_rollouts(reward, rollouts)?.scores;
    Ok(scores.into_iter().map(|score| score.map(&change)).collect())
}

impl RewardFn for Clipped {
    fn name(&self) -> &str {
        self.reward.name()
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let (low, high) = (self.low, self.high);
        mapped(&mut self.reward, rollouts, |value| value.clamp(low, high))
    }

    fn state(&self) -> Value {
        self.reward.state()
    }

    fn restore(&mut self, state: &Value) -> Result<(), RewardError> {
        self.reward.restore(state)
    }
}

impl RewardFn for Affine {
    fn name(&self) -> &str {
        self.reward.name()
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let (scale, shift) = (self.scale, self.shift);
        mapped(&mut self.reward, rollouts, |value| scale * value + shift)
    }

    fn state(&self) -> Value {
        self.reward.state()
    }

    fn restore(&mut self, state: &Value) -> Result<(), RewardError> {
        self.reward.restore(state)
    }
}

impl fmt::Debug for Clipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reward, low, high } = self;
        write!(f, "Clipped({}, {low}..={high})", reward.name())
    }
}

impl fmt::Debug for Affine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reward, scale, shift } = self;
        write!(f, "Affine({scale} * {} + {shift})", reward.name())
    }
}
