//! Rewards under constraints: costs whose mean must stay below a limit.
//!
//! # Source
//! Dai et al. 2023, *Safe RLHF*, [arXiv:2310.12773](https://arxiv.org/abs/2310.12773), §3.3: `max_π min_λ≥0 R − λ·(C − d)`.

use std::{collections::VecDeque, fmt, num::NonZeroUsize};

use align_model::number::Positive;
use align_reward::{
    compose::PartScores,
    function::{BoxedReward, RewardError, RewardFn, Scored, score_rollouts},
    rollout::Rollout,
    score::Score,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How a multiplier is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstraintConfig {
    /// The mean cost that is allowed, `d`.
    pub limit: f64,
    /// The multiplier to begin with; 1 unless given.
    #[serde(default = "one")]
    pub initial: Positive,
    /// The step size of the multiplier's logarithm; 0.1 unless given.
    #[serde(default = "tenth")]
    pub learning_rate: Positive,
    /// The greatest multiplier; 5 unless given.
    #[serde(default = "five")]
    pub maximum: Positive,
    /// How many of the latest mean costs an update is made of; as one number their mean. 1 unless given.
    #[serde(default = "one_update")]
    pub window: NonZeroUsize,
}

/// The price `λ` of a cost, which rises while the cost is above its limit and falls while it is below; saved and restored as
/// it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LagrangeMultiplier {
    config: ConstraintConfig,
    logarithm: f64,
    recent: VecDeque<f64>,
}

impl LagrangeMultiplier {
    /// The price before any cost was seen.
    #[must_use]
    pub fn new(config: ConstraintConfig) -> Self {
        let logarithm = config.initial.get().ln().min(config.maximum.get().ln());
        Self { config, logarithm, recent: VecDeque::new() }
    }

    /// `λ`
    #[must_use]
    pub fn value(&self) -> f64 {
        self.logarithm.exp()
    }

    /// Gradient ascent on the multiplier's logarithm: `log λ += rate·λ·(mean cost − limit)`, which keeps it positive. A mean cost
    /// that is no number changes nothing.
    pub fn update(&mut self, mean_cost: f64) {
        if !mean_cost.is_finite() {
            return;
        }
        self.recent.push_back(mean_cost);
        while self.recent.len() > self.config.window.get() {
            self.recent.pop_front();
        }
        let mean = self.recent.iter().sum::<f64>() / self.recent.len() as f64;
        let step = self.config.learning_rate.get() * self.value() * (mean - self.config.limit);
        self.logarithm = (self.logarithm + step).min(self.config.maximum.get().ln());
    }
}

/// A cost whose mean is to stay below a limit, at a price that the run finds out.
pub struct Constraint {
    cost: BoxedReward,
    price: LagrangeMultiplier,
}

impl Constraint {
    /// `cost` may be any function: what a cost model says, or how often something happens that should not.
    pub fn new(cost: impl RewardFn + Send + 'static, config: ConstraintConfig) -> Self {
        Self { cost: Box::new(cost), price: LagrangeMultiplier::new(config) }
    }

    /// The price as it is now.
    #[must_use]
    pub fn price(&self) -> f64 {
        self.price.value()
    }

    /// What the cost says of rollouts, as an addend of their reward that counts nothing yet.
    pub(crate) fn score(&mut self, rollouts: &[Rollout]) -> Result<PartScores, RewardError> {
        let Scored { scores, not_finite } = score_rollouts(&mut self.cost, rollouts)?;
        Ok(PartScores { name: self.cost.name().into(), weight: 0.0, scores, not_finite })
    }

    /// Raises or lowers the price after a step with these costs.
    pub(crate) fn follow(&mut self, scores: &[Score]) {
        let costs: Vec<f64> = scores.iter().filter_map(Score::value).collect();
        // Of no costs the mean is no number, and changes nothing.
        self.price.update(costs.iter().sum::<f64>() / costs.len() as f64);
    }

    pub(crate) fn state(&self) -> Value {
        json!({ "price": self.price, "cost": self.cost.state() })
    }

    pub(crate) fn restore(&mut self, state: &Value) -> Result<(), RewardError> {
        let failed = |reason: String| RewardError::State { function: self.cost.name().into(), reason };
        let price = LagrangeMultiplier::deserialize(&state["price"]).map_err(|e| failed(e.to_string()))?;
        if price.config != self.price.config {
            return Err(failed("its constraint had other settings".into()));
        }
        self.price = price;
        self.cost.restore(&state["cost"])
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").field("cost", &self.cost.name()).field("price", &self.price).finish()
    }
}

fn one() -> Positive {
    Positive::new(1.0)
}

fn tenth() -> Positive {
    Positive::new(0.1)
}

fn five() -> Positive {
    Positive::new(5.0)
}

fn one_update() -> NonZeroUsize {
    NonZeroUsize::MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ConstraintConfig {
        toml::from_str("limit = 0.5").unwrap()
    }

    #[test]
    fn a_price_follows_its_cost() {
        let mut price = LagrangeMultiplier::new(config());
        price.update(1.5);
        assert!((price.value() - 0.1_f64.exp()).abs() < 1e-12);
        let high = price.value();
        price.update(0.0);
        assert!(price.value() < high && price.value() > 0.0);
        for _ in 0..1000 {
            price.update(100.0);
        }
        assert!((price.value() - 5.0).abs() < 1e-9, "no more than its maximum");
        for _ in 0..100_000 {
            price.update(-100.0);
        }
        assert!(price.value() >= 0.0 && price.value().is_finite());
        let before = price.clone();
        price.update(f64::NAN);
        assert_eq!(price, before);
    }

    #[test]
    fn a_window_smooths_the_cost() {
        let window = NonZeroUsize::new(2).unwrap();
        let mut price = LagrangeMultiplier::new(ConstraintConfig { window, ..config() });
        price.update(0.5);
        price.update(1.5);
        assert!(
            (price.value() - 0.05_f64.exp()).abs() < 1e-12,
            "the mean of 0.5 and 1.5 is 0.5 above the limit"
        );
    }

    #[test]
    fn a_price_comes_back_as_it_was() {
        let mut price = LagrangeMultiplier::new(config());
        price.update(0.7);
        let text = serde_json::to_string(&price).unwrap();
        let mut restored: LagrangeMultiplier = serde_json::from_str(&text).unwrap();
        restored.update(0.3);
        price.update(0.3);
        assert_eq!(restored.value().to_bits(), price.value().to_bits());
    }
}
