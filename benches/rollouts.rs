//! Steps of learning from scores: sampling, scoring and one update.

use std::error::Error;

use align_model::{
    decoder::{BaseWeights, Decoder},
    logprob::Targets,
    memory::{MemoryEstimate, Trained, TrainingSetup},
    number::Positive,
    train::{Schedule, Span, Step, UpdateConfig},
};
use align_reward::function::each_fn;
use align_rl::{Algorithm, GroupConfig, GroupTrainer, Preset, PromptExample, Rewards, RolloutConfig};

use super::{MEBIBYTE, Measured, Options, timed, token_ids};

const GROUP: usize = 8;
const NEW_TOKENS: usize = 64;
const PROMPT: usize = 32;

/// A step of GRPO, full fine-tuning without a reference: one prompt, a group of eight completions of 64 tokens, one update.
pub(crate) fn grpo(model: Decoder, options: &Options, base: f64) -> Result<Measured, Box<dyn Error>> {
    let expected = expected(&model, options, base);
    let schedule = Schedule::Constant { warmup: Span::Steps(0) };
    let config = GroupConfig {
        rollout: RolloutConfig {
            samples: GROUP.try_into()?,
            max_new_tokens: NEW_TOKENS.try_into()?,
            ..RolloutConfig::default()
        },
        batch_size: 1.try_into()?,
        micro_batch_size: GROUP.try_into()?,
        recompute: options.recompute,
        update: UpdateConfig { learning_rate: Positive::new(1e-6), schedule, ..UpdateConfig::default() },
        ..GroupConfig::of(Algorithm::preset(Preset::Dapo))
    };
    // As the script's: how many different tokens there are.
    let distinct = each_fn("distinct_tokens", |rollout| {
        let tokens = rollout.tokens.iter().flatten().collect::<std::collections::BTreeSet<_>>();
        tokens.len() as f64
    });
    let mut trainer = GroupTrainer::new(model, None, Rewards::one(distinct), None, &config, 10_000)?;
    let (mut losses, mut generated, mut failure, mut seed) = (Vec::new(), 0, None, 0);
    let seconds = timed(options, || {
        seed += 1;
        let tokens = token_ids(PROMPT, seed);
        let prompt = PromptExample { prompt: "".into(), tokens, columns: serde_json::Map::new() };
        match trainer.step(&[prompt]) {
            Ok(report) => {
                losses.push(report.loss());
                generated = report.rollouts.iter().map(|row| row.tokens).sum();
            }
            Err(error) => failure = Some(error),
        }
    });
    if let Some(error) = failure {
        return Err(error.into());
    }
    let details = serde_json::json!({ "losses": losses, "generated": generated, "expected_peak_mb": expected });
    Ok(Measured { tokens: GROUP * NEW_TOKENS, seconds, details })
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
