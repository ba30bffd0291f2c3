//! A small model that writes numbers, and prompts for it.

use std::path::PathBuf;

use align_model::{
    checkpoint::{Resumable, State},
    decoder::Decoder,
    generate::StopAt,
    number::Positive,
    pretrained::Checkpoint,
    train::{Schedule, Span, UpdateConfig},
};
use align_reward::{function::each_fn, rollout::Rollout};
use align_rl::{
    GroupConfig, GroupTrainer, Preset, Rewards,
    group::Algorithm,
    rollout::{PromptExample, RolloutConfig},
};
use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, Tensor},
};

pub(crate) fn load() -> Decoder {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tiny/model");
    Checkpoint::open(&path).unwrap().load(&Device::flex().autodiff()).unwrap()
}

/// Prompts of different lengths.
pub(crate) fn prompts(count: u32) -> Vec<PromptExample> {
    let prompt = |index: u32| PromptExample {
        prompt: format!("prompt {index}").into(),
        tokens: (0..3 + index % 3).map(|t| 64 + (t * 31 + index * 17) % 400).collect(),
        columns: serde_json::Map::new(),
    };
    (0..count).map(prompt).collect()
}

/// Every eighth token ends a completion, so that lengths differ.
pub(crate) fn config(preset: Preset) -> GroupConfig {
    GroupConfig {
        algorithm: Algorithm::preset(preset),
        rollout: RolloutConfig {
            samples: 4.try_into().unwrap(),
            max_new_tokens: 12.try_into().unwrap(),
            stop: StopAt { tokens: (0..64).collect(), strings: Vec::new() },
            ..RolloutConfig::default()
        },
        batch_size: 4.try_into().unwrap(),
        update: update(3e-3),
        ..GroupConfig::default()
    }
}

pub(crate) fn update(learning_rate: f64) -> UpdateConfig {
    UpdateConfig {
        learning_rate: Positive::new(learning_rate),
        schedule: Schedule::Constant { warmup: Span::Steps(0) },
        ..UpdateConfig::default()
    }
}

/// The share of even tokens.
pub(crate) fn evenness() -> Rewards {
    Rewards::one(each_fn("even", |rollout: &Rollout| {
        let tokens = rollout.tokens.as_deref().unwrap();
        tokens.iter().filter(|&token| token % 2 == 0).count() as f64 / tokens.len() as f64
    }))
}

pub(crate) fn trainer(config: &GroupConfig, rewards: Rewards) -> GroupTrainer<Decoder> {
    let model = load();
    let reference = config.reference_policy().map(|_| model.valid());
    GroupTrainer::new(model, reference, rewards, None, config, 100).unwrap()
}

/// Every weight, or every gradient, in the order of the parameters.
pub(crate) fn flat(model: &Decoder, gradients: Option<&GradientsParams>) -> Vec<f32> {
    struct Collect<'a>(Option<&'a GradientsParams>, Vec<f32>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = match self.0 {
                Some(gradients) => gradients.get::<D>(param.id),
                None => Some(param.val().inner()),
            };
            self.1.extend(
                values.into_iter().flat_map(|values| values.into_data().iter::<f32>().collect::<Vec<_>>()),
            );
        }
    }
    let mut collect = Collect(gradients, Vec::new());
    model.visit(&mut collect);
    collect.1
}

/// A trainer in the state of another.
pub(crate) fn restored(
    from: &GroupTrainer<Decoder>,
    mut into: GroupTrainer<Decoder>,
) -> GroupTrainer<Decoder> {
    let mut state = State::new();
    from.save(&mut state).unwrap();
    into.restore(&mut state).unwrap();
    state.finish().unwrap();
    into
}
