//! The settings of distillation.

use std::num::NonZeroUsize;

use align_model::{
    causal_lm::Recompute,
    generate::{Decoding, Sampling},
    logprob::Divergence,
    number::{Positive, UnitInterval},
    sft::Duration,
    train::UpdateConfig,
};
use serde::{Deserialize, Serialize};

use crate::{error::RlConfigError, rollout::RolloutConfig};

const ONE: NonZeroUsize = NonZeroUsize::MIN;
const EIGHT: NonZeroUsize = ONE.saturating_add(7);
const LENGTH: NonZeroUsize = ONE.saturating_add(127);

/// What brings the student closer to its teacher.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DistillationObjective {
    /// A divergence between their distributions over the whole vocabulary at every token of a completion, whoever wrote it:
    /// generalised knowledge distillation.
    Divergence {
        /// Which one. TRL's `beta` = 0.5: `{ kind = "jensen_shannon", beta = 0.5 }`.
        #[serde(default = "between")]
        divergence: Divergence,
        /// Divides the logits of both. TRL: 1, whatever the temperature of sampling.
        #[serde(default = "one")]
        temperature: Positive,
    },
    /// Only what the two say of sampled tokens, by policy gradient: [`minillm_loss`](super::minillm_loss).
    PolicyGradient {
        /// How much a token answers for those that follow it: 0 for itself alone.
        #[serde(default = "nothing")]
        discount: UnitInterval,
    },
}

/// Who writes the completions that the student does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OffPolicyCompletions {
    /// Whoever wrote the data.
    #[default]
    Data,
    /// The teacher, each time anew: TRL's `seq_kd`.
    Teacher,
}

/// Everything that distillation needs to be repeated, but the models and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistillationConfig {
    /// What is minimised.
    pub objective: DistillationObjective,
    /// Share of the steps whose completions the student writes: TRL's `lmbda`, 0.5.
    pub on_policy: UnitInterval,
    /// Who writes those of the other steps.
    pub off_policy: OffPolicyCompletions,
    /// How completions are sampled. TRL: 1 of each prompt, of 128 tokens at most, at a temperature of 0.9.
    pub rollout: RolloutConfig,
    /// How long the run is.
    pub duration: Duration,
    /// Prompts a step.
    pub batch_size: NonZeroUsize,
    /// Completions a forward pass; fewer need less memory and change nothing else.
    pub micro_batch_size: NonZeroUsize,
    /// What is computed twice to save memory; changes nothing else.
    pub recompute: Recompute,
    /// Learning rate, schedule, optimiser, clipping.
    pub update: UpdateConfig,
    /// Seed of the order of prompts, of who writes, of sampling and of dropout.
    pub seed: u64,
}

impl Default for DistillationObjective {
    fn default() -> Self {
        Self::Divergence { divergence: between(), temperature: one() }
    }
}

impl Default for DistillationConfig {
    fn default() -> Self {
        Self {
            objective: DistillationObjective::default(),
            on_policy: UnitInterval::new(0.5),
            off_policy: OffPolicyCompletions::default(),
            rollout: RolloutConfig { samples: ONE, max_new_tokens: LENGTH, ..RolloutConfig::default() },
            duration: Duration::Epochs(Positive::new(3.0)),
            batch_size: EIGHT,
            micro_batch_size: EIGHT,
            recompute: Recompute::default(),
            update: UpdateConfig::default(),
            seed: 42,
        }
    }
}

impl DistillationConfig {
    /// A run with this objective and usual values for everything else.
    #[must_use]
    pub fn of(objective: DistillationObjective) -> Self {
        let on_policy = match objective {
            DistillationObjective::Divergence { .. } => UnitInterval::new(0.5),
            DistillationObjective::PolicyGradient { .. } => UnitInterval::new(1.0),
        };
        Self { objective, on_policy, ..Self::default() }
    }

    /// Whether some steps learn from completions of the data.
    #[must_use]
    pub fn learns_from_data(&self) -> bool {
        self.on_policy.get() < 1.0 && self.off_policy == OffPolicyCompletions::Data
    }

    /// Whether some steps learn from completions that are written for them, by the student or by the teacher.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.on_policy.get() > 0.0 || self.off_policy == OffPolicyCompletions::Teacher
    }

    /// Checks the relations between settings; single values were checked when they were parsed.
    ///
    /// # Errors
    /// Names the settings and the values they have.
    pub fn check(&self) -> Result<(), RlConfigError> {
        let setting = |key, problem: String| Err(RlConfigError::Setting { key, problem });
        let (micro, batch) =
            (self.micro_batch_size.get(), self.batch_size.get() * self.rollout.samples.get());
        if micro > batch {
            return Err(RlConfigError::MicroBatchTooLarge { micro, batch });
        }
        let on_policy = self.on_policy.get();
        if on_policy >= 1.0 && self.off_policy != OffPolicyCompletions::default() {
            return setting("off_policy", "has no meaning with `on_policy` = 1: leave it out".into());
        }
        if let DistillationObjective::PolicyGradient { .. } = self.objective {
            if on_policy < 1.0 {
                let problem = format!(
                    "= {on_policy} does not do for `policy_gradient`, which learns from the student's own samples alone: 1"
                );
                return setting("on_policy", problem);
            }
            if self.rollout.decoding != Decoding::Sample(Sampling::default()) {
                let problem = "must be the student's own distribution for `policy_gradient`, without temperature and filters: leave it out";
                return setting("rollout.decoding", problem.into());
            }
        }
        Ok(self.update.schedule.check(self.update.learning_rate.get())?)
    }
}

fn between() -> Divergence {
    Divergence::JensenShannon { beta: UnitInterval::new(0.5) }
}

fn one() -> Positive {
    Positive::new(1.0)
}

fn nothing() -> UnitInterval {
    UnitInterval::new(0.0)
}
