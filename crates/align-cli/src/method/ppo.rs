//! Learning from completions whose every token is compared with what a critic expects: PPO.

use std::path::Path;

use align_model::{decoder::Decoder, memory::parameters};
use align_reward::model::RewardModel;
use align_rl::{
    PolicyReference, PpoConfig, PpoModels, PpoTrainer,
    critic::{Critic, value_head},
    rollout::{PromptExample, RolloutConfig},
};
use anyhow::{Context as _, Result};

use super::{
    Around, Beside, Kit, LearnsFrom, Plan, Settings,
    preference::named,
    prompted,
    reward_models::RewardModelFiles,
    scored::{Parts, Scored},
};
use crate::{run_file::CriticTable, training::report::Fact};

/// Learning from completions with a critic.
#[derive(Debug)]
pub(crate) struct Ppo;

impl Scored for Ppo {
    const TITLE: &'static str = "Proximal policy optimisation";
    type Config = PpoConfig;
    type Trainer = PpoTrainer<Decoder>;

    fn rollout(config: &PpoConfig) -> &RolloutConfig {
        &config.rollout
    }

    fn reference(config: &PpoConfig) -> Option<PolicyReference> {
        config.reference_policy()
    }

    fn trainer(config: &PpoConfig, parts: Parts, kit: &Kit<'_>) -> Result<PpoTrainer<Decoder>> {
        let Parts { policy, reference, rewards, tokenizer, rollout, steps } = parts;
        let config = PpoConfig { rollout, ..config.clone() };
        let fresh = || value_head(policy.config().hidden_size, kit.start.device);
        let critic = match kit.critic {
            Some(CriticTable::RewardModel { from }) => Critic::Separate(load_critic(from, kit)?),
            Some(CriticTable::Shared) => Critic::Shared(fresh()),
            Some(CriticTable::Policy) | None => {
                Critic::Separate(RewardModel::new(policy.clone().without_head(), fresh()))
            }
        };
        let models = PpoModels { policy, reference, critic };
        Ok(PpoTrainer::new(models, rewards, tokenizer, &config, steps)?)
    }

    fn beside(_: &PpoConfig, _: &[PromptExample], policy: &Decoder, kit: &Kit<'_>) -> Result<Vec<Beside>> {
        Ok(vec![Beside { name: "critic", bytes: critic_bytes(policy, kit)? }])
    }

    fn check_models(kit: &Kit<'_>) -> Result<()> {
        if let Some(CriticTable::RewardModel { from }) = kit.critic {
            RewardModelFiles::open(from).context("critic.from")?;
        }
        Ok(())
    }

    fn facts(config: &PpoConfig) -> Vec<Fact> {
        vec![Fact::new("objective", named(&config.objective))]
    }
}

/// Weights, gradients and moments of the critic; its activations come and go when the policy's are not there.
fn critic_bytes(policy: &Decoder, kit: &Kit<'_>) -> Result<u64> {
    let trained = match kit.critic {
        Some(CriticTable::RewardModel { from }) => {
            parameters(RewardModelFiles::open(from)?.checkpoint.architecture().config())
        }
        Some(CriticTable::Shared) => 0,
        _ if policy.adapter_config().is_some() => policy.adapter_parameters().trained_count,
        _ => parameters(policy.config()),
    };
    Ok(4 * 4 * trained as u64)
}

/// A reward model that is to become a critic.
fn load_critic(path: &Path, kit: &Kit<'_>) -> Result<RewardModel<Decoder>> {
    let loaded = RewardModelFiles::open(path)?.load(kit.start.device);
    loaded.with_context(|| format!("critic.from: cannot load the reward model {}", path.display()))
}

impl Settings for PpoConfig {
    const NAME: &'static str = "ppo";
    const LEARNS_FROM: LearnsFrom = LearnsFrom::RewardsAndValues;
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
            batch_size: self.batch_size,
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
