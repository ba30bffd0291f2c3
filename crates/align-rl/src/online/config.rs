//! The settings of online preference learning.

use std::num::NonZeroUsize;

use align_model::{
    causal_lm::Recompute,
    generate::Decoding,
    number::{NonNegative, Positive, UnitInterval},
    sft::Duration,
    train::UpdateConfig,
};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::loss::{online_dpo_loss, online_ipo_loss};
use crate::{error::RlConfigError, reference::PolicyReference, rollout::RolloutConfig};

const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);
const EIGHT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);
const LENGTH: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);

/// What the policy minimises, and whom its completions compete with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OnlineObjective {
    /// Pairs of the policy's own completions, learnt from as DPO does: [`online_dpo_loss`], [`online_ipo_loss`].
    OnlineDpo {
        /// What is made of a pair's margin.
        #[serde(default)]
        loss: OnlinePairLoss,
        /// How strongly the policy is held to its reference. TRL: 0.1.
        #[serde(default = "beta")]
        beta: Positive,
    },
    /// The policy's completions against those of a [mixture](super::GeometricMixture) of policy and reference:
    /// [`nash_md_loss`](super::nash_md_loss).
    NashMd {
        /// How strongly the policy is held to its reference. TRL: 0.1.
        #[serde(default = "weak")]
        beta: NonNegative,
        /// Weight of the reference in the mixture: 0 is self-play, 1 plays against the reference. TRL: 0.5.
        #[serde(default = "one_half")]
        mixture_coefficient: UnitInterval,
    },
    /// The policy's completions against the reference's, with a bonus for exploring: [`xpo_loss`](super::xpo_loss).
    Xpo {
        /// What is made of a pair's margin.
        #[serde(default)]
        loss: OnlinePairLoss,
        /// How strongly the policy is held to its reference. TRL: 0.1.
        #[serde(default = "beta")]
        beta: Positive,
        /// Weight of the bonus. TRL: 1e-5.
        #[serde(default = "alpha")]
        alpha: NonNegative,
    },
}

/// What is made of the margin by which a pair's winner is ahead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnlinePairLoss {
    /// [`online_dpo_loss`]
    #[default]
    Sigmoid,
    /// [`online_ipo_loss`]
    Ipo,
}

/// What becomes of two completions of which neither is better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// They are left out and counted.
    #[default]
    LeaveOut,
    /// The first counts as the winner, as in TRL.
    FirstWins,
}

/// Everything that online preference learning needs to be repeated, but the model, the judge and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnlineConfig {
    /// What is minimised.
    pub objective: OnlineObjective,
    /// What the policy is held to.
    pub reference: PolicyReference,
    /// How completions are sampled. `samples`: completions a prompt, which make half as many pairs; TRL: 2. TRL's
    /// temperature: 0.9.
    pub rollout: RolloutConfig,
    /// What becomes of two completions of which neither is better; of no meaning for `nash_md`, to which a tie is an
    /// answer.
    pub ties: Ties,
    /// What a completion's reward is lowered by if it did not end by itself: TRL's `missing_eos_penalty`.
    pub missing_end_penalty: Option<Positive>,
    /// How long the run is.
    pub duration: Duration,
    /// Prompts a step.
    pub batch_size: NonZeroUsize,
    /// Pairs a forward pass; fewer need less memory and change nothing else.
    pub micro_batch_size: NonZeroUsize,
    /// What is computed twice to save memory; changes nothing else.
    pub recompute: Recompute,
    /// Learning rate, schedule, optimiser, clipping. TRL's learning rate: 5e-7.
    pub update: UpdateConfig,
    /// Seed of the order of prompts, of sampling and of dropout.
    pub seed: u64,
}

impl Default for OnlineObjective {
    fn default() -> Self {
        Self::OnlineDpo { loss: OnlinePairLoss::default(), beta: beta() }
    }
}

impl Default for OnlineConfig {
    fn default() -> Self {
        Self {
            objective: OnlineObjective::default(),
            reference: PolicyReference::Frozen {},
            rollout: RolloutConfig { samples: TWO, max_new_tokens: LENGTH, ..RolloutConfig::default() },
            ties: Ties::default(),
            missing_end_penalty: None,
            duration: Duration::Epochs(Positive::new(3.0)),
            batch_size: EIGHT,
            micro_batch_size: EIGHT,
            recompute: Recompute::default(),
            update: UpdateConfig { learning_rate: Positive::new(5e-7), ..UpdateConfig::default() },
            seed: 42,
        }
    }
}

impl OnlineConfig {
    /// A run with this objective and usual values for everything else.
    #[must_use]
    pub fn of(objective: OnlineObjective) -> Self {
        Self { objective, ..Self::default() }
    }

    /// Checks the relations between settings; single values were checked when they were parsed.
    ///
    /// # Errors
    /// Names the settings and the values they have.
    pub fn check(&self) -> Result<(), RlConfigError> {
        let samples = self.rollout.samples.get();
        if !samples.is_multiple_of(2) {
            let problem = format!("= {samples} does not make pairs: use 2, or another even number");
            return Err(RlConfigError::Setting { key: "rollout.samples", problem });
        }
        let (micro, batch) = (self.micro_batch_size.get(), self.batch_size.get() * samples / 2);
        if micro > batch {
            let problem = format!("= {micro} is more than the {batch} pairs of a step");
            return Err(RlConfigError::Setting { key: "micro_batch_size", problem });
        }
        if self.rollout.decoding == Decoding::Greedy {
            let problem = "= \"greedy\" writes the same completion twice: sample".to_owned();
            return Err(RlConfigError::Setting { key: "rollout.decoding", problem });
        }
        if self.ties != Ties::default() && matches!(self.objective, OnlineObjective::NashMd { .. }) {
            let problem =
                "has no meaning for `nash_md`, to which a tie is an answer: leave it out".to_owned();
            return Err(RlConfigError::Setting { key: "ties", problem });
        }
        Ok(self.update.schedule.check(self.update.learning_rate.get())?)
    }
}

impl OnlineObjective {
    /// How strongly the policy is held to its reference.
    #[must_use]
    pub fn beta(&self) -> f64 {
        match self {
            Self::OnlineDpo { beta, .. } | Self::Xpo { beta, .. } => beta.get(),
            Self::NashMd { beta, .. } => beta.get(),
        }
    }
}

impl OnlinePairLoss {
    /// The loss of each pair.
    ///
    /// # Shapes
    /// - `margins`, result: `[pairs]`
    #[must_use]
    pub fn per_pair(self, margins: Tensor<1>, beta: Positive) -> Tensor<1> {
        match self {
            Self::Sigmoid => online_dpo_loss(margins, beta),
            Self::Ipo => online_ipo_loss(margins, beta),
        }
    }
}

fn beta() -> Positive {
    Positive::new(0.1)
}

fn weak() -> NonNegative {
    NonNegative::new(0.1)
}

fn one_half() -> UnitInterval {
    UnitInterval::new(0.5)
}

fn alpha() -> NonNegative {
    NonNegative::new(1e-5)
}
