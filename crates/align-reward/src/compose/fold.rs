//! Products and minima.

use std::fmt;

use serde_json::Value;

use super::{restore_all, states};
use crate::{
    function::{BoxedReward, RewardError, RewardFn, score_rollouts},
    rollout::Rollout,
    score::Score,
};

/// `Π rᵢ`: with parts of 0 and 1, all must hold.
pub struct Product {
    parts: Vec<BoxedReward>,
}

/// The least of the parts: for an ensemble of reward models, what its most pessimistic member says.
///
/// # Source
/// Coste et al. 2023, *Reward Model Ensembles Help Mitigate Overoptimization* (worst-case optimisation),
/// [arXiv:2310.02743](https://arxiv.org/abs/2310.02743).
pub struct Minimum {
    parts: Vec<BoxedReward>,
}

impl Product {
    /// The product of these parts.
    #[must_use]
    pub fn new(parts: Vec<BoxedReward>) -> Self {
        Self { parts }
    }
}

impl Minimum {
    /// The minimum of these parts.
    #[must_use]
    pub fn new(parts: Vec<BoxedReward>) -> Self {
        Self { parts }
    }
}

/// Combines what the parts say, rollout by rollout; unscored where one of them is.
fn fold(
    parts: &mut [BoxedReward],
    rollouts: &[Rollout],
    combine: impl Fn(f64, f64) -> f64,
) -> Result<Vec<Score>, RewardError> {
    let mut total: Option<Vec<Score>> = None;
    for part in parts {
        let mut scores = score_rollouts(part, rollouts)?.scores;
        for score in &mut scores {
            if let Score::Unscored { reason } = score {
                *reason = format!("{}: {reason}", part.name());
            }
        }
        total = Some(match total {
            None => scores,
            Some(total) => {
                let pairs = total.into_iter().zip(scores);
                pairs.map(|(left, right)| fold_one(left, right, &combine)).collect()
            }
        });
    }
    Ok(total.unwrap_or_else(|| vec![Score::unscored("there is no reward"); rollouts.len()]))
}

fn fold_one(left: Score, right: Score, combine: impl Fn(f64, f64) -> f64) -> Score {
    match (left, right) {
        (Score::Value(left), Score::Value(right)) => combine(left, right).into(),
        (unscored @ Score::Unscored { .. }, _) | (_, unscored) => unscored,
    }
}

impl RewardFn for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        fold(&mut self.parts, rollouts, |left, right| left * right)
    }

    fn state(&self) -> Value {
        states(self.parts.iter())
    }

    fn restore(&mut self, state: &Value) -> Result<(), RewardError> {
        restore_all("product", self.parts.iter_mut(), state)
    }
}

impl RewardFn for Minimum {
    fn name(&self) -> &'static str {
        "minimum"
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        fold(&mut self.parts, rollouts, f64::min)
    }

    fn state(&self) -> Value {
        states(self.parts.iter())
    }

    fn restore(&mut self, state: &Value) -> Result<(), RewardError> {
        restore_all("minimum", self.parts.iter_mut(), state)
    }
}

impl fmt::Debug for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.iter().map(RewardFn::name)).finish()
    }
}

impl fmt::Debug for Minimum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.iter().map(RewardFn::name)).finish()
    }
}
