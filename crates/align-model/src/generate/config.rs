//! The settings of a generation.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use super::SamplingConfig;

/// How sequences are continued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationConfig {
    /// Tokens a sequence, at most.
    pub max_new_tokens: NonZeroUsize,
    /// How each token is chosen.
    pub sampling: SamplingConfig,
    /// Continuations of each prompt; the prompt is computed once.
    pub samples: NonZeroUsize,
    /// Sequences that are computed together, at most; the samples of one prompt always are.
    pub batch_size: NonZeroUsize,
    /// What ends a sequence before its last token.
    pub stop: StopAt,
    /// Seed of the sampling; the same seed gives the same tokens, however prompts are batched.
    pub seed: u64,
    /// Whether generations say which tokens the filters left at each position. A trainer that scores sampled tokens under
    /// the distribution that they were drawn from needs it; with loose filters it takes room.
    pub keep_supports: bool,
}

/// What ends a sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopAt {
    /// Any of these tokens; it is kept as the last one.
    pub tokens: Vec<u32>,
    /// Any of these texts, wherever it begins and ends among the tokens.
    pub strings: Vec<String>,
}

const ONE: NonZeroUsize = NonZeroUsize::MIN;
const MANY: NonZeroUsize = ONE.saturating_add(63);
const LENGTH: NonZeroUsize = ONE.saturating_add(255);

impl Default for GenerationConfig {
    /// 256 tokens, sampled from the model's own distribution, one a prompt, 64 prompts at a time.
    fn default() -> Self {
        Self {
            max_new_tokens: LENGTH,
            sampling: SamplingConfig::default(),
            samples: ONE,
            batch_size: MANY,
            stop: StopAt::default(),
            seed: 0,
            keep_supports: false,
        }
    }
}
