//! The settings of episodes.

use std::num::NonZeroUsize;

use align_model::generate::{Decoding, StopAt};
use serde::{Deserialize, Serialize};

use super::ToolCallFormat;
use crate::rollout::RolloutConfig;

/// How a policy is sampled in environments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EpisodeConfig {
    /// Turns of the policy, at most.
    pub max_turns: NonZeroUsize,
    /// Tokens a turn, at most.
    pub max_turn_tokens: NonZeroUsize,
    /// Tokens that follow the opening, at most: what the policy says and what it is told.
    pub max_tokens: NonZeroUsize,
    /// How tool calls are written.
    pub tool_calls: ToolCallFormat,
    /// How each token is chosen.
    pub decoding: Decoding,
    /// What ends a turn: the end-of-turn tokens of the model.
    pub stop: StopAt,
    /// Conversations that are continued together, at most.
    pub batch_size: NonZeroUsize,
}

impl Default for EpisodeConfig {
    /// 8 turns of up to 512 tokens, 2048 together; Hermes' tool calls; 64 conversations at a time.
    fn default() -> Self {
        let one = NonZeroUsize::MIN;
        let RolloutConfig { max_new_tokens, decoding, stop, batch_size, .. } = RolloutConfig::default();
        Self {
            max_turns: one.saturating_add(7),
            max_turn_tokens: max_new_tokens,
            max_tokens: one.saturating_add(2047),
            tool_calls: ToolCallFormat::default(),
            decoding,
            stop,
            batch_size,
        }
    }
}

impl EpisodeConfig {
    /// How one turn is sampled.
    pub(super) fn turn(&self) -> RolloutConfig {
        RolloutConfig {
            samples: NonZeroUsize::MIN,
            max_new_tokens: self.max_turn_tokens,
            decoding: self.decoding.clone(),
            stop: self.stop.clone(),
            batch_size: self.batch_size,
            prompt_limit: None,
        }
    }
}
