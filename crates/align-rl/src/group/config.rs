//! The settings of learning from groups of completions.

use std::num::NonZeroUsize;

use align_model::{causal_lm::Recompute, number::Positive, sft::Duration, train::UpdateConfig};
use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
use crate::{
    error::RlConfigError,
    reference::PolicyReference,
    rollout::RolloutConfig,
    watch::{AlarmConfig, Danger, default_alarms},
};

const ONE: NonZeroUsize = NonZeroUsize::MIN;
const EIGHT: NonZeroUsize = ONE.saturating_add(7);

/// What becomes of completions that ended for want of room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TruncatedCompletions {
    /// They are learnt from like others.
    #[default]
    Keep,
    /// Their rewards count in their group, and their tokens are not learnt from: TRL's `mask_truncated_completions`.
    Mask,
}

/// What becomes of groups whose rewards are all equal, so that no completion is better than another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DynamicSampling {
    /// They stay: their advantages are 0.
    #[default]
    Off,
    /// They are left out, so that they do not thin out what a loss is a mean over.
    Drop,
    /// They are replaced by groups of further prompts, as long as those last: DAPO's dynamic sampling. Each batch brings
    /// these prompts with it.
    Replace {
        /// Further prompts a step.
        spare: NonZeroUsize,
    },
}

/// Everything that learning from groups needs to be repeated, but the model, the rewards and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupConfig {
    /// What is minimised, and what completions are compared with: a name such as `"grpo"`, a name with changes, or spelled
    /// out.
    pub algorithm: Algorithm,
    /// What the policy is held to. Unless given, a frozen copy for an algorithm with a `kl`.
    pub reference: Option<PolicyReference>,
    /// How completions are sampled, and how many of each prompt.
    pub rollout: RolloutConfig,
    /// How long the run is, in passes over the prompts or in steps.
    pub duration: Duration,
    /// Prompts a step.
    pub batch_size: NonZeroUsize,
    /// Completions a forward pass; fewer need less memory and change nothing else, unless `algorithm.accumulation` says so.
    pub micro_batch_size: NonZeroUsize,
    /// Updates that are made with the same completions: TRL's `num_iterations`.
    pub iterations: NonZeroUsize,
    /// Into how many updates the prompts of a step are cut: TRL's `steps_per_generation` divided by its gradient
    /// accumulation.
    pub mini_batches: NonZeroUsize,
    /// What becomes of completions that ended for want of room.
    pub truncated: TruncatedCompletions,
    /// What becomes of groups whose rewards are all equal.
    pub dynamic_sampling: DynamicSampling,
    /// Learning rate, schedule, optimiser, clipping. TRL's learning rate: 1e-6.
    pub update: UpdateConfig,
    /// What is computed twice to save memory; changes nothing else.
    pub recompute: Recompute,
    /// Seed of the order of prompts, of sampling and of dropout.
    pub seed: u64,
    /// What to look out for while the run goes on, and what to do then.
    pub alarms: Vec<AlarmConfig>,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            reference: None,
            rollout: RolloutConfig::default(),
            duration: Duration::Epochs(Positive::new(1.0)),
            batch_size: EIGHT,
            micro_batch_size: EIGHT,
            iterations: ONE,
            mini_batches: ONE,
            truncated: TruncatedCompletions::default(),
            dynamic_sampling: DynamicSampling::default(),
            update: UpdateConfig { learning_rate: Positive::new(1e-6), ..UpdateConfig::default() },
            recompute: Recompute::default(),
            seed: 42,
            alarms: default_alarms(),
        }
    }
}

impl GroupConfig {
    /// A run of this algorithm with usual values for everything else.
    #[must_use]
    pub fn of(algorithm: Algorithm) -> Self {
        Self { algorithm, ..Self::default() }
    }

    /// What the policy is held to; `None` for an algorithm without a divergence.
    #[must_use]
    pub fn reference_policy(&self) -> Option<PolicyReference> {
        self.algorithm.needs_reference().then(|| self.reference.unwrap_or(PolicyReference::Frozen {}))
    }

    /// Prompts that a step is given: `batch_size`, and what groups without signal are replaced by.
    #[must_use]
    pub fn prompts_per_step(&self) -> NonZeroUsize {
        match self.dynamic_sampling {
            DynamicSampling::Replace { spare } => self.batch_size.saturating_add(spare.get()),
            DynamicSampling::Off | DynamicSampling::Drop => self.batch_size,
        }
    }

    /// Updates that a step makes, at most.
    #[must_use]
    pub fn updates_per_step(&self) -> u64 {
        (self.iterations.get() * self.mini_batches.get()) as u64
    }

    /// Checks the relations between settings; single values were checked when they were parsed.
    ///
    /// # Errors
    /// Names the settings and the values they have.
    pub fn check(&self) -> Result<(), RlConfigError> {
        let (batch, mini_batches) = (self.batch_size.get(), self.mini_batches.get());
        if mini_batches > batch {
            return Err(RlConfigError::TooManyMiniBatches { mini_batches, batch });
        }
        let (micro, rollouts) = (self.micro_batch_size.get(), batch * self.rollout.samples.get());
        if micro > rollouts {
            return Err(RlConfigError::MicroBatchTooLarge { micro, batch: rollouts });
        }
        self.update.schedule.check(self.update.learning_rate.get())?;
        self.algorithm.check(self.rollout.samples)?;
        if self.reference.is_some() && !self.algorithm.needs_reference() {
            return Err(setting("reference", "has no meaning for an algorithm without a `kl`: leave it out"));
        }
        self.check_alarms()
    }

    fn check_alarms(&self) -> Result<(), RlConfigError> {
        for alarm in &self.alarms {
            match alarm.when {
                Danger::KlBudget { .. } if !self.algorithm.needs_reference() => {
                    return Err(setting(
                        "alarms",
                        "have a `kl_budget`, and the algorithm has no `kl` to spend",
                    ));
                }
                Danger::LengthDrift { factor } if factor.get() <= 1.0 => {
                    return Err(setting("alarms", "have a `length_drift` whose `factor` is not above 1"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

pub(super) fn setting(key: &'static str, problem: impl Into<String>) -> RlConfigError {
    RlConfigError::Setting { key, problem: problem.into() }
}
