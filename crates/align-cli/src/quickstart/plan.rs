//! How long each stage trains, and with which settings.

use std::num::{NonZeroU64, NonZeroUsize};

use align_model::{
    number::{Positive, ProperFraction, UnitInterval},
    sft::{Duration, LossOn, SftConfig},
    train::{AdamWConfig, Floor, Schedule, Span, UpdateConfig},
};
use serde::Serialize;

use super::world::LONGEST_SEQUENCE;

/// The sizes of a quickstart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Plan {
    /// The base model reads text.
    pub(super) base: Training,
    /// It learns to answer.
    pub(super) sft: Training,
    /// Held-out requests of each kind, at most; some kinds have fewer.
    pub(super) held_out_per_kind: usize,
}

/// The sizes of one training run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Training {
    /// Optimiser steps.
    pub(super) steps: u64,
    /// Sequences a step.
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
        let schedule = Schedule::CosineWithMinLr {
            warmup: Span::Steps(self.warmup_steps),
            floor: Floor::Ratio(FINAL_SHARE_OF_RATE),
            num_cycles: Positive::new(0.5),
        };
        let optimizer =
            AdamWConfig { beta2: ProperFraction::try_from(self.beta2)?, ..AdamWConfig::default() };
        Ok(SftConfig {
            loss_on,
            duration: Duration::Steps(NonZeroU64::try_from(self.steps)?),
            batch_size,
            micro_batch_size: batch_size,
            max_length: NonZeroUsize::try_from(LONGEST_SEQUENCE)?,
            update: UpdateConfig {
                learning_rate: Positive::try_from(self.learning_rate)?,
                schedule,
                optimizer,
                max_grad_norm: Positive::new(1.0),
            },
            seed,
            ..SftConfig::default()
        })
    }
}
