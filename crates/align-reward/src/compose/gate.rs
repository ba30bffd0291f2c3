//! Rewards that count only under a condition.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{restore_all, states};
use crate::{
    function::{BoxedReward, RewardError, RewardFn, score_rollouts},
    rollout::Rollout,
    score::Score,
};

/// A reward for the rollouts whose condition holds, and something else for the others.
///
/// The reward is asked only about those: a judge behind a format check costs nothing for malformed completions. Where
/// the condition is unscored, so is the whole.
pub struct Gate {
    /// The condition, then the reward.
    parts: [BoxedReward; 2],
    threshold: f64,
    otherwise: Otherwise,
}

/// What a rollout gets whose condition does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// This number.
    Value(f64),
    /// No score.
    Unscored,
}

impl Gate {
    /// `reward` where `condition` is at least `threshold`.
    #[must_use]
    pub fn new(condition: BoxedReward, threshold: f64, reward: BoxedReward, otherwise: Otherwise) -> Self {
        Self { parts: [condition, reward], threshold, otherwise }
    }
}

impl RewardFn for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let [condition, reward] = &mut self.parts;
        let conditions = score_rollouts(condition, rollouts)?.scores;
        let holds = |score: &Score| score.value().is_some_and(|value| value >= self.threshold);
        let pairs = rollouts.iter().zip(&conditions);
        let asked: Vec<Rollout> =
            pairs.filter(|(_, score)| holds(score)).map(|(rollout, _)| rollout.clone()).collect();
        let mut rewards = score_rollouts(reward, &asked)?.scores.into_iter();
        let choose = |score: Score| {
            if holds(&score) {
                return rewards.next().unwrap_or_else(|| Score::unscored("the reward gave no score"));
            }
            match (score, self.otherwise) {
                (Score::Unscored { reason }, _) => Score::unscored(format!("condition: {reason}")),
                (_, Otherwise::Value(value)) => value.into(),
                (_, Otherwise::Unscored) => Score::unscored("the condition does not hold"),
            }
        };
        Ok(conditions.into_iter().map(choose).collect())
    }

    fn state(&self) -> Value {
        states(self.parts.iter())
    }

    fn restore(&mut self, state: &Value) -> Result<(), RewardError> {
        restore_all("gate", self.parts.iter_mut(), state)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [condition, reward] = &self.parts;
        let mut debug = f.debug_struct("Gate");
        debug.field("condition", &condition.name()).field("threshold", &self.threshold);
        debug.field("reward", &reward.name()).field("otherwise", &self.otherwise).finish()
    }
}
