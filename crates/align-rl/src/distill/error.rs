//! Why a step of distillation could not be made.

use align_model::train::UpdateError;

use crate::rollout::{RolloutError, WhyLeftOut};

/// A step could not be made. The weights are as they were before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistillationError {
    /// There is nothing to learn from.
    #[error("the batch is empty")]
    EmptyBatch,
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
    /// A step was to learn from the data, which has no completion there.
    #[error(
        "example {index} of this batch has no completion: add one, or set `on_policy` = 1 or `off_policy` = \"teacher\""
    )]
    MissingCompletion {
        /// Its place in the batch.
        index: usize,
    },
    /// A completion has no prompt, so that nothing predicts its first token.
    #[error("example {index} of this batch has an empty prompt: begin it with at least one token")]
    EmptyPrompt {
        /// Its place in the batch.
        index: usize,
    },
    /// A sequence is longer than one of the contexts.
    #[error(
        "a prompt and its completion have {tokens} tokens, the {whose} context {limit}: shorten prompts, or lower \
         `rollout.max_new_tokens`"
    )]
    TooLong {
        /// The length of both.
        tokens: usize,
        /// Whose context.
        whose: &'static str,
        /// What that model can read.
        limit: usize,
    },
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
