//! Coefficients of an objective that change during a run.

use align_model::number::{NonNegative, Positive};
use serde::{Deserialize, Serialize};

use super::{Algorithm, measure::UpdateMetrics};
use crate::{
    kl::{KlControl, KlController},
    loss::EntropyController,
    objective::PolicyObjective,
};

/// What steers them; its own state for a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Coefficients {
    kl: Option<KlController>,
    entropy: Option<EntropyController>,
}

impl Coefficients {
    /// Before the first update.
    pub(super) fn new(algorithm: &Algorithm) -> Self {
        let objective = &algorithm.objective;
        let control = algorithm.kl_control;
        Self {
            kl: objective
                .kl
                .map(|penalty| KlController::new(NonNegative::new(penalty.coefficient.get()), control)),
            entropy: objective.entropy.map(EntropyController::new),
        }
    }

    /// The objective with the coefficients as they are now.
    pub(super) fn applied(&self, objective: &PolicyObjective) -> PolicyObjective {
        let mut objective = *objective;
        if let (Some(penalty), Some(controller)) = (&mut objective.kl, &self.kl)
            // A coefficient that has fallen to 0 stays where it was: there is no penalty without one.
            && let Ok(coefficient) = Positive::try_from(controller.coefficient())
        {
            penalty.coefficient = coefficient;
        }
        objective.entropy = self.entropy.map(|controller| controller.bonus());
        objective
    }

    /// Takes note of what an update of so many sequences measured, and adds the coefficients to it.
    pub(super) fn follow(&mut self, metrics: &mut UpdateMetrics, sequences: usize) {
        if let (Some(controller), Some(kl)) = (&mut self.kl, metrics.kl) {
            if controller.control() != (KlControl::Fixed {}) {
                metrics.coefficients.push(("kl_coef", controller.coefficient()));
            }
            controller.update(kl, sequences);
        }
        if let Some(controller) = &mut self.entropy {
            controller.update(metrics.kept_entropy);
            metrics.coefficients.push(("entropy_coef", controller.coefficient()));
        }
    }
}
