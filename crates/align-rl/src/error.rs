//! What can go wrong in reinforcement learning.

use align_model::{
    sft::SftConfigError,
    train::{ScheduleError, UpdateError},
};
use align_reward::function::RewardError;

use crate::{objective::ObjectiveError, rollout::RolloutError};

/// A step could not be made. The weights are as they were before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RlError {
    /// There is nothing to learn from.
    #[error("the batch is empty")]
    EmptyBatch,
    /// Completions could not be sampled.
    #[error("rollouts cannot be sampled")]
    Rollout(#[from] RolloutError),
    /// A reward failed as a whole.
    #[error("rollouts cannot be scored")]
    Reward(#[from] RewardError),
    /// A trajectory without a prompt: its first token would be predicted by nothing.
    #[error("trajectory {index} has an empty prompt: begin it with at least one token")]
    EmptyPrompt {
        /// Its place in the batch.
        index: usize,
    },
    /// Something is said of more or fewer tokens than the policy sampled.
    #[error("trajectory {index} has {actions} sampled tokens and {found} {what}")]
    Misaligned {
        /// Its place in the batch.
        index: usize,
        /// What there should be one a sampled token of.
        what: &'static str,
        /// Tokens that the policy sampled.
        actions: usize,
        /// How many there are.
        found: usize,
    },
    /// An advantage or a log-probability is NaN or infinite.
    #[error("trajectory {index} has a number among its {what} that is not finite")]
    NotANumber {
        /// Its place in the batch.
        index: usize,
        /// What it is one of.
        what: &'static str,
    },
    /// A sequence is longer than the model's context.
    #[error("trajectory {index} has {tokens} tokens, the model's context {limit}")]
    TooLong {
        /// Its place in the batch.
        index: usize,
        /// Its length, prompt included.
        tokens: usize,
        /// What the model can read.
        limit: usize,
    },
    /// No trajectory has a token that counts.
    #[error("none of {trajectories} trajectories has a sampled token that counts")]
    NothingToLearn {
        /// How many there are.
        trajectories: usize,
    },
    /// No rollout has a score, so that nothing says what was good.
    #[error("none of {rollouts} rollouts has both a score and a token: look at why they are unscored")]
    NothingScored {
        /// How many there are.
        rollouts: usize,
    },
    /// The critic says something that is no number.
    #[error(
        "the critic values a state at {value}: its weights have overflowed, go back to an earlier checkpoint and lower `critic_update.learning_rate`"
    )]
    Value {
        /// What it says.
        value: f64,
    },
    /// The critic's loss is NaN or infinite; the weights of both models were left alone.
    #[error(
        "the critic's loss is {loss}: lower `critic_update.learning_rate`, or clip scores by `rewards.clip`"
    )]
    ValueLoss {
        /// The loss.
        loss: f64,
    },
    /// The loss is NaN or infinite; the weights were left alone.
    #[error("the loss is {loss}: lower `learning_rate`, or look at this step's rollouts")]
    NotFinite {
        /// The loss.
        loss: f64,
    },
    /// The gradients are NaN or infinite; the weights were left alone.
    #[error(transparent)]
    Update(#[from] UpdateError),
}

/// A combination of settings makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RlConfigError {
    /// A pass larger than a step.
    #[error("`micro_batch_size` = {micro} is larger than the {batch} rollouts of an update")]
    MicroBatchTooLarge {
        /// `micro_batch_size`
        micro: usize,
        /// Rollouts an update.
        batch: usize,
    },
    /// More updates than prompts.
    #[error(
        "`mini_batches` = {mini_batches} is more than `batch_size` = {batch}: an update has at least one prompt"
    )]
    TooManyMiniBatches {
        /// `mini_batches`
        mini_batches: usize,
        /// `batch_size`
        batch: usize,
    },
    /// The schedule does not fit the rate.
    #[error("update.schedule: {0}")]
    Schedule(#[from] ScheduleError),
    /// Parts of the objective do not go together.
    #[error("algorithm.objective: {0}")]
    Objective(#[from] ObjectiveError),
    /// What imitates completions cannot be set up.
    #[error(transparent)]
    Imitation(#[from] SftConfigError),
    /// A setting that contradicts another, or that nothing would look at.
    #[error("`{key}` {problem}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A critic with another number of labels than one.
    #[error("the critic's head has {labels} labels: a value is one number")]
    CriticLabels {
        /// Its labels.
        labels: usize,
    },
    /// The settings ask for a reference model and the trainer was given none.
    #[error("the settings ask for a reference model, and the trainer was given none")]
    MissingReference,
    /// The trainer was given a reference model that nothing would look at.
    #[error(
        "the trainer was given a reference model, and the settings have no use for one: leave it out, or give a `kl`"
    )]
    NeedlessReferenceModel,
}
