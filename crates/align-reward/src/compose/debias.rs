//! Rewards without what length alone explains.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    function::{BoxedReward, RewardError, RewardFn, score_rollouts},
    rollout::Rollout,
    rules::LengthUnit,
    score::Score,
};

/// `r − slope · (length − mean length)`, with the least-squares slope of the reward on the length.
///
/// The residual is uncorrelated with length over the rollouts that the slope was fitted on and keeps their mean
/// reward. Length may deserve some of the reward, when longer answers are better: what is taken away is the part that
/// length predicts, deserved or not.
///
/// The regression runs over every rollout so far, the batch's own included, and is the reward's state;
/// [`LengthDebiased::fitted`] takes one that was fitted before and leaves it as it is.
pub struct LengthDebiased {
    reward: BoxedReward,
    unit: LengthUnit,
    regression: LengthRegression,
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Running,
    Fixed,
}

/// The least-squares line of a reward over the length.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthRegression {
    count: u64,
    mean_length: f64,
    mean_reward: f64,
    length_squares: f64,
    products: f64,
}

impl LengthRegression {
    /// Takes a rollout in: its length and its reward.
    pub fn push(&mut self, length: f64, reward: f64) {
        self.count += 1;
        let count = self.count as f64;
        let before = length - self.mean_length;
        self.mean_length += before / count;
        self.mean_reward += (reward - self.mean_reward) / count;
        self.length_squares += before * (length - self.mean_length);
        self.products += before * (reward - self.mean_reward);
    }

    /// What one more of length adds; 0 while there are no two lengths.
    #[must_use]
    pub fn slope(&self) -> f64 {
        if self.length_squares > 0.0 { self.products / self.length_squares } else { 0.0 }
    }

    /// The reward without what its length explains.
    #[must_use]
    pub fn residual(&self, length: f64, reward: f64) -> f64 {
        reward - self.slope() * (length - self.mean_length)
    }
}

impl LengthDebiased {
    /// Takes length out of a reward, learning its slope on the way.
    #[must_use]
    pub fn running(reward: BoxedReward, unit: LengthUnit) -> Self {
        Self { reward, unit, regression: LengthRegression::default(), mode: Mode::Running }
    }

    /// Takes length out of a reward by a regression that was fitted elsewhere.
    #[must_use]
    pub fn fitted(reward: BoxedReward, unit: LengthUnit, regression: LengthRegression) -> Self {
        Self { reward, unit, regression, mode: Mode::Fixed }
    }

    /// The regression so far.
    #[must_use]
    pub fn regression(&self) -> &LengthRegression {
        &self.regression
    }
}

impl RewardFn for LengthDebiased {
    fn name(&self) -> &str {
        self.reward.name()
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let scores = score_rollouts(&mut self.reward, rollouts)?.scores;
        let lengths: Vec<Result<f64, String>> =
            rollouts.iter().map(|rollout| Ok(self.unit.length(rollout)? as f64)).collect();
        if self.mode == Mode::Running {
            for (length, score) in lengths.iter().zip(&scores) {
                if let (Ok(length), Some(reward)) = (length, score.value()) {
                    self.regression.push(*length, reward);
                }
            }
        }
        let residual = |(score, length): (Score, Result<f64, String>)| match (score, length) {
            (Score::Value(reward), Ok(length)) => self.regression.residual(length, reward).into(),
            (Score::Value(_), Err(reason)) => Score::unscored(reason),
            (unscored, _) => unscored,
        };
        Ok(scores.into_iter().zip(lengths).map(residual).collect())
    }

    fn state(&self) -> Value {
        serde_json::json!({"regression": self.regression, "reward": self.reward.state()})
    }

    fn restore(&mut self, state: &Value) -> Result<(), RewardError> {
        let wrong = |reason: String| RewardError::State { function: self.reward.name().into(), reason };
        let regression = state.get("regression").ok_or_else(|| wrong("no `regression`".into()))?;
        let regression =
            serde_json::from_value(regression.clone()).map_err(|error| wrong(error.to_string()))?;
        self.reward.restore(state.get("reward").unwrap_or(&Value::Null))?;
        self.regression = regression;
        Ok(())
    }
}

impl fmt::Debug for LengthDebiased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reward, unit, regression, mode } = self;
        let mut debug = f.debug_struct("LengthDebiased");
        debug.field("reward", &reward.name()).field("unit", unit);
        debug.field("regression", regression).field("mode", mode).finish()
    }
}
