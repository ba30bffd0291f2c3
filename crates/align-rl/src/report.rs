//! What a step of reinforcement learning measured.

use align_model::train::Report;

use crate::{rollout::RolloutRow, watch::Alarm};

/// What a step measured, under the names that TRL logs, with the rollouts that it learnt from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RlReport {
    /// Named measurements. Those of updates are means over the step's updates.
    pub metrics: Vec<(&'static str, f64)>,
    /// Measurements whose names depend on the rewards, such as `rewards/NAME/mean`.
    pub named: Vec<(String, f64)>,
    /// What was sampled and how it was scored, for people.
    pub rollouts: Vec<RolloutRow>,
    /// What is wrong.
    pub alarms: Vec<Alarm>,
}

impl RlReport {
    /// The measurement of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        let fixed = self.metrics.iter().find(|(known, _)| *known == name).map(|&(_, value)| value);
        fixed.or_else(|| self.named.iter().find(|(known, _)| known == name).map(|&(_, value)| value))
    }

    /// The step's loss.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.get("loss").unwrap_or(f64::NAN)
    }
}

impl Report for RlReport {
    fn metrics(&self) -> Vec<(&'static str, f64)> {
        self.metrics.clone()
    }

    fn named_metrics(&self) -> Vec<(String, f64)> {
        self.named.clone()
    }
}
