//! Imitating the best of one's own completions: rejection sampling, RAFT.

use std::{iter, num::NonZeroUsize};

use align_model::{causal_lm::TokenBatch, decoder::Decoder};
use align_reward::best_of_n::Keep;
use align_rl::{
    RejectionSamplingConfig, RejectionSamplingTrainer,
    rollout::{PromptExample, RolloutConfig},
};
use anyhow::Result;

use super::{
    Kit, LearnsFrom, Plan, Settings,
    preference::named,
    prompted,
    scored::{Parts, Scored},
};
use crate::training::report::Fact;

/// Imitating the best of one's own completions.
#[derive(Debug)]
pub(crate) struct Raft;

impl Scored for Raft {
    const TITLE: &'static str = "Rejection sampling";
    type Config = RejectionSamplingConfig;
    type Trainer = RejectionSamplingTrainer<Decoder>;

    fn rollout(config: &RejectionSamplingConfig) -> &RolloutConfig {
        &config.rollout
    }

    fn trainer(
        config: &RejectionSamplingConfig,
        parts: Parts,
        _: &Kit<'_>,
    ) -> Result<RejectionSamplingTrainer<Decoder>> {
        let Parts { policy, rewards, tokenizer, rollout, steps, .. } = parts;
        let config = RejectionSamplingConfig { rollout, ..config.clone() };
        Ok(RejectionSamplingTrainer::new(policy, rewards, tokenizer, &config, steps)?)
    }

    fn pass(config: &RejectionSamplingConfig, prompts: &[&PromptExample]) -> (TokenBatch, usize) {
        // A completion that is imitated stands by itself, with its prompt.
        let alone = RolloutConfig { samples: NonZeroUsize::MIN, ..config.rollout.clone() };
        let kept = kept(config).get();
        let prompts: Vec<&PromptExample> =
            prompts.iter().flat_map(|prompt| iter::repeat_n(*prompt, kept)).collect();
        prompted::pass(&alone, config.micro_batch_size.get(), &prompts)
    }

    fn facts(config: &RejectionSamplingConfig) -> Vec<Fact> {
        vec![
            Fact::new("imitated", named(&config.keep)),
            Fact::new("completions of a prompt", config.rollout.samples),
        ]
    }
}

/// Completions of a prompt that are imitated, at most.
fn kept(config: &RejectionSamplingConfig) -> NonZeroUsize {
    match config.keep {
        Keep::BestOfGroup { count } => count.min(config.rollout.samples),
        Keep::AtLeast { .. } | Keep::BestFraction { .. } => config.rollout.samples,
    }
}

impl Settings for RejectionSamplingConfig {
    const NAME: &'static str = "raft";
    const LEARNS_FROM: LearnsFrom = LearnsFrom::Rewards;
    const LENGTH: &'static str = "rollout.max_new_tokens";

    fn check(&self) -> Result<()> {
        Ok(Self::check(self)?)
    }

    fn plan(&self) -> Plan {
        Plan {
            duration: self.duration,
            batch_size: self.batch_size,
            micro_batch_size: self.micro_batch_size,
            samples: kept(self),
            max_length: self.rollout.max_new_tokens,
            packing: None,
            recompute: self.recompute,
            learning_rate: self.update.learning_rate.get(),
            seed: self.seed,
        }
    }
}
