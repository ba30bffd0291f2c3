//! Steps of preference training on pairs whose completions share a prompt.

use std::{error::Error, path::Path};

use align_dpo::{DpoConfig, DpoTrainer, Reference};
use align_model::{
    causal_lm::TokenBatch,
    decoder::{BaseWeights, Decoder, DecoderConfig},
    logprob::Targets,
    memory::{MemoryEstimate, Trained, TrainingSetup},
    number::Positive,
    preference::PreferenceExample,
    pretrained::{Checkpoint, ClassifierKind},
    train::{Schedule, Span, Step, UpdateConfig},
};
use align_reward::{
    model::{RewardModel, ScoreHead},
    trainer::{RewardConfig, RewardTrainer},
};
use burn::tensor::Device;

use super::{MEBIBYTE, Measured, Options, timed, token_ids};

/// Prompt, chosen and rejected tokens of each pair: 800 tokens, a prompt counted once.
const PAIRS: [(usize, usize, usize); 2] = [(64, 32, 160), (192, 256, 96)];

fn pairs() -> Vec<PreferenceExample> {
    let pair = |(index, &(prompt, chosen, rejected)): (u32, &(usize, usize, usize))| PreferenceExample {
        prompt: token_ids(prompt, 3 * index),
        chosen: token_ids(chosen, 3 * index + 1),
        rejected: token_ids(rejected, 3 * index + 2),
        gold: None,
        margin: None,
        slice: None,
    };
    (0u32..).zip(&PAIRS).map(pair).collect()
}

/// A step of DPO against a frozen copy of the model.
pub(crate) fn dpo(model: Decoder, options: &Options, base: f64) -> Result<Measured, Box<dyn Error>> {
    let config = DpoConfig { recompute: options.recompute, update: update(), ..DpoConfig::default() };
    let expected = expected(model.config(), options, base, 1);
    let mut trainer = DpoTrainer::new(model.clone(), Reference::Model(model), &config, 10_000)?;
    steps(options, expected, |pairs| Ok(trainer.step(pairs)?.loss()))
}

/// A step of training a reward model, whose head has the weights that `pytorch/reward.py` gives it.
pub(crate) fn reward(options: &Options, base: f64) -> Result<Measured, Box<dyn Error>> {
    let device = Device::flex();
    let backbone = Checkpoint::open(Path::new(&options.model))?.load_backbone(&device)?;
    let backbone = backbone.with_compute_dtype(options.compute)?;
    let expected = expected(backbone.config(), options, base, 0);
    let hidden = backbone.config().hidden_size;
    let weights = (0..hidden).map(|index| ((index * 37 % 101) as f32 - 50.0) / 1000.0).collect();
    let head = ScoreHead::from_values(ClassifierKind::Sequence, [1, hidden], weights, None, &device);
    let config = RewardConfig { recompute: options.recompute, update: update(), ..RewardConfig::default() };
    let mut trainer = RewardTrainer::new(RewardModel::new(backbone, head), &config, 10_000)?;
    steps(options, expected, |pairs| Ok(trainer.step(pairs)?.loss))
}

fn update() -> UpdateConfig {
    let schedule = Schedule::Constant { warmup: Span::Steps(0) };
    UpdateConfig { learning_rate: Positive::new(1e-6), schedule, ..UpdateConfig::default() }
}

/// The peak that `align_model::memory` expects, in MiB.
fn expected(config: &DecoderConfig, options: &Options, base: f64, copies: usize) -> f64 {
    let setup = TrainingSetup {
        base: BaseWeights::Full,
        trained: Trained::Everything,
        recompute: options.recompute,
        compute: options.compute,
        passes: 1,
        copies,
    };
    let mut batch = TokenBatch::default();
    for pair in pairs() {
        batch.push_sharing(&pair.prompt, &[pair.chosen, pair.rejected]);
    }
    let targets = Targets::continuations(&batch).len();
    let estimate = MemoryEstimate::of_batch(config, &setup, &batch, targets);
    estimate.total((base * MEBIBYTE) as u64) as f64 / MEBIBYTE
}

fn steps(
    options: &Options,
    expected: f64,
    mut step: impl FnMut(&[PreferenceExample]) -> Result<f64, Box<dyn Error>>,
) -> Result<Measured, Box<dyn Error>> {
    let (pairs, mut losses, mut failure) = (pairs(), Vec::new(), None);
    let seconds = timed(options, || match step(&pairs) {
        Ok(loss) => losses.push(loss),
        Err(error) => failure = Some(error),
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let tokens = pairs.iter().map(|pair| pair.prompt.len() + pair.chosen.len() + pair.rejected.len()).sum();
    Ok(Measured {
        tokens,
        seconds,
        details: serde_json::json!({ "losses": losses, "expected_peak_mb": expected }),
    })
}
