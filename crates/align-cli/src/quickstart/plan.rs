//! How long each stage trains, and with which settings.

use std::num::{NonZeroU64, NonZeroUsize};

use align_dpo::{
    DpoConfig, Objective,
    loss::{LikelihoodMean, PairLoss, PairObjective},
};
use align_model::{
    number::{Positive, ProperFraction, UnitInterval},
    sft::{Duration, LossOn, SftConfig},
    train::{AdamWConfig, Floor, Schedule, Span, UpdateConfig},
};
use align_reward::trainer::RewardConfig;
use align_rl::{GroupConfig, KlControl, KlEstimator, PpoConfig, ppo::RewardKl, rollout::RolloutConfig};
use serde::Serialize;

use super::world::LONGEST_SEQUENCE;

/// The sizes of a quickstart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Plan {
    /// The base model reads text.
    pub(super) base: Training,
    /// It learns to answer.
    pub(super) sft: Training,
    /// A model of its own learns to tell better answers from worse.
    pub(super) reward: Training,
    /// It learns to give the better ones.
    pub(super) dpo: Training,
    /// It learns to give right and kind ones, by trying.
    pub(super) grpo: Training,
    /// It learns to give those that the model of its own likes.
    pub(super) ppo: Training,
    /// Held-out requests of each kind, at most; some kinds have fewer.
    pub(super) held_out_per_kind: usize,
}

/// The sizes of one training run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Training {
    /// Optimiser steps.
    pub(super) steps: u64,
    /// Sequences a step; requests, where answers are sampled.
    pub(super) batch_size: usize,
    /// Peak learning rate.
    pub(super) learning_rate: f64,
    /// How much of the mean squared gradient remains at each step.
    pub(super) beta2: f64,
    /// Steps in which the learning rate rises.
    pub(super) warmup_steps: u64,
}

/// Where the cosine decay of the learning rate ends.
const FINAL_SHARE_OF_RATE: UnitInterval = UnitInterval::new(0.05);

impl Plan {
    /// What the command runs.
    pub(super) fn full() -> Self {
        Self {
            base: Training { steps: 700, batch_size: 40, learning_rate: 6e-3, beta2: 0.98, warmup_steps: 30 },
            sft: Training { steps: 640, batch_size: 40, learning_rate: 4e-3, beta2: 0.999, warmup_steps: 30 },
            reward: Training {
                steps: 100,
                batch_size: 32,
                learning_rate: 2e-3,
                beta2: 0.98,
                warmup_steps: 10,
            },
            dpo: Training { steps: 120, batch_size: 32, learning_rate: 1e-3, beta2: 0.98, warmup_steps: 10 },
            grpo: Training { steps: 60, batch_size: 16, learning_rate: 1e-3, beta2: 0.98, warmup_steps: 5 },
            ppo: Training { steps: 60, batch_size: 64, learning_rate: 5e-4, beta2: 0.98, warmup_steps: 5 },
            held_out_per_kind: 60,
        }
    }
}

impl Training {
    /// Sequences that the run sees, each once.
    pub(super) fn samples(self) -> usize {
        self.steps as usize * self.batch_size
    }

    /// The settings of the trainer.
    pub(super) fn config(self, loss_on: LossOn, seed: u64) -> anyhow::Result<SftConfig> {
        let batch_size = NonZeroUsize::try_from(self.batch_size)?;
        Ok(SftConfig {
            loss_on,
            duration: Duration::Steps(NonZeroU64::try_from(self.steps)?),
            batch_size,
            micro_batch_size: batch_size,
            max_length: NonZeroUsize::try_from(LONGEST_SEQUENCE)?,
            update: self.update()?,
            seed,
            ..SftConfig::default()
        })
    }

    /// The settings of a trainer of reward models.
    pub(super) fn reward_config(self, seed: u64) -> anyhow::Result<RewardConfig> {
        let batch_size = NonZeroUsize::try_from(self.batch_size)?;
        Ok(RewardConfig {
            duration: Duration::Steps(NonZeroU64::try_from(self.steps)?),
            batch_size,
            micro_batch_size: batch_size,
            max_length: NonZeroUsize::try_from(LONGEST_SEQUENCE)?,
            update: self.update()?,
            seed,
            ..RewardConfig::default()
        })
    }

    /// The settings of a trainer of preferences: DPO, and the likelihood of the better answers beside it, without which
    /// both answers of a pair may become less likely.
    pub(super) fn dpo_config(self, seed: u64) -> anyhow::Result<DpoConfig> {
        let batch_size = NonZeroUsize::try_from(self.batch_size)?;
        let likelihood = PairLoss::Sft { mean: LikelihoodMean::default() };
        let losses =
            vec![PairLoss::Sigmoid { label_smoothing: ProperFraction::new(0.0) }.into(), likelihood.into()];
        Ok(DpoConfig {
            objective: Objective::Dpo(PairObjective { losses, ..PairObjective::default() }),
            duration: Duration::Steps(NonZeroU64::try_from(self.steps)?),
            batch_size,
            micro_batch_size: batch_size,
            max_length: NonZeroUsize::try_from(LONGEST_SEQUENCE)?,
            update: self.update()?,
            seed,
            ..DpoConfig::default()
        })
    }

    /// The settings of a trainer from groups of answers.
    pub(super) fn grpo_config(self, rollout: RolloutConfig, seed: u64) -> anyhow::Result<GroupConfig> {
        let batch_size = NonZeroUsize::try_from(self.batch_size)?;
        Ok(GroupConfig {
            duration: Duration::Steps(NonZeroU64::try_from(self.steps)?),
            batch_size,
            micro_batch_size: batch_size.saturating_mul(rollout.samples),
            rollout,
            update: self.update()?,
            seed,
            ..GroupConfig::default()
        })
    }

    /// The settings of a trainer with a critic, which learns faster. What the reward model cannot judge, the divergence from the
    /// reference has to keep: with a low price, answers become kind and wrong.
    pub(super) fn ppo_config(self, rollout: RolloutConfig, seed: u64) -> anyhow::Result<PpoConfig> {
        let batch_size = NonZeroUsize::try_from(self.batch_size)?;
        let faster = Self { learning_rate: 4.0 * self.learning_rate, ..self };
        Ok(PpoConfig {
            duration: Duration::Steps(NonZeroU64::try_from(self.steps)?),
            batch_size,
            micro_batch_size: batch_size,
            kl: Some(RewardKl::PerToken {
                estimator: KlEstimator::K1,
                coefficient: Positive::new(1.0),
                control: KlControl::default(),
            }),
            epochs: NonZeroUsize::MIN.saturating_add(1),
            rollout: RolloutConfig { samples: NonZeroUsize::MIN, ..rollout },
            update: self.update()?,
            critic_update: faster.update()?,
            seed,
            ..PpoConfig::default()
        })
    }

    fn update(self) -> anyhow::Result<UpdateConfig> {
        let schedule = Schedule::CosineWithMinLr {
            warmup: Span::Steps(self.warmup_steps),
            floor: Floor::Ratio(FINAL_SHARE_OF_RATE),
            num_cycles: Positive::new(0.5),
        };
        let optimizer =
            AdamWConfig { beta2: ProperFraction::try_from(self.beta2)?, ..AdamWConfig::default() };
        Ok(UpdateConfig {
            learning_rate: Positive::try_from(self.learning_rate)?,
            schedule,
            optimizer,
            max_grad_norm: Positive::new(1.0),
        })
    }
}
