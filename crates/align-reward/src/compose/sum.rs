//! Weighted sums.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{restore_all, states};
use crate::{
    function::{BoxedReward, RewardError, RewardFn, score_rollouts},
    rollout::Rollout,
    score::Score,
};

/// `Σ wᵢ rᵢ`.
///
/// [`WeightedSum::parts`] gives the addends, for logs and for methods that normalise each before they are added.
///
/// ```
/// use align_reward::{
///     compose::{MissingPart, WeightedPart, WeightedSum},
///     function::{each_fn, score_rollouts},
///     rollout::Rollout,
/// };
///
/// let short = each_fn("short", |rollout: &Rollout| -(rollout.completion.len() as f64));
/// let polite = each_fn("polite", |rollout: &Rollout| rollout.completion.contains("please"));
/// let parts = vec![WeightedPart::new(0.1, short), WeightedPart::new(1.0, polite)];
/// let mut sum = WeightedSum::new("reward", parts, MissingPart::Unscored);
/// let scored = score_rollouts(&mut sum, &[Rollout::new("p", "please!")])?;
/// assert!((scored.scores[0].value().unwrap() - 0.3).abs() < 1e-12);
/// # Ok::<(), align_reward::function::RewardError>(())
/// ```
#[derive(Debug)]
pub struct WeightedSum {
    name: String,
    parts: Vec<WeightedPart>,
    missing: MissingPart,
}

/// A reward and what it counts.
pub struct WeightedPart {
    /// The factor; negative for a penalty.
    pub weight: f64,
    /// The reward.
    pub reward: BoxedReward,
}

/// What becomes of a rollout that some of the parts cannot score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingPart {
    /// It is unscored.
    #[default]
    Unscored,
    /// It gets the sum of the others, as in TRL, and is unscored only if all parts are. Such sums are comparable
    /// among rollouts that lack the same part, such as those of one prompt in a mixture of tasks.
    LeaveOut,
}

/// What one part says.
#[derive(Debug, Clone, PartialEq)]
pub struct PartScores {
    /// The part's name.
    pub name: String,
    /// Its factor, which the scores do not contain.
    pub weight: f64,
    /// One per rollout.
    pub scores: Vec<Score>,
    /// How many were NaN or infinite and are now unscored.
    pub not_finite: usize,
}

impl WeightedPart {
    /// A reward with its weight.
    pub fn new(weight: f64, reward: impl RewardFn + Send + 'static) -> Self {
        Self { weight, reward: Box::new(reward) }
    }
}

impl WeightedSum {
    /// The sum of these parts.
    pub fn new(name: impl Into<String>, parts: Vec<WeightedPart>, missing: MissingPart) -> Self {
        Self { name: name.into(), parts, missing }
    }

    /// What each part says, in order.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn parts(&mut self, rollouts: &[Rollout]) -> Result<Vec<PartScores>, RewardError> {
        let score = |part: &mut WeightedPart| {
            let scored = score_rollouts(&mut part.reward, rollouts)?;
            Ok(PartScores {
                name: part.reward.name().into(),
                weight: part.weight,
                scores: scored.scores,
                not_finite: scored.not_finite,
            })
        };
        self.parts.iter_mut().map(score).collect()
    }

    /// Adds what the parts said.
    #[must_use]
    pub fn combine(&self, rollouts: usize, parts: &[PartScores]) -> Vec<Score> {
        (0..rollouts).map(|index| combine_one(self.missing, index, parts)).collect()
    }
}

fn combine_one(missing: MissingPart, index: usize, parts: &[PartScores]) -> Score {
    let (mut sum, mut scored) = (0.0, 0);
    let mut reason = None;
    for part in parts {
        match &part.scores[index] {
            Score::Value(value) => {
                sum += part.weight * value;
                scored += 1;
            }
            Score::Unscored { reason: why } => {
                reason.get_or_insert_with(|| format!("{}: {why}", part.name));
            }
        }
    }
    match (reason, missing) {
        (Some(reason), MissingPart::Unscored) => Score::unscored(reason),
        (Some(reason), MissingPart::LeaveOut) if scored == 0 => Score::unscored(reason),
        _ => Score::from(sum),
    }
}

impl RewardFn for WeightedSum {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let parts = self.parts(rollouts)?;
        Ok(self.combine(rollouts.len(), &parts))
    }

    fn state(&self) -> Value {
        states(self.parts.iter().map(|part| &part.reward))
    }

    fn restore(&mut self, state: &Value) -> Result<(), RewardError> {
        restore_all(&self.name, self.parts.iter_mut().map(|part| &mut part.reward), state)
    }
}

impl fmt::Debug for WeightedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("WeightedPart");
        debug.field("weight", &self.weight).field("reward", &self.reward.name()).finish()
    }
}
