//! Rewards on a common scale.

use std::fmt;

use serde_json::Value;

use super::RunningMoments;
use crate::{
    function::{BoxedReward, RewardError, RewardFn, score_rollouts},
    rollout::Rollout,
    score::Score,
};

/// `(r − mean) / (standard deviation + ε)`, with the mean and the deviation of every score so far, the batch's own
/// included.
///
/// A batch counts as a whole before any of its rollouts is scored, so their order does not matter. As long as there
/// is no deviation (fewer than two scores, or all the same), rewards are only centred. The moments are the reward's
/// state.
pub struct Normalized {
    reward: BoxedReward,
    moments: RunningMoments,
}

/// Keeps a deviation that is nearly nothing from making rewards out of noise, as in TRL.
const EPSILON: f64 = 1e-4;

impl Normalized {
    /// Normalises a reward that was not used yet.
    #[must_use]
    pub fn new(reward: BoxedReward) -> Self {
        Self { reward, moments: RunningMoments::default() }
    }

    /// Mean and deviation so far.
    #[must_use]
    pub fn moments(&self) -> &RunningMoments {
        &self.moments
    }
}

impl RewardFn for Normalized {
    fn name(&self) -> &str {
        self.reward.name()
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let scores = score_rollouts(&mut self.reward, rollouts)?.scores;
        scores.iter().filter_map(Score::value).for_each(|value| self.moments.push(value));
        let mean = self.moments.mean();
        let scale = self
            .moments
            .standard_deviation()
            .filter(|deviation| *deviation > 0.0)
            .map_or(1.0, |d| d + EPSILON);
        Ok(scores.into_iter().map(|score| score.map(|value| (value - mean) / scale)).collect())
    }

    fn state(&self) -> Value {
        serde_json::json!({"moments": self.moments, "reward": self.reward.state()})
    }

    fn restore(&mut self, state: &Value) -> Result<(), RewardError> {
        let wrong = |reason: String| RewardError::State { function: self.reward.name().into(), reason };
        let moments = state.get("moments").ok_or_else(|| wrong("no `moments`".into()))?;
        let moments = serde_json::from_value(moments.clone()).map_err(|error| wrong(error.to_string()))?;
        self.reward.restore(state.get("reward").unwrap_or(&Value::Null))?;
        self.moments = moments;
        Ok(())
    }
}

impl fmt::Debug for Normalized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Normalized");
        debug.field("reward", &self.reward.name()).field("moments", &self.moments).finish()
    }
}
