//! A small model and made-up examples.

use std::path::PathBuf;

use align_dpo::{DpoConfig, DpoTrainer, KtoConfig, Objective, PreferenceReport, Reference};
use align_model::{
    causal_lm::{CausalLm, HiddenPass, LogitsPass, PassOptions, TokenBatch},
    checkpoint::{Resumable, State},
    decoder::Decoder,
    number::Positive,
    preference::{PreferenceExample, UnpairedExample},
    pretrained::Checkpoint,
    train::{Report, Schedule, Span, Step, UpdateConfig},
};
use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, Tensor},
};

pub(crate) fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

pub(crate) fn load() -> Decoder {
    Checkpoint::open(&golden("arch_llama_bias")).unwrap().load(&Device::flex().autodiff()).unwrap()
}

/// The same model without its gift for shared prompts.
#[derive(Module, Debug)]
pub(crate) struct Separate {
    inner: Decoder,
}

impl Separate {
    pub(crate) fn new(inner: Decoder) -> Self {
        Self { inner }
    }
}

impl CausalLm for Separate {
    fn hidden(&self, batch: &TokenBatch) -> Tensor<2> {
        assert!(!batch.shares_prompts());
        self.inner.hidden(batch)
    }

    fn training_pass<'a>(&'a self, batch: &'a TokenBatch, options: PassOptions) -> HiddenPass<'a> {
        assert!(!batch.shares_prompts());
        self.inner.training_pass(batch, options)
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.inner.logits(hidden)
    }

    fn training_logits(&self, hidden: Tensor<2>) -> LogitsPass<'_> {
        self.inner.training_logits(hidden)
    }

    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    fn max_positions(&self) -> usize {
        self.inner.max_positions()
    }

    fn device(&self) -> Device {
        self.inner.device()
    }
}

fn tokens(seed: u32, count: u32) -> Vec<u32> {
    (0..count).map(|t| (t * 31 + seed * 17 + t * t * seed) % 250 + 3).collect()
}

pub(crate) fn pairs(count: u32) -> Vec<PreferenceExample> {
    let pair = |i: u32| PreferenceExample {
        prompt: tokens(i, 3 + i * 2),
        chosen: tokens(i + 50, 2 + i * 3 % 7),
        rejected: tokens(i + 90, 5 + i * 5 % 6),
        gold: Some(tokens(i + 130, 3 + i * 2 % 5)),
        margin: None,
        slice: Some(if i.is_multiple_of(2) { "even" } else { "odd" }.into()),
    };
    (0..count).map(pair).collect()
}

pub(crate) fn judged(count: u32) -> Vec<UnpairedExample> {
    let [even, odd]: [Vec<_>; 2] = pairs(count).into_iter().map(PreferenceExample::unpair).fold(
        [vec![], vec![]],
        |[mut a, mut b], [x, y]| {
            a.push(x);
            b.push(y);
            [a, b]
        },
    );
    even.into_iter().zip(odd).enumerate().map(|(i, (x, y))| if i % 3 == 0 { y } else { x }).collect()
}

fn update(learning_rate: f64) -> UpdateConfig {
    UpdateConfig {
        learning_rate: Positive::new(learning_rate),
        schedule: Schedule::Constant { warmup: Span::Steps(0) },
        ..UpdateConfig::default()
    }
}

pub(crate) fn config(objective: Objective, micro_batch_size: usize) -> DpoConfig {
    let micro_batch_size = micro_batch_size.try_into().unwrap();
    DpoConfig { micro_batch_size, update: update(1e-3), ..DpoConfig::of(objective) }
}

pub(crate) fn kto(micro_batch_size: usize) -> KtoConfig {
    let micro_batch_size = micro_batch_size.try_into().unwrap();
    KtoConfig { micro_batch_size, update: update(1e-3), ..KtoConfig::default() }
}

/// A model that is its own reference, or has none where none is needed.
pub(crate) fn reference<M: CausalLm>(model: &M, config: &DpoConfig) -> Reference<M> {
    config.reference_policy().map_or(Reference::Nothing, |_| Reference::Model(model.valid()))
}

/// A trainer a few steps away from its reference.
pub(crate) fn under_way(config: &DpoConfig) -> DpoTrainer<Decoder> {
    let model = load();
    let reference = reference(&model, config);
    let mut trainer = DpoTrainer::new(model, reference, config, 8).unwrap();
    for _ in 0..2 {
        trainer.step(pairs(4).as_slice()).unwrap();
    }
    trainer
}

/// Every gradient, in the order of the parameters.
pub(crate) fn flat<M: Module>(model: &M, gradients: &GradientsParams) -> Vec<f32> {
    struct Collect<'a>(&'a GradientsParams, Vec<f32>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.get::<D>(param.id) {
                self.1.extend(gradient.into_data().iter::<f32>());
            }
        }
    }
    let mut collect = Collect(gradients, Vec::new());
    model.visit(&mut collect);
    assert!(!collect.1.is_empty());
    collect.1
}

pub(crate) fn assert_close(what: &str, a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len(), "{what}");
    let largest = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    assert!(largest > 0.0, "{what}: nothing to compare");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "{what}, entry {i}: {a} {b} (largest {largest})");
    }
}

/// Metrics that agree up to rounding.
pub(crate) fn assert_same_report(what: &str, a: &PreferenceReport, b: &PreferenceReport) {
    let (a, b) = (a.metrics(), b.metrics());
    assert_eq!(a.len(), b.len(), "{what}");
    for ((name, a), (_, b)) in a.iter().zip(&b) {
        assert!((a - b).abs() <= 2e-5 * b.abs() + 2e-6, "{what}, {name}: {a} {b}");
    }
}

/// What `trainer` knows, taken up by `other`.
pub(crate) fn hand_over<T: Resumable>(trainer: &T, other: &mut T) {
    let mut state = State::new();
    trainer.save(&mut state).unwrap();
    other.restore(&mut state).unwrap();
    state.finish().unwrap();
}
