//! The settings of supervised fine-tuning.

use std::num::{NonZeroU64, NonZeroUsize};

use serde::{Deserialize, Serialize};

use super::Packing;
use crate::{
    causal_lm::Recompute,
    number::{Positive, UnitInterval},
    train::UpdateConfig,
};

/// Everything that a fine-tuning run needs to be repeated, but the model and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SftConfig {
    /// What is minimised.
    pub loss: SftLoss,
    /// Which tokens carry the loss.
    pub loss_on: LossOn,
    /// How long the run is.
    pub duration: Duration,
    /// Rows an optimiser step: samples, or as many packed rows. transformers: 8.
    pub batch_size: NonZeroUsize,
    /// Rows a forward pass; fewer need less memory and change nothing else.
    pub micro_batch_size: NonZeroUsize,
    /// What is computed twice to save memory; changes nothing else.
    pub recompute: Recompute,
    /// Tokens a row, at most: of a sample, or of several packed together. TRL: 1024.
    pub max_length: NonZeroUsize,
    /// Which end of a longer sample is kept.
    pub truncation: Truncation,
    /// How samples are packed into rows of `max_length` tokens. TRL: off; without it a row is a sample.
    pub packing: Option<Packing>,
    /// Learning rate, schedule, optimiser, clipping.
    pub update: UpdateConfig,
    /// Seed of the order of samples.
    pub seed: u64,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            loss: SftLoss::default(),
            loss_on: LossOn::default(),
            duration: Duration::Epochs(Positive::new(3.0)),
            batch_size: EIGHT,
            micro_batch_size: EIGHT,
            recompute: Recompute::default(),
            max_length: MAX_LENGTH,
            truncation: Truncation::default(),
            packing: None,
            update: UpdateConfig::default(),
            seed: 42,
        }
    }
}

const EIGHT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);
const MAX_LENGTH: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// What supervised fine-tuning minimises.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SftLoss {
    /// Negative log-likelihood: [`nll_loss`](super::nll_loss), with `label_smoothing` above 0
    /// [`smoothed_nll_loss`](super::smoothed_nll_loss).
    Nll {
        /// Share of the probability that is spread over the vocabulary; none unless given.
        #[serde(default = "no_smoothing")]
        label_smoothing: UnitInterval,
    },
    /// Dynamic fine-tuning: [`dft_loss`](super::dft_loss).
    Dft {},
}

impl Default for SftLoss {
    fn default() -> Self {
        Self::Nll { label_smoothing: no_smoothing() }
    }
}

fn no_smoothing() -> UnitInterval {
    UnitInterval::new(0.0)
}

/// Which tokens carry the loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// The completion where a sample has a prompt and a completion, everything where it has not. TRL's default.
    #[default]
    Completion,
    /// Everything, prompts included.
    Everything,
    /// What the assistant says, in every turn; needs a chat template with `{% generation %}` blocks.
    Assistant,
}

/// Which end of a sample that is too long is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// The beginning. TRL's default.
    #[default]
    KeepStart,
    /// The end.
    KeepEnd,
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duration {
    /// Passes over the data.
    Epochs(Positive),
    /// Optimiser steps.
    Steps(NonZeroU64),
}

impl Duration {
    /// Optimiser steps over `samples` samples or packed rows in batches of `batch_size`; the last batch of a pass may be smaller.
    #[must_use]
    pub fn steps(self, samples: usize, batch_size: NonZeroUsize) -> u64 {
        match self {
            Self::Steps(steps) => steps.get(),
            Self::Epochs(epochs) => (samples.div_ceil(batch_size.get()) as f64 * epochs.get()).ceil() as u64,
        }
    }
}

/// A combination of settings makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SftConfigError {
    /// A pass larger than a step.
    #[error("`micro_batch_size` = {micro} is larger than `batch_size` = {batch}")]
    MicroBatchTooLarge {
        /// `micro_batch_size`
        micro: usize,
        /// `batch_size`
        batch: usize,
    },
    /// An end to keep where nothing is cut off.
    #[error(
        "`truncation` = \"keep_end\" has no meaning with `packing` = {}, which cuts nothing off: leave it out, or use \"bfd\"",
        named(*.packing)
    )]
    NothingToTruncate {
        /// `packing`
        packing: Packing,
    },
    /// The schedule does not fit the rate.
    #[error("update.schedule: {0}")]
    Schedule(#[from] crate::train::ScheduleError),
}

impl SftConfig {
    /// Checks the relations between settings; single values were checked when they were parsed.
    ///
    /// # Errors
    /// Names the settings and the values they have.
    pub fn check(&self) -> Result<(), SftConfigError> {
        let (micro, batch) = (self.micro_batch_size.get(), self.batch_size.get());
        if micro > batch {
            return Err(SftConfigError::MicroBatchTooLarge { micro, batch });
        }
        if let Some(packing) = self.packing
            && packing.keeps_every_token()
            && self.truncation == Truncation::KeepEnd
        {
            return Err(SftConfigError::NothingToTruncate { packing });
        }
        Ok(self.update.schedule.check(self.update.learning_rate.get())?)
    }
}

/// The name of a packing as a run file spells it, with its quotation marks.
fn named(packing: Packing) -> String {
    serde_json::to_string(&packing).unwrap_or_else(|_| format!("{packing:?}"))
}
