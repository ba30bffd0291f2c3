//! Why a step could not be made.

use align_model::train::UpdateError;

/// A step of a reward model's training could not be made. The weights were left alone.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RewardTrainingError {
    /// There are no examples.
    #[error("a step needs at least one example")]
    NoExamples,
    /// The trainer was made for other data.
    #[error(
        "this step's examples are {found}, the objective learns from {expected}: change `objective.kind`"
    )]
    OtherData {
        /// What was given.
        found: &'static str,
        /// What the objective needs.
        expected: &'static str,
    },
    /// A response has no token, so that the score would be one of the prompt.
    #[error("example {index} of this batch: response {response} is empty: leave the example out")]
    EmptyResponse {
        /// The example's place in the batch.
        index: usize,
        /// The response's place in the example; a pair's chosen one is 0.
        response: usize,
    },
    /// A sequence is longer than the model's context.
    #[error(
        "example {index} of this batch has {tokens} tokens, the model's context {limit}: lower `max_length`"
    )]
    TooLong {
        /// The example's place in the batch.
        index: usize,
        /// Tokens of its longest sequence.
        tokens: usize,
        /// What the model can read.
        limit: usize,
    },
    /// Some pairs have a margin and some have none.
    #[error(
        "{with} pairs of this batch have a margin, example {without} has none: give every pair one, or set `margins` = \
         \"ignore\""
    )]
    MissingMargin {
        /// Pairs that have one.
        with: usize,
        /// The first pair without.
        without: usize,
    },
    /// A ranking of fewer than two responses.
    #[error("example {index} of this batch ranks {responses} responses, at least 2 are needed: leave it out")]
    TooFewResponses {
        /// The example's place in the batch.
        index: usize,
        /// How many it has.
        responses: usize,
    },
    /// Ratings of another number of attributes than the head has labels.
    #[error("example {index} of this batch has {found} ratings, the head {labels} labels")]
    Ratings {
        /// The example's place in the batch.
        index: usize,
        /// Ratings that it has.
        found: usize,
        /// What the head has.
        labels: usize,
    },
    /// An example that nothing is known of.
    #[error("example {index} of this batch has neither rating nor label: leave it out")]
    Unlabelled {
        /// The example's place in the batch.
        index: usize,
    },
    /// A number that the loss cannot take.
    #[error("example {index} of this batch: {what} is {value}, expected {expected}")]
    Value {
        /// The example's place in the batch.
        index: usize,
        /// What it is.
        what: &'static str,
        /// What it says.
        value: f64,
        /// What it may be.
        expected: String,
    },
    /// The loss is NaN or infinite.
    #[error("the loss is {loss}: lower `learning_rate`, or look at this step's samples")]
    NotFinite {
        /// The loss.
        loss: f64,
    },
    /// The gradients are NaN or infinite.
    #[error(transparent)]
    Update(#[from] UpdateError),
}
