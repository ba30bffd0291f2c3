//! Several rewards of the same rollouts, and what they come to.

mod rollouts;

use align_model::checkpoint::{State, StateError};
use align_reward::{
    compose::{MissingPart, PartScores, WeightedPart, WeightedSum},
    function::{RewardError, RewardFn},
    rollout::Rollout,
    score::Score,
};
use serde::de::Error as _;
use serde_json::Value;

pub use rollouts::ScoredRollouts;

use crate::{
    action_reward::{ActionRewardFn, reward_actions},
    constraint::Constraint,
    rollout::Sampled,
};

/// What a policy is trained on: one reward, or a weighted sum of several.
///
/// The addends stay apart, for logs and for estimators that normalise each before they are added.
#[derive(Debug)]
pub struct Rewards {
    sum: WeightedSum,
    constraints: Vec<Constraint>,
    of_actions: Option<Box<dyn ActionRewardFn + Send>>,
}

/// What rewards say of some rollouts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RewardScores {
    /// What each reward says, in order, and then what each cost does.
    pub parts: Vec<PartScores>,
    /// The weighted sum for each rollout.
    pub totals: Vec<Score>,
    /// The price of each cost.
    pub prices: Vec<f64>,
}

impl Rewards {
    /// One reward.
    pub fn one(reward: impl RewardFn + Send + 'static) -> Self {
        Self::sum(vec![WeightedPart::new(1.0, reward)], MissingPart::Unscored)
    }

    /// `Σ wᵢ rᵢ`.
    #[must_use]
    pub fn sum(parts: Vec<WeightedPart>, missing: MissingPart) -> Self {
        WeightedSum::new("reward", parts, missing).into()
    }

    /// The same under constraints: costs whose means are to stay below their limits.
    ///
    /// ```text
    /// r' = (Σ wᵢ rᵢ − Σ λⱼ cⱼ) / (1 + Σ λⱼ)
    /// ```
    ///
    /// where each price `λ` rises after a step whose mean cost was above the limit and falls after one where it was below. What
    /// has no cost has no reward.
    #[must_use]
    pub fn under(mut self, constraints: Vec<Constraint>) -> Self {
        self.constraints = constraints;
        self
    }

    /// The same with rewards of single actions, such as those of a process reward model, in addition to those of whole
    /// completions.
    #[must_use]
    pub fn with_action_rewards(mut self, rewards: impl ActionRewardFn + Send + 'static) -> Self {
        self.of_actions = Some(Box::new(rewards));
        self
    }

    /// Scores rollouts, which are whole groups. Nothing that a reward does ends in a panic.
    ///
    /// # Errors
    /// If a reward fails, panics, or gives too few scores or too many.
    pub fn score(&mut self, rollouts: &[Rollout]) -> Result<RewardScores, RewardError> {
        let mut parts = self.sum.parts(rollouts)?;
        let mut totals = self.sum.combine(rollouts.len(), &parts);
        let prices: Vec<f64> = self.constraints.iter().map(Constraint::price).collect();
        let scale = 1.0 + prices.iter().sum::<f64>();
        if !prices.is_empty() {
            for part in &mut parts {
                part.weight /= scale;
            }
            for total in &mut totals {
                *total = scaled(total, scale);
            }
        }
        for (constraint, price) in self.constraints.iter_mut().zip(&prices) {
            let cost = PartScores { weight: -price / scale, ..constraint.score(rollouts)? };
            for (total, of_cost) in totals.iter_mut().zip(&cost.scores) {
                charge(total, of_cost, &cost);
            }
            parts.push(cost);
        }
        Ok(RewardScores { parts, totals, prices })
    }

    /// Rewards of each sample's actions; nothing at all without any.
    ///
    /// # Errors
    /// If they fail, panic, are too few, or are not numbers of actions that there are.
    pub(crate) fn score_actions(&mut self, samples: &[Sampled]) -> Result<Vec<Vec<f64>>, RewardError> {
        self.of_actions.as_mut().map_or(Ok(Vec::new()), |rewards| reward_actions(rewards.as_mut(), samples))
    }

    /// Raises and lowers the prices of costs after a step that learnt from these scores.
    pub(crate) fn follow(&mut self, scores: &RewardScores) {
        for (constraint, part) in self.constraints.iter_mut().zip(scores.costs()) {
            constraint.follow(&part.scores);
        }
    }

    pub(crate) fn save(&self, state: &mut State) -> Result<(), StateError> {
        let constraints: Vec<Value> = self.constraints.iter().map(Constraint::state).collect();
        state.insert("rewards", &self.sum.state())?;
        state.insert("constraints", &constraints)?;
        state.insert("action_rewards", &self.of_actions.as_ref().map(|rewards| rewards.state()))
    }

