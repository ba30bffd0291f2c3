//! What became of conversations.

use align_reward::score::Score;
use serde::{Deserialize, Serialize};

use crate::rollout::{LeftOutPrompt, Sampled};

/// One conversation, finished.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Episode {
    /// Its tokens, and what they say: the rollout's prompt is everything before the policy's last turn, its completion is
    /// that turn.
    pub sampled: Sampled,
    /// What the environment says it was worth.
    pub score: Option<Score>,
    /// Why it ended.
    pub end: EpisodeEnd,
    /// Turns of the policy.
    pub turns: usize,
    /// Calls that could be read.
    pub calls: usize,
    /// Calls that could not be read; each was answered with what is wrong with it.
    pub malformed_calls: usize,
}

/// Why a conversation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EpisodeEnd {
    /// The environment said so.
    Done,
    /// The policy had no turns left.
    Turns,
    /// There was no room for more tokens: within a turn, or for what would have followed it.
    Tokens,
    /// The environment failed. There is no score.
    Failed {
        /// What it said.
        reason: String,
    },
}

/// What became of some environments.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Episodes {
    /// The conversations, in the environments' order.
    pub episodes: Vec<Episode>,
    /// Environments whose opening left the policy nothing to say, in order.
    pub left_out: Vec<LeftOutPrompt>,
}

/// Numbers about conversations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpisodeCounts {
    /// Conversations.
    pub episodes: usize,
    /// Turns of the policy.
    pub turns: usize,
    /// Tokens that the policy sampled.
    pub actions: usize,
    /// Tokens that it was told after the opening.
    pub observed: usize,
    /// Calls that could be read.
    pub calls: usize,
    /// Calls that could not be read.
    pub malformed_calls: usize,
    /// Conversations that ended for want of turns or tokens.
    pub truncated: usize,
    /// Conversations whose environment failed.
    pub failed: usize,
    /// Environments whose opening left the policy nothing to say.
    pub left_out: usize,
}

impl Episodes {
    /// Numbers about them.
    #[must_use]
    pub fn counts(&self) -> EpisodeCounts {
        let mut counts = EpisodeCounts {
            episodes: self.episodes.len(),
            left_out: self.left_out.len(),
            ..EpisodeCounts::default()
        };
        for episode in &self.episodes {
            let trajectory = &episode.sampled.trajectory;
            counts.turns += episode.turns;
            counts.actions += trajectory.actions();
            counts.observed += trajectory.tokens.len() - trajectory.actions();
            counts.calls += episode.calls;
            counts.malformed_calls += episode.malformed_calls;
            match episode.end {
                EpisodeEnd::Done => {}
                EpisodeEnd::Turns | EpisodeEnd::Tokens => counts.truncated += 1,
                EpisodeEnd::Failed { .. } => counts.failed += 1,
            }
        }
        counts
    }
}
