//! The settings of rollouts.

use std::num::NonZeroUsize;

use align_model::{
    generate::{Decoding, GenerationConfig, SamplingConfig, StopAt},
    number::Positive,
};
use serde::{Deserialize, Serialize};

/// How a policy continues prompts.
///
/// There are no penalties for repetition here: they change the distribution by what was said before, and a policy that
/// is trained on such samples is credited with choices that were not its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutConfig {
    /// Completions of each prompt, which make a group.
    pub samples: NonZeroUsize,
    /// Tokens a completion, at most.
    pub max_new_tokens: NonZeroUsize,
    /// How each token is chosen. What temperature and filters do to the distribution is kept with the samples.
    pub decoding: Decoding,
    /// What ends a completion before its last token.
    pub stop: StopAt,
    /// Sequences that are computed together, at most; the samples of one prompt always are.
    pub batch_size: NonZeroUsize,
    /// How long prompts may be, if less than the model's context allows.
    pub prompt_limit: Option<PromptLimit>,
}

/// How long prompts may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptLimit {
    /// Tokens a prompt, at most.
    pub tokens: NonZeroUsize,
    /// What becomes of longer ones.
    #[serde(default)]
    pub on_too_long: LongPrompt,
}

/// What becomes of a prompt that is longer than allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongPrompt {
    /// It is left out and counted.
    #[default]
    LeaveOut,
    /// Only its end is kept, and it is counted.
    KeepEnd,
}

const ONE: NonZeroUsize = NonZeroUsize::MIN;

impl Default for RolloutConfig {
    /// TRL's: groups of 8, up to 512 tokens from the policy's own distribution; 64 sequences at a time.
    fn default() -> Self {
        Self {
            samples: ONE.saturating_add(7),
            max_new_tokens: ONE.saturating_add(511),
            decoding: Decoding::default(),
            stop: StopAt::default(),
            batch_size: ONE.saturating_add(63),
            prompt_limit: None,
        }
    }
}

impl RolloutConfig {
    /// The temperature that actions were drawn with, and are to be scored with: 1 for greedy decoding.
    #[must_use]
    pub fn temperature(&self) -> Positive {
        match &self.decoding {
            Decoding::Greedy => Positive::new(1.0),
            Decoding::Sample(sampling) => sampling.temperature,
        }
    }

    /// Whether anything but the temperature changes the distribution.
    pub(crate) fn filters(&self) -> bool {
        match &self.decoding {
            Decoding::Greedy => false,
            Decoding::Sample(sampling) => {
                let plain = align_model::generate::Sampling {
                    temperature: sampling.temperature,
                    ..align_model::generate::Sampling::default()
                };
                *sampling != plain
            }
        }
    }

    /// The settings of a generation with this seed.
    pub(crate) fn generation(&self, seed: u64) -> GenerationConfig {
        GenerationConfig {
            max_new_tokens: self.max_new_tokens,
            sampling: SamplingConfig { decoding: self.decoding.clone(), ..SamplingConfig::default() },
            samples: self.samples,
            batch_size: self.batch_size,
            stop: self.stop.clone(),
            seed,
            keep_supports: self.filters(),
        }
    }
}

#[cfg(test)]
mod tests {
    use align_model::generate::Sampling;

    use super::*;

    #[test]
    fn only_filters_need_supports() {
        let config = |text: &str| toml::from_str::<RolloutConfig>(text).unwrap();
        assert!(!config("").filters());
        let tempered = config("decoding = { kind = \"sample\", temperature = 0.7 }");
        assert!(!tempered.filters());
        assert!((tempered.temperature().get() - 0.7).abs() < 1e-12);
        let filtered = config("decoding = { kind = \"sample\", top_p = 0.9 }");
        assert!(filtered.filters() && filtered.generation(1).keep_supports);
        let greedy = RolloutConfig { decoding: Decoding::Greedy, ..RolloutConfig::default() };
        assert!(!greedy.filters());
        assert_eq!(config("samples = 4").decoding, Decoding::Sample(Sampling::default()));
        assert!(toml::from_str::<RolloutConfig>("repetition_penalty = 1.1").is_err());
    }
}
