//! Why a step of online preference learning could not be made.

use align_model::{sft::SftError, train::UpdateError};
use align_reward::{function::RewardError, judge::JudgeError};

use crate::rollout::{RolloutError, WhyLeftOut};

/// A step could not be made. The weights are as they were before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnlineError {
    /// There is nothing to learn from.
    #[error("the batch is empty")]
    EmptyBatch,
    /// The models do not speak of the same tokens.
    #[error("the policy knows {expected} tokens and its reference {found}: they need the same vocabulary")]
    OtherVocabulary {
        /// Tokens of the policy.
        expected: usize,
        /// Tokens of the other model.
        found: usize,
    },
    /// Completions could not be sampled.
    #[error("completions cannot be sampled")]
    Rollout(#[from] RolloutError),
    /// No prompt has any completion.
    #[error("none of {prompts} prompts could be continued, the first because {why}")]
    NothingWritten {
        /// How many there are.
        prompts: usize,
        /// What is wrong with the first.
        why: WhyLeftOut,
    },
    /// The judge failed as a whole.
    #[error("completions cannot be judged")]
    Judge(#[from] JudgeError),
    /// A reward failed as a whole.
    #[error("completions cannot be scored")]
    Reward(#[from] RewardError),
    /// The judge or the rewards had nothing to say of anything, which is no accident.
    #[error("none of {pairs} pairs was judged, the first because: {reason}")]
    NothingJudged {
        /// How many there are.
        pairs: usize,
        /// What was said of the first.
        reason: String,
    },
    /// The rewards had nothing to say of anything, which is no accident.
    #[error("none of {completions} completions was scored, the first because: {reason}")]
    NothingScored {
        /// How many there are.
        completions: usize,
        /// What was said of the first.
        reason: String,
    },
    /// What was kept could not be imitated.
    #[error("the completions that were kept cannot be imitated")]
    Imitation(#[from] SftError),
    /// The loss is NaN or infinite; the weights were left alone.
    #[error("the loss is {loss}: lower `learning_rate`, or look at this step's completions")]
    NotFinite {
        /// The loss.
        loss: f64,
    },
    /// The gradients are NaN or infinite; the weights were left alone.
    #[error(transparent)]
    Update(#[from] UpdateError),
}
