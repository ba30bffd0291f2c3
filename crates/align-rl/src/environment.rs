//! Conversations of many turns: environments, tools, and how a policy is sampled in them.
//!
//! An [`Environment`] is one conversation, used once. The policy speaks, the environment answers, and so on until one of
//! them ends it or a budget does. Everything stays one sequence of tokens that only grows: what the policy sampled is kept
//! as it was sampled, and what the environment said is the text that the chat template puts between two turns, tokenised
//! alone.
//!
//! ```text
//! prompt │ turn 1 │ tool output │ turn 2 │ tool output │ turn 3
//!        │ action │      –      │ action │      –      │ action
//! ```

mod calls;
mod config;
mod episode;
mod sample;
mod toolbox;
mod transcript;

use align_model::chat::Message;
use align_reward::score::Score;
pub use calls::{MalformedCall, ToolCall, ToolCallFormat, Turn};
pub use config::EpisodeConfig;
pub use episode::{Episode, EpisodeCounts, EpisodeEnd, Episodes};
pub use sample::{EpisodeError, Member, sample_episodes};
use serde_json::{Map, Value};
pub use toolbox::{Tool, Toolbox};
pub use transcript::{ConversationTokenizer, TranscriptError};

/// One conversation, from its first message to its end.
///
/// It cannot be set back: a policy that is to try again gets a new one.
pub trait Environment {
    /// What is said before the policy's first turn.
    fn opening(&self) -> Vec<Message>;

    /// The functions that the policy is told it may call, as its chat template wants them described.
    fn tools(&self) -> &[Value] {
        &[]
    }

    /// What a reward may know besides the conversation, such as the right answer.
    fn columns(&self) -> Map<String, Value> {
        Map::new()
    }

    /// Answers a turn of the policy. Turns with calls that cannot be read are answered without asking the environment.
    ///
    /// # Errors
    /// The reason why the conversation cannot go on; it ends, and has no score. A call that fails is no such reason: it
    /// is answered with what went wrong.
    fn respond(&mut self, turn: &Turn) -> Result<Reply, String>;
}

/// What an environment makes of a turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The policy speaks again after these messages.
    Continue(Vec<Message>),
    /// The conversation is over.
    Done {
        /// What it was worth, where the environment knows.
        score: Option<Score>,
    },
}

impl<E: Environment + ?Sized> Environment for Box<E> {
    fn opening(&self) -> Vec<Message> {
        (**self).opening()
    }

    fn tools(&self) -> &[Value] {
        (**self).tools()
    }

    fn columns(&self) -> Map<String, Value> {
        (**self).columns()
    }

    fn respond(&mut self, turn: &Turn) -> Result<Reply, String> {
        (**self).respond(turn)
    }
}
