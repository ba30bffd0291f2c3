//! Learning from completions whose every token is compared with what a critic expects: PPO.

use std::path::Path;

use align_model::{
    causal_lm::TokenBatch, data::PromptRecord, decoder::Decoder, memory::parameters, train::Averaged,
};
use align_reward::model::RewardModel;
use align_rl::{
    PpoConfig, PpoModels, PpoTrainer, RlReport,
    critic::{Critic, value_head},
    rollout::PromptExample,
    watch::GoldEvaluation,
};
use anyhow::{Context as _, Result};

use super::{
    Around, Beside, Kit, LearnsFrom, Lesson, Measured, Method, News, Plan, Settings, Texts, Tokenize,
    preference::named, reward_models::RewardModelFiles, scored,
};
use crate::{
    run_file::{CriticTable, rewards::RewardsTable},
    training::report::Fact,
};

/// Learning from completions with a critic.
#[derive(Debug)]
pub(crate) struct Ppo;

impl Method for Ppo {
    const TITLE: &'static str = "Proximal policy optimisation";
    type Config = PpoConfig;
    type Record = PromptRecord;
    type Example = PromptExample;
    type Row = PromptExample;
    type Model = Decoder;
    type Trainer = PpoTrainer<Decoder>;

    fn tokenize<'a>(config: &'a PpoConfig, texts: Texts<'a>) -> Tokenize<'a, Self> {
        Box::new(scored::tokenize(&config.rollout, texts))
    }

    fn rows(_: &PpoConfig, examples: &[PromptExample]) -> Vec<PromptExample> {
        examples.to_vec()
    }

    fn tokens(row: &PromptExample) -> usize {
        row.tokens.len()
    }

    fn pass(config: &PpoConfig, rows: &[&PromptExample]) -> (TokenBatch, usize) {
        scored::pass(&config.rollout, config.micro_batch_size.get(), rows)
    }

    fn copies(config: &PpoConfig) -> usize {
        scored::copies(config.reference_policy())
    }

    fn beside(
        config: &PpoConfig,
        examples: &[PromptExample],
        model: &Decoder,
        kit: &Kit<'_>,
    ) -> Result<Vec<Beside>> {
        let sequences = config.batch_size.get() * config.rollout.samples.get();
        let mut beside = scored::beside(&config.rollout, sequences, examples, model, kit)?;
        beside.push(Beside { name: "critic", bytes: critic_bytes(model, kit)? });
        Ok(beside)
    }

    fn trainer(
        config: &PpoConfig,
        model: Decoder,
        lesson: Lesson<'_, PromptExample>,
    ) -> Result<PpoTrainer<Decoder>> {
        let kit = &lesson.kit;
        let config = PpoConfig { rollout: scored::ending(&config.rollout, kit), ..config.clone() };
        let reference = scored::reference(config.reference_policy(), &model);
        let fresh = || value_head(model.config().hidden_size, kit.start.device);
        let critic = match kit.critic {
            Some(CriticTable::RewardModel { from }) => Critic::Separate(load_critic(from, kit)?),
            Some(CriticTable::Shared) => Critic::Shared(fresh()),
            Some(CriticTable::Policy) | None => {
                Critic::Separate(RewardModel::new(model.clone().without_head(), fresh()))
            }
        };
        let (rewards, tokenizer) = (kit.training_rewards()?, Some(kit.tokenizer.clone()));
        let models = PpoModels { policy: model, reference, critic };
        Ok(PpoTrainer::new(models, rewards, tokenizer, &config, lesson.steps)?)
    }

    fn evaluate(
        config: &PpoConfig,
        trainer: &Averaged<PpoTrainer<Decoder>>,
        examples: &[PromptExample],
        kit: &Kit<'_>,
    ) -> Result<Measured> {
        scored::evaluate(&config.rollout, config.seed, &trainer.result(), examples, kit)
    }

    fn gold(
        config: &PpoConfig,
        models: [&Decoder; 2],
        examples: &[PromptExample],
        gold: &RewardsTable,
        kit: &Kit<'_>,
    ) -> Result<GoldEvaluation> {
        scored::gold(&config.rollout, config.seed, models, (examples, gold), kit)
    }

    fn news(report: &RlReport) -> News<'_> {
        News { rollouts: &report.rollouts, alarms: &report.alarms }
    }

    fn check_examples(_: &PpoConfig, examples: &[PromptExample], kit: &Kit<'_>) -> Result<()> {
        if let Some(CriticTable::RewardModel { from }) = kit.critic {
            RewardModelFiles::open(from).context("critic.from")?;
        }
        scored::check_rewards(examples, kit)
    }

    fn tried(
        config: &PpoConfig,
        policy: &Decoder,
        examples: &[PromptExample],
        kit: &Kit<'_>,
    ) -> Result<Vec<String>> {
        scored::tried(&config.rollout, config.seed, policy, examples, kit)
    }

    fn facts(config: &PpoConfig) -> Vec<Fact> {
        let reference = config.reference_policy().map(|policy| Fact::new("reference", named(&policy)));
        std::iter::once(Fact::new("objective", named(&config.objective))).chain(reference).collect()
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
        scored::check_reference(Self::NAME, self.reference_policy(), around)
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
