//! Learning from duels of completions: online DPO, Nash-MD, XPO.

use std::{iter, num::NonZeroUsize};

use align_model::{causal_lm::TokenBatch, decoder::Decoder, train::Averaged};
use align_rl::{
    OnlineConfig, OnlinePreferenceTrainer, PolicyReference, Rewards,
    online::{Feedback, OnlineObjective},
    rollout::{PromptExample, RolloutConfig},
};
use anyhow::{Context as _, Result};

use super::{
    Around, Beside, Kit, LearnsFrom, Measured, Plan, Settings,
    preference::{measured, named},
    prompted,
    scored::{Parts, Scored, told},
};
use crate::training::report::Fact;

/// Learning from duels of completions.
#[derive(Debug)]
pub(crate) struct Online;

impl Scored for Online {
    const TITLE: &'static str = "Online preference learning";
    type Config = OnlineConfig;
    type Trainer = OnlinePreferenceTrainer<Decoder>;

    fn rollout(config: &OnlineConfig) -> &RolloutConfig {
        &config.rollout
    }

    fn reference(config: &OnlineConfig) -> Option<PolicyReference> {
        Some(config.reference)
    }

    fn trainer(config: &OnlineConfig, parts: Parts, _: &Kit<'_>) -> Result<OnlinePreferenceTrainer<Decoder>> {
        let Parts { policy, reference, rewards, tokenizer, rollout, steps } = parts;
        let reference = reference.context("online learning needs a reference")?;
        let (config, feedback) = (OnlineConfig { rollout, ..config.clone() }, Feedback::Rewards(rewards));
        Ok(OnlinePreferenceTrainer::new(policy, reference, feedback, tokenizer, &config, steps)?)
    }

    fn pass(config: &OnlineConfig, prompts: &[&PromptExample]) -> (TokenBatch, usize) {
        // Pairs of one prompt are passed over one by one, each with its prompt.
        let of_pair = learnt(&config.objective);
        let pairs = pairs_per_prompt(config).get();
        let rollout = RolloutConfig { samples: of_pair, ..config.rollout.clone() };
        let prompts: Vec<&PromptExample> =
            prompts.iter().flat_map(|prompt| iter::repeat_n(*prompt, pairs)).collect();
        prompted::pass(&rollout, config.micro_batch_size.get() * of_pair.get(), &prompts)
    }

    fn evaluate(
        _: &OnlineConfig,
        trainer: &Averaged<OnlinePreferenceTrainer<Decoder>>,
        prompts: &[PromptExample],
        kit: &Kit<'_>,
    ) -> Result<Measured> {
        let mut feedback = Feedback::Rewards(Rewards::from(kit.new_rewards()?));
        Ok(told(measured(&trainer.trainer().evaluate(&trainer.result(), prompts, &mut feedback)?)))
    }

    fn beside(
        config: &OnlineConfig,
        prompts: &[PromptExample],
        policy: &Decoder,
        _: &Kit<'_>,
    ) -> Result<Vec<Beside>> {
        // A mixture of two models keeps keys and values of both.
        let OnlineObjective::NashMd { .. } = config.objective else { return Ok(Vec::new()) };
        let sequences = config.batch_size.get() * pairs_per_prompt(config).get();
        Ok(vec![prompted::keys_and_values(&config.rollout, sequences, prompts, policy.config())])
    }

    fn facts(config: &OnlineConfig) -> Vec<Fact> {
        vec![
            Fact::new("objective", named(&config.objective)),
            Fact::new("completions of a prompt", config.rollout.samples),
        ]
    }
}

/// Completions of a pair that the policy learns from: of Nash-MD only its own.
fn learnt(objective: &OnlineObjective) -> NonZeroUsize {
    match objective {
        OnlineObjective::NashMd { .. } => NonZeroUsize::MIN,
        OnlineObjective::OnlineDpo { .. } | OnlineObjective::Xpo { .. } => {
            NonZeroUsize::MIN.saturating_add(1)
        }
    }
}

fn pairs_per_prompt(config: &OnlineConfig) -> NonZeroUsize {
    NonZeroUsize::new(config.rollout.samples.get() / 2).unwrap_or(NonZeroUsize::MIN)
}

impl Settings for OnlineConfig {
    const NAME: &'static str = "online";
    const LEARNS_FROM: LearnsFrom = LearnsFrom::Rewards;
    const LENGTH: &'static str = "rollout.max_new_tokens";

    fn check(&self) -> Result<()> {
        Ok(Self::check(self)?)
    }

    fn check_around(&self, around: Around) -> Result<()> {
        prompted::check_reference(Self::NAME, Some(self.reference), around)
    }

    /// What counts as sequences are pairs.
    fn plan(&self) -> Plan {
        Plan {
            duration: self.duration,
            batch_size: self.batch_size,
            micro_batch_size: self.micro_batch_size,
            samples: pairs_per_prompt(self),
            max_length: self.rollout.max_new_tokens,
            packing: None,
            recompute: self.recompute,
            learning_rate: self.update.learning_rate.get(),
            seed: self.seed,
        }
    }
}
