//! Steps of learning from scores: sampling, scoring and one update.

use std::{collections::BTreeSet, error::Error};

use align_model::{
    decoder::{BaseWeights, Decoder},
    logprob::Targets,
    memory::{MemoryEstimate, Trained, TrainingSetup},
    number::Positive,
    train::{Schedule, Span, Step, UpdateConfig},
};
use align_reward::{function::each_fn, model::RewardModel, rollout::Rollout};
use align_rl::{
    GroupConfig, GroupTrainer, PpoConfig, PpoModels, PpoTrainer, Preset, Rewards, RlReport,
    critic::{Critic, value_head},
    group::Algorithm,
    ppo::RewardKl,
    rollout::{PromptExample, RolloutConfig},
};

use burn::tensor::Device;

use super::{MEBIBYTE, Measured, Options, timed, token_ids};

const GROUP: usize = 8;
const NEW_TOKENS: usize = 64;
const PROMPT: usize = 32;

/// A step of GRPO, full fine-tuning without a reference: one prompt, a group of eight completions of 64 tokens, one update.
pub(crate) fn grpo(model: Decoder, options: &Options, base: f64) -> Result<Measured, Box<dyn Error>> {
    let expected = expected(&model, options, base);
    let schedule = Schedule::Constant { warmup: Span::Steps(0) };
    let config = GroupConfig {
        rollout: rollout()?,
        batch_size: 1.try_into()?,
        micro_batch_size: GROUP.try_into()?,
        recompute: options.recompute,
        update: UpdateConfig { learning_rate: Positive::new(1e-6), schedule, ..UpdateConfig::default() },
        ..GroupConfig::of(Algorithm::preset(Preset::Dapo))
    };
    let mut trainer = GroupTrainer::new(model, None, rewards(), None, &config, 10_000)?;
    let mut measured = steps(options, |prompt| Ok(trainer.step(&[prompt])?))?;
    measured.details["expected_peak_mb"] = expected.into();
    Ok(measured)
}

/// Eight completions of 64 tokens, which nothing ends.
fn rollout() -> Result<RolloutConfig, Box<dyn Error>> {
    let (samples, max_new_tokens) = (GROUP.try_into()?, NEW_TOKENS.try_into()?);
    Ok(RolloutConfig { samples, max_new_tokens, ..RolloutConfig::default() })
}

/// As the script's: how many different tokens there are.
fn rewards() -> Rewards {
    Rewards::one(each_fn("distinct_tokens", |rollout: &Rollout| {
        let tokens = rollout.tokens.iter().flatten().collect::<BTreeSet<_>>();
        tokens.len() as f64
    }))
}

/// Times steps, each on another prompt.
fn steps(
    options: &Options,
    mut step: impl FnMut(PromptExample) -> Result<RlReport, Box<dyn Error>>,
) -> Result<Measured, Box<dyn Error>> {
    let (mut reports, mut failure, mut seed) = (Vec::new(), None, 0);
    let seconds = timed(options, || {
        seed += 1;
        let tokens = token_ids(PROMPT, seed);
        match step(PromptExample { prompt: "".into(), tokens, columns: serde_json::Map::new() }) {
            Ok(report) => reports.push(report),
            Err(error) => failure = Some(error),
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let generated: Vec<usize> =
        reports.iter().map(|report| report.rollouts.iter().map(|row| row.tokens).sum()).collect();
    let losses: Vec<f64> = reports.iter().map(RlReport::loss).collect();
    let details = serde_json::json!({ "losses": losses, "generated": generated });
    Ok(Measured { tokens: GROUP * NEW_TOKENS, seconds, details })
}

/// A step of PPO on the same completions, with a critic of its own that begins as the model: one epoch, one update of both.
pub(crate) fn ppo(model: Decoder, options: &Options) -> Result<Measured, Box<dyn Error>> {
    let head = value_head(model.config().hidden_size, &Device::flex());
    let critic = Critic::Separate(RewardModel::new(model.clone().without_head(), head));
    let schedule = Schedule::Constant { warmup: Span::Steps(0) };
    let update = UpdateConfig { learning_rate: Positive::new(1e-6), schedule, ..UpdateConfig::default() };
    let config = PpoConfig {
        rollout: rollout()?,
        batch_size: 1.try_into()?,
        micro_batch_size: GROUP.try_into()?,
        epochs: 1.try_into()?,
        kl: Some(RewardKl::Off {}),
        recompute: options.recompute,
        critic_update: update.clone(),
        update,
        ..PpoConfig::default()
    };
    let models = PpoModels { policy: model, reference: None, critic };
    let mut trainer = PpoTrainer::new(models, rewards(), None, &config, 10_000)?;
    steps(options, |prompt| Ok(trainer.step(&[prompt])?))
}

/// The peak that `align_model::memory` expects of the update, in MiB.
fn expected(model: &Decoder, options: &Options, base: f64) -> f64 {
    let setup = TrainingSetup {
        base: BaseWeights::Full,
        trained: Trained::Everything,
        recompute: options.recompute,
        compute: options.compute,
        passes: 1,
        copies: 0,
    };
    let mut batch = align_model::causal_lm::TokenBatch::default();
    batch.push_sharing(&token_ids(PROMPT, 0), &vec![token_ids(NEW_TOKENS, 0); GROUP]);
    let targets = Targets::continuations(&batch).len();
    let estimate = MemoryEstimate::of_batch(model.config(), &setup, &batch, targets);
    estimate.total((base * MEBIBYTE) as u64) as f64 / MEBIBYTE
}
