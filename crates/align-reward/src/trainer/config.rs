//! The settings of reward modelling.

use std::num::{NonZeroU64, NonZeroUsize};

use align_model::{
    causal_lm::Recompute,
    number::{Positive, UnitInterval},
    sft::Duration,
    train::{ScheduleError, UpdateConfig},
};
use serde::{Deserialize, Serialize};

/// Everything that training a reward model needs to be repeated, but the model and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardConfig {
    /// What is learnt, from what kind of data.
    pub objective: RewardObjective,
    /// How long the run is.
    pub duration: Duration,
    /// Examples an optimiser step. transformers: 8.
    pub batch_size: NonZeroUsize,
    /// Examples a forward pass; fewer need less memory and change nothing else.
    pub micro_batch_size: NonZeroUsize,
    /// What is computed twice to save memory; changes nothing else.
    pub recompute: Recompute,
    /// Tokens of a prompt with its response, at most; longer examples are left out. TRL: 1024.
    pub max_length: NonZeroUsize,
    /// Learning rate (TRL: 1e-4), schedule, optimiser, clipping.
    pub update: UpdateConfig,
    /// Seed of the order of samples and of a fresh head.
    pub seed: u64,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            objective: RewardObjective::default(),
            duration: THREE_EPOCHS,
            batch_size: EIGHT,
            micro_batch_size: EIGHT,
            recompute: Recompute::default(),
            max_length: MAX_LENGTH,
            update: UpdateConfig { learning_rate: Positive::new(1e-4), ..UpdateConfig::default() },
            seed: 42,
        }
    }
}

pub(super) const THREE_EPOCHS: Duration = Duration::Epochs(Positive::new(3.0));
pub(super) const EIGHT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);
pub(super) const MAX_LENGTH: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// What a reward model learns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RewardObjective {
    /// Of two responses the better one: [`bradley_terry_loss`](crate::loss::bradley_terry_loss).
    Pairs {
        /// Weight of [`centering_loss`](crate::loss::centering_loss); the paper's is 0.01. TRL: none.
        #[serde(default)]
        center_rewards_coefficient: Option<Positive>,
        /// Share of labels taken to be wrong; none unless given.
        #[serde(default = "no_smoothing")]
        label_smoothing: UnitInterval,
        /// What becomes of margins in the data.
        #[serde(default)]
        margins: Margins,
    },
    /// The order of several responses: [`plackett_luce_loss`](crate::loss::plackett_luce_loss).
    Ranked {},
    /// Ratings, one for each label of the head.
    Regression {
        /// How distances count.
        #[serde(default)]
        loss: RatingLoss,
    },
    /// Grades: [`cumulative_logit_loss`](crate::loss::cumulative_logit_loss), with thresholds that are learnt.
    Ordinal {
        /// How many there are; at least 2.
        grades: NonZeroU64,
    },
}

impl Default for RewardObjective {
    fn default() -> Self {
        Self::Pairs {
            center_rewards_coefficient: None,
            label_smoothing: no_smoothing(),
            margins: Margins::default(),
        }
    }
}

fn no_smoothing() -> UnitInterval {
    UnitInterval::new(0.0)
}

impl RewardObjective {
    /// What its data are called, for messages.
    #[must_use]
    pub fn data(self) -> &'static str {
        match self {
            Self::Pairs { .. } => "pairs",
            Self::Ranked {} => "rankings",
            Self::Regression { .. } => "ratings",
            Self::Ordinal { .. } => "grades",
        }
    }
}

/// What becomes of margins in the data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Margins {
    /// They are part of the loss. Either all pairs of a step have one or none has. What TRL does.
    #[default]
    Use,
    /// They are left alone.
    Ignore,
}

/// How the distance of a score from a rating counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RatingLoss {
    /// [`squared_error_loss`](crate::loss::squared_error_loss)
    #[default]
    SquaredError,
    /// [`binary_cross_entropy_loss`](crate::loss::binary_cross_entropy_loss); ratings are from 0 to 1.
    BinaryCrossEntropy,
}

/// A combination of settings makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RewardConfigError {
    /// A pass larger than a step.
    #[error("`micro_batch_size` = {micro} is larger than `batch_size` = {batch}")]
    MicroBatchTooLarge {
        /// `micro_batch_size`
        micro: usize,
        /// `batch_size`
        batch: usize,
    },
    /// One grade divides nothing.
    #[error("`objective.grades` = {grades}: there are at least 2")]
    TooFewGrades {
        /// `objective.grades`
        grades: u64,
    },
    /// The head has another number of labels than the objective reads.
    #[error("the head has {found} labels, {data} are learnt with {expected}: make a model with as many")]
    Labels {
        /// What the data are called.
        data: &'static str,
        /// What the head has.
        found: usize,
        /// What it should have.
        expected: usize,
    },
    /// The head divides its score into another number of grades.
    #[error("the head has {found} grades, `objective.grades` = {expected}")]
    Grades {
        /// What the head has.
        found: usize,
        /// `objective.grades`
        expected: usize,
    },
    /// The schedule does not fit the rate.
    #[error("update.schedule: {0}")]
    Schedule(#[from] ScheduleError),
}

impl RewardConfig {
    /// Checks the relations between settings; single values were checked when they were parsed.
    ///
    /// # Errors
    /// Names the settings and the values they have.
    pub fn check(&self) -> Result<(), RewardConfigError> {
        let (micro, batch) = (self.micro_batch_size.get(), self.batch_size.get());
        if micro > batch {
            return Err(RewardConfigError::MicroBatchTooLarge { micro, batch });
        }
        if let RewardObjective::Ordinal { grades } = self.objective
            && grades.get() < 2
        {
            return Err(RewardConfigError::TooFewGrades { grades: grades.get() });
        }
        Ok(self.update.schedule.check(self.update.learning_rate.get())?)
    }
}