    pub(crate) fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        let saved: Value = state.take("rewards")?;
        self.sum.restore(&saved).map_err(|error| broken("rewards", &error))?;
        let constraints: Vec<Value> = state.take("constraints")?;
        if constraints.len() != self.constraints.len() {
            let (found, now) = (constraints.len(), self.constraints.len());
            return Err(broken(
                "constraints",
                &format!("there were {found} of them, and now there are {now}"),
            ));
        }
        for (constraint, saved) in self.constraints.iter_mut().zip(&constraints) {
            constraint.restore(saved).map_err(|error| broken("constraints", &error))?;
        }
        let saved: Option<Value> = state.take("action_rewards")?;
        match (&mut self.of_actions, saved) {
            (None, None) => Ok(()),
            (Some(rewards), Some(saved)) => {
                rewards.restore(&saved).map_err(|error| broken("action_rewards", &error))
            }
            (None, Some(_)) => Err(broken("action_rewards", &"there were some, and now there are none")),
            (Some(_), None) => Err(broken("action_rewards", &"there were none, and now there are some")),
        }
    }
}

impl From<WeightedSum> for Rewards {
    fn from(sum: WeightedSum) -> Self {
        Self { sum, constraints: Vec::new(), of_actions: None }
    }
}

fn broken(name: &str, reason: &impl std::fmt::Display) -> StateError {
    StateError::Value { name: name.into(), source: serde_json::Error::custom(reason) }
}

fn scaled(score: &Score, scale: f64) -> Score {
    match score {
        Score::Value(value) => Score::Value(value / scale),
        unscored @ Score::Unscored { .. } => unscored.clone(),
    }
}

/// Takes a cost off a reward.
fn charge(total: &mut Score, of_cost: &Score, cost: &PartScores) {
    match (&mut *total, of_cost) {
        (Score::Value(total), Score::Value(value)) => *total += cost.weight * value,
        (Score::Unscored { .. }, _) => {}
        (_, Score::Unscored { reason }) => *total = Score::unscored(format!("{}: {reason}", cost.name)),
    }
}

impl RewardScores {
    /// The totals as numbers; `None` where there is none.
    #[must_use]
    pub fn values(&self) -> Vec<Option<f64>> {
        self.totals.iter().map(Score::value).collect()
    }

    /// Those of every second rollout, from the first on.
    pub(crate) fn every_second(&self) -> Self {
        let of = |scores: &[Score]| scores.iter().step_by(2).cloned().collect();
        let part = |part: &PartScores| PartScores { scores: of(&part.scores), ..part.clone() };
        Self {
            parts: self.parts.iter().map(part).collect(),
            totals: of(&self.totals),
            prices: self.prices.clone(),
        }
    }

    /// What each cost says, in order.
    fn costs(&self) -> &[PartScores] {
        &self.parts[self.parts.len() - self.prices.len()..]
    }

    /// What each reward says of a rollout; nothing at all of one without a total.
    pub(crate) fn of(&self, rollout: usize) -> Vec<Option<f64>> {
        let is_scored = !self.totals[rollout].is_unscored();
        self.parts.iter().map(|part| part.scores[rollout].value().filter(|_| is_scored)).collect()
    }

    /// Adds what the same rewards say of others, behind these.
    pub(crate) fn append(&mut self, others: Self) {
        if self.parts.is_empty() {
            (self.parts, self.prices) = (others.parts, others.prices);
        } else {
            for (part, other) in self.parts.iter_mut().zip(others.parts) {
                part.scores.extend(other.scores);
                part.not_finite += other.not_finite;
            }
        }
        self.totals.extend(others.totals);
    }

    /// Rollouts without a total.
    #[must_use]
    pub fn unscored(&self) -> usize {
        self.totals.iter().filter(|score| score.is_unscored()).count()
    }

    /// Means and spreads under TRL's names: `rewards/NAME/mean`, `rewards/NAME/std`; of costs also `price/NAME`.
    #[must_use]
    pub fn named_metrics(&self) -> Vec<(String, f64)> {
        let of_part = |part: &PartScores| {
            let values: Vec<f64> = part.scores.iter().filter_map(Score::value).collect();
            let (mean, deviation) = mean_and_deviation(&values)?;
            let name = &part.name;
            Some([(format!("rewards/{name}/mean"), mean), (format!("rewards/{name}/std"), deviation)])
        };
        let prices = self
            .costs()
            .iter()
            .zip(&self.prices)
            .map(|(cost, &price)| (format!("price/{}", cost.name), price));
        self.parts.iter().filter_map(of_part).flatten().chain(prices).collect()
    }
}

/// The mean of some numbers and their standard deviation with Bessel's correction, which is 0 of a single number; `None`
/// of none.
pub(crate) fn mean_and_deviation(values: &[f64]) -> Option<(f64, f64)> {
    let count = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((mean, (squares / (count - 1.0).max(1.0)).sqrt()))
}
