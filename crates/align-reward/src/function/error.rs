//! Why a reward could not score.

use std::time::Duration;

/// A reward failed as a whole; a single rollout that cannot be scored is no error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewardError {
    /// It returned too few or too many scores.
    #[error("reward `{function}` returned {found} scores for {expected} rollouts")]
    WrongCount {
        /// The reward's name.
        function: String,
        /// How many rollouts there are.
        expected: usize,
        /// How many scores came.
        found: usize,
    },
    /// It panicked.
    #[error("reward `{function}` panicked: {message}")]
    Panicked {
        /// The reward's name.
        function: String,
        /// What the panic said.
        message: String,
    },
    /// It took too long.
    #[error("reward `{function}` took longer than {limit:?}")]
    Deadline {
        /// The reward's name.
        function: String,
        /// How long it was given.
        limit: Duration,
    },
    /// It could not do its work.
    #[error("reward `{function}` failed: {reason}")]
    Failed {
        /// The reward's name.
        function: String,
        /// Why.
        reason: String,
    },
    /// A saved state does not fit.
    #[error("cannot restore the state of reward `{function}`: {reason}")]
    State {
        /// The reward's name.
        function: String,
        /// Why not.
        reason: String,
    },
    /// A program could not be run.
    #[error("reward `{function}` cannot {action} `{program}`")]
    Command {
        /// The reward's name.
        function: String,
        /// What was being done.
        action: &'static str,
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// An endpoint gave no usable answer.
    #[error("reward `{function}` got no scores from {url}: {reason}")]
    Endpoint {
        /// The reward's name.
        function: String,
        /// The endpoint's address.
        url: String,
        /// What came instead, and after how many attempts.
        reason: String,
    },
}
