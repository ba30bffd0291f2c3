//! Why a step could not be made.

use align_model::train::UpdateError;

use crate::reference::MissingLogProbs;

/// A step could not be made. The model is as it was before.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PreferenceError {
    /// There is nothing to learn from.
    #[error("the batch has no example")]
    EmptyBatch,
    /// A completion has no token that could be predicted.
    #[error("example {index} of this batch has an empty completion: leave it out")]
    EmptyResponse {
        /// Its place in the batch.
        index: usize,
    },
    /// A third completion is learnt, and there is none.
    #[error("example {index} of this batch has no gold completion, and `objective.likelihood.of` = \"gold\"")]
    NoGold {
        /// Its place in the batch.
        index: usize,
    },
    /// A sequence is longer than the model's context.
    #[error(
        "example {index} of this batch has {tokens} tokens, the model's context {limit}: lower `max_length`"
    )]
    TooLong {
        /// Its place in the batch.
        index: usize,
        /// The length of its longest sequence.
        tokens: usize,
        /// What the model can read.
        limit: usize,
    },
    /// No other example to exchange completions with.
    #[error(
        "a group of one example has no completion of another prompt to measure `kto`'s point of reference on: let `batch_size` divide the data so that two are left, or drop the last batch"
    )]
    LonelyExample,
    /// The reference's log-probabilities are not there.
    #[error(transparent)]
    Missing(#[from] MissingLogProbs),
    /// The reference's log-probabilities of exchanged completions are not there.
    #[error(
        "the precomputed log-probabilities have nothing on a completion that `kto` exchanges within this batch: compute them for the batches of this run, `ReferenceLogProbs::ask_for_step`"
    )]
    MissingExchanged,
    /// The loss is NaN or infinite; the weights were left alone.
    #[error("the loss is {loss}: lower `learning_rate`, or look at this step's examples")]
    NotFinite {
        /// The loss.
        loss: f64,
    },
    /// The gradients are NaN or infinite; the weights were left alone.
    #[error(transparent)]
    Update(#[from] UpdateError),
}
