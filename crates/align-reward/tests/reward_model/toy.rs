//! A small random decoder with a head, and data for it.

use std::path::Path;

use align_model::{
    causal_lm::{CausalLm, HiddenPass, PassOptions, TokenBatch},
    decoder::Decoder,
    number::{Positive, UnitInterval},
    preference::PreferenceExample,
    pretrained::{Architecture, ClassifierKind},
    train::{Schedule, UpdateConfig},
};
use align_reward::{
    model::{RewardModel, ScoreHead},
    trainer::{GradedExample, Margins, RankedExample, RatedExample, RewardConfig, RewardObjective},
};
use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Tensor},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use serde_json::{Value, json};

pub(crate) const CONTEXT: usize = 24;

pub(crate) fn config_json() -> Value {
    json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 40, "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "initializer_range": 0.2, "tie_word_embeddings": true,
    })
}

pub(crate) fn decoder() -> Decoder {
    let architecture = Architecture::from_json(Path::new("config.json"), config_json()).unwrap();
    architecture.random(&mut ChaCha8Rng::seed_from_u64(5), &Device::flex()).without_head()
}

pub(crate) fn head(kind: ClassifierKind, labels: usize) -> ScoreHead {
    ScoreHead::random(kind, [labels, 16], 0.2, &mut ChaCha8Rng::seed_from_u64(9), &Device::flex())
}

pub(crate) fn model(labels: usize) -> RewardModel<Decoder> {
    RewardModel::new(decoder(), head(ClassifierKind::Sequence, labels))
}

/// The same decoder, every sequence of which has to be laid out whole.
#[derive(Module, Debug)]
pub(crate) struct Whole {
    pub(crate) decoder: Decoder,
}

impl CausalLm for Whole {
    fn hidden(&self, batch: &TokenBatch) -> Tensor<2> {
        assert!(!batch.shares_prompts(), "this model knows of no shared prompts");
        self.decoder.hidden(batch)
    }

    fn training_pass<'a>(&'a self, batch: &'a TokenBatch, options: PassOptions) -> HiddenPass<'a> {
        assert!(!batch.shares_prompts(), "this model knows of no shared prompts");
        self.decoder.training_pass(batch, options)
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.decoder.logits(hidden)
    }

    fn vocab_size(&self) -> usize {
        self.decoder.vocab_size()
    }

    fn max_positions(&self) -> usize {
        self.decoder.max_positions()
    }

    fn device(&self) -> Device {
        self.decoder.device()
    }
}

/// Some tokens; other numbers give others.
pub(crate) fn tokens(length: usize, which: usize) -> Vec<u32> {
    (0..length).map(|t| ((t * 7 + which * 11 + t * t * which) % 37 + 3) as u32).collect()
}

pub(crate) fn config(objective: RewardObjective, micro_batch_size: usize) -> RewardConfig {
    RewardConfig {
        objective,
        batch_size: 4.try_into().unwrap(),
        micro_batch_size: micro_batch_size.try_into().unwrap(),
        update: UpdateConfig {
            learning_rate: Positive::new(1e-2),
            schedule: Schedule::default(),
            ..UpdateConfig::default()
        },
        ..RewardConfig::default()
    }
}

pub(crate) fn centred_pairs() -> RewardObjective {
    RewardObjective::Pairs {
        center_rewards_coefficient: Some(Positive::new(0.05)),
        label_smoothing: UnitInterval::new(0.1),
        margins: Margins::Use,
    }
}

/// Four pairs of unequal lengths; the chosen response ends in an even token, the rejected in an odd one.
pub(crate) fn pairs() -> Vec<PreferenceExample> {
    (0..4)
        .map(|i| PreferenceExample {
            prompt: tokens(3 + 2 * i, i),
            chosen: [tokens(1 + i, i + 5), vec![4 + 2 * i as u32]].concat(),
            rejected: [tokens(4 - i, i + 9), vec![5 + 2 * i as u32]].concat(),
            gold: None,
            margin: Some(0.25 * i as f32),
            slice: Some(if i < 3 { "helpful".into() } else { "harmless".into() }),
        })
        .collect()
}

pub(crate) fn rankings() -> Vec<RankedExample> {
    let responses = |i: usize| (0..2 + i % 3).map(|k| tokens(1 + k, 3 * i + k)).collect();
    (0..4).map(|i| RankedExample { prompt: tokens(4, i), responses: responses(i) }).collect()
}

pub(crate) fn ratings() -> Vec<RatedExample> {
    (0..4)
        .map(|i| RatedExample {
            prompt: tokens(2 + i, i),
            response: tokens(3, i + 4),
            ratings: vec![Some(0.25 * i as f32), (i % 2 == 0).then_some(0.5)],
        })
        .collect()
}

pub(crate) fn grades() -> Vec<GradedExample> {
    (0..4)
        .map(|i| GradedExample { prompt: tokens(2 + i, i), response: tokens(3, i + 4), grade: i % 3 })
        .collect()
}

/// All parameters of a module, in its order.
pub(crate) fn parameters<M: Module>(model: &M) -> Vec<f32> {
    struct Collect(Vec<f32>);
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            self.0.extend(parameter.val().into_data().iter::<f32>());
        }
    }
    let mut collect = Collect(Vec::new());
    model.visit(&mut collect);
    collect.0
}

pub(crate) fn assert_close(one: &[f32], other: &[f32], tolerance: f32) {
    assert_eq!(one.len(), other.len());
    let largest = one.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    for (index, (a, b)) in one.iter().zip(other).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "{index}: {a} and {b}, the largest is {largest}");
    }
}
