//! Learning from completions of one prompt that are compared with each other: GRPO and its relatives.

use align_model::decoder::Decoder;
use align_rl::{GroupConfig, GroupTrainer, PolicyReference, rollout::RolloutConfig};
use anyhow::Result;

use super::{
    Around, Kit, LearnsFrom, Plan, Settings,
    preference::named,
    prompted,
    scored::{Parts, Scored},
};
use crate::training::report::Fact;

/// Learning from groups of completions.
#[derive(Debug)]
pub(crate) struct Grpo;

impl Scored for Grpo {
    const TITLE: &'static str = "Learning from groups of completions";
    type Config = GroupConfig;
    type Trainer = GroupTrainer<Decoder>;

    fn rollout(config: &GroupConfig) -> &RolloutConfig {
        &config.rollout
    }

    fn reference(config: &GroupConfig) -> Option<PolicyReference> {
        config.reference_policy()
    }

    fn trainer(config: &GroupConfig, parts: Parts, _: &Kit<'_>) -> Result<GroupTrainer<Decoder>> {
        let Parts { policy, reference, rewards, tokenizer, rollout, steps } = parts;
        let config = GroupConfig { rollout, ..config.clone() };
        Ok(GroupTrainer::new(policy, reference, rewards, tokenizer, &config, steps)?)
    }

    fn facts(config: &GroupConfig) -> Vec<Fact> {
        vec![
            Fact::new("objective", named(&config.algorithm.objective)),
            Fact::new("advantages", named(&config.algorithm.advantages)),
            Fact::new("completions of a prompt", config.rollout.samples),
        ]
    }
}

impl Settings for GroupConfig {
    const NAME: &'static str = "grpo";
    const LEARNS_FROM: LearnsFrom = LearnsFrom::Rewards;
    const LENGTH: &'static str = "rollout.max_new_tokens";

    fn check(&self) -> Result<()> {
        Ok(Self::check(self)?)
    }

    fn check_around(&self, around: Around) -> Result<()> {
        prompted::check_reference(Self::NAME, self.reference_policy(), around)
    }

    fn plan(&self) -> Plan {
        Plan {
            duration: self.duration,
            batch_size: self.prompts_per_step(),
            micro_batch_size: self.micro_batch_size,
            samples: self.rollout.samples,
            max_length: self.rollout.max_new_tokens,
            packing: None,
            recompute: self.recompute,
            learning_rate: self.update.learning_rate.get(),
            seed: self.seed,
        }
    }
}
