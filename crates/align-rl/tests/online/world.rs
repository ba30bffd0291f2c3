//! A small model, prompts, and what tests ask of trainers.

use std::path::PathBuf;

use align_model::{
    checkpoint::{Resumable, State},
    decoder::Decoder,
    number::Positive,
    pretrained::Checkpoint,
    train::{Schedule, Span, Step, UpdateConfig},
};
use align_reward::rollout::{Prompt, Rollout};
use align_rl::{
    RlReport,
    rollout::{PromptExample, RolloutConfig},
};
use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Tensor},
};
use serde_json::Map;

pub(crate) fn load(name: &str) -> Decoder {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name);
    Checkpoint::open(&path).unwrap().load(&Device::flex().autodiff()).unwrap()
}

pub(crate) fn policy() -> Decoder {
    load("arch_llama_bias")
}

pub(crate) fn prompt(tokens: &[u32]) -> PromptExample {
    PromptExample {
        prompt: Prompt::Text(format!("{tokens:?}")),
        tokens: tokens.to_vec(),
        columns: Map::new(),
    }
}

pub(crate) fn prompts(count: u32) -> Vec<PromptExample> {
    (0..count)
        .map(|i| prompt(&(0..3 + i % 4).map(|t| (t * 31 + i * 17) % 250 + 3).collect::<Vec<_>>()))
        .collect()
}

pub(crate) fn rollout(samples: usize, max_new_tokens: usize) -> RolloutConfig {
    RolloutConfig {
        samples: samples.try_into().unwrap(),
        max_new_tokens: max_new_tokens.try_into().unwrap(),
        ..RolloutConfig::default()
    }
}

pub(crate) fn update(learning_rate: f64) -> UpdateConfig {
    UpdateConfig {
        learning_rate: Positive::new(learning_rate),
        schedule: Schedule::Constant { warmup: Span::Steps(0) },
        ..UpdateConfig::default()
    }
}

/// Share of a completion's tokens that are below 64, of 256.
pub(crate) fn smallness(rollout: &Rollout) -> f64 {
    let tokens = rollout.tokens.as_ref().unwrap();
    tokens.iter().filter(|&&token| token < 64).count() as f64 / tokens.len() as f64
}

/// Every weight, in the order of the parameters.
pub(crate) fn weights<M: Module>(model: &M) -> Vec<f32> {
    struct Collect(Vec<f32>);
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend(param.val().into_data().iter::<f32>());
        }
    }
    let mut collect = Collect(Vec::new());
    model.visit(&mut collect);
    collect.0
}

#[track_caller]
pub(crate) fn assert_same_metrics(a: &RlReport, b: &RlReport) {
    assert_eq!(a.metrics.len(), b.metrics.len());
    for ((name, a), (_, b)) in a.metrics.iter().zip(&b.metrics) {
        assert!((a - b).abs() <= 2e-5 * b.abs() + 2e-6, "{name}: {a} {b}");
    }
}

/// Six steps are three steps, saved, restored into another trainer and gone on with, to the bit.
pub(crate) fn assert_resumes<T, B>(
    new: impl Fn() -> T,
    batches: &[Vec<B>],
    weights_of: impl Fn(&T) -> Vec<f32>,
) where
    T: Step<[B], Report = RlReport> + Resumable,
    T::Error: std::fmt::Debug,
{
    let mut whole = new();
    let reports: Vec<RlReport> = batches.iter().map(|batch| whole.step(batch).unwrap()).collect();
    let mut first = new();
    let half = batches.len() / 2;
    for batch in &batches[..half] {
        first.step(batch).unwrap();
    }
    let mut state = State::new();
    first.save(&mut state).unwrap();
    let mut second = new();
    second.restore(&mut state).unwrap();
    state.finish().unwrap();
    for (batch, expected) in batches[half..].iter().zip(&reports[half..]) {
        assert_eq!(&second.step(batch).unwrap(), expected);
    }
    let bits = |trainer: &T| weights_of(trainer).into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(&second), bits(&whole));
    assert_ne!(bits(&whole), bits(&new()), "something was learnt");
}
