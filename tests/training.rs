//! Training on the small model of `tests/golden`: accumulation, gradients against differences, refusals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at what they did not expect")]

use std::path::PathBuf;

use align_model::{
    causal_lm::{CausalLm, TokenBatch},
    decoder::Decoder,
    logprob::{LogProbPass, Targets, TokenScores, token_log_probs},
    number::Positive,
    pretrained::Checkpoint,
    sft::{SftConfig, SftError, SftExample, SftTrainer},
    train::{Schedule, Span, Step, UpdateConfig},
};
use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, Tensor},
};

fn load(name: &str) -> Decoder {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    Checkpoint::open(&path).unwrap().load(&Device::flex().autodiff()).unwrap()
}

fn examples() -> Vec<SftExample> {
    let example = |i: u32| {
        let tokens: Vec<u32> = (0..7 + i * 5).map(|t| (t * 31 + i * 17) % 250 + 3).collect();
        let is_target = (0..tokens.len()).map(|t| t > i as usize).collect();
        SftExample { tokens, is_target }
    };
    (0..8).map(example).collect()
}

fn config(micro_batch_size: usize, learning_rate: f64) -> SftConfig {
    SftConfig {
        micro_batch_size: micro_batch_size.try_into().unwrap(),
        update: UpdateConfig {
            learning_rate: Positive::new(learning_rate),
            schedule: Schedule::Constant { warmup: Span::Steps(0) },
            ..UpdateConfig::default()
        },
        ..SftConfig::default()
    }
}

/// Every gradient, in the order of the parameters.
fn flat(model: &Decoder, gradients: &GradientsParams) -> Vec<f32> {
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
    collect.1
}

fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "entry {i}: {a} {b} (largest {largest})");
    }
}

#[test]
fn eight_passes_of_one_equal_one_pass_of_eight() {
    let step = |micro: usize| {
        let mut trainer = SftTrainer::new(load("arch_llama_bias"), &config(micro, 1e-3), 4).unwrap();
        (0..4).map(|_| trainer.step(examples().as_slice()).unwrap()).collect::<Vec<_>>()
    };
    let whole = step(8);
    for micro in [1, 3] {
        for (a, b) in step(micro).iter().zip(&whole) {
            assert!((a.loss - b.loss).abs() < 1e-5 * b.loss, "{micro}: {a:?} {b:?}");
            assert!((a.grad_norm - b.grad_norm).abs() < 1e-4 * b.grad_norm, "{micro}: {a:?} {b:?}");
            assert!((a.entropy - b.entropy).abs() < 1e-5 * b.entropy);
        }
    }
}

#[test]
fn a_model_loaded_for_inference_trains_as_well() {
    let first = |model: Decoder| {
        SftTrainer::new(model, &config(8, 1e-3), 1).unwrap().step(examples().as_slice()).unwrap()
    };
    assert_eq!(first(load("arch_llama_bias").valid()), first(load("arch_llama_bias")));
}

#[test]
fn the_same_run_twice_gives_the_same_bits() {
    let run = || {
        let mut trainer = SftTrainer::new(load("arch_llama_bias"), &config(4, 1e-3), 3).unwrap();
        (0..3).map(|_| trainer.step(examples().as_slice()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

/// A model near the given one, so that the divergence between them is neither nothing nor everything.
fn trained_a_little(model: Decoder) -> Decoder {
    let mut trainer = SftTrainer::new(model, &config(8, 3e-3), 3).unwrap();
    for _ in 0..3 {
        trainer.step(examples().as_slice()).unwrap();
    }
    trainer.into_model()
}

/// Some loss that depends on everything a pass offers.
fn any_loss(scores: &TokenScores) -> Tensor<1> {
    let log_probs = scores.log_probs.summed().powi_scalar(2).sum() * 0.01;
    let entropies = scores.entropies.clone().sum() * 0.3;
    let divergences = scores.divergences.clone().unwrap().sum() * 0.7;
    log_probs + entropies + scores.uniform_log_probs.clone().mean() * 0.2 + divergences
}

#[test]
fn gradients_in_chunks_equal_those_of_the_whole_graph() {
    let model = load("arch_qwen2_tied");
    let reference = trained_a_little(load("arch_qwen2_tied"));
    let sequences: Vec<Vec<u32>> = examples().into_iter().map(|example| example.tokens).collect();
    let batch = TokenBatch::from_sequences(&sequences);
    let targets = Targets::all(&batch);
    let pass = LogProbPass::forward(&model, &batch, &targets);
    let pass = pass.with_reference(&reference, &batch).in_chunks_of(7);
    let scores = pass.scores();
    let loss = any_loss(&scores);
    let value: f32 = loss.clone().inner().into_scalar();
    let chunked = flat(&model, &pass.backward(loss, &scores));

    let scores = whole_graph(&model, &reference, &batch, &targets);
    let loss = any_loss(&scores);
    let expected: f32 = loss.clone().inner().into_scalar();
    assert!((value - expected).abs() < 1e-4 * expected.abs(), "{value} {expected}");
    let whole = flat(&model, &GradientsParams::from_grads(loss.backward(), &model));
    assert_close(&chunked, &whole, 1e-4);
}

/// The same scores by plain operations on all logits at once.
fn whole_graph(model: &Decoder, reference: &Decoder, batch: &TokenBatch, targets: &Targets) -> TokenScores {
    use burn::tensor::activation::log_softmax;
    let device = Device::flex();
    let positions: Vec<i32> = targets.positions().iter().map(|&p| p as i32).collect();
    let positions = || Tensor::from_data(&positions[..], &device);
    let log_p = log_softmax(model.logits(model.hidden(batch)).select(0, positions()), 1);
    let log_q = log_softmax(reference.logits(reference.hidden(batch)).select(0, positions()), 1).detach();
    let tokens: Vec<i32> = targets.tokens().iter().map(|&t| t as i32).collect();
    let tokens = Tensor::<1, burn::tensor::Int>::from_data(&tokens[..], &device).unsqueeze_dim::<2>(1);
    let p = log_p.clone().exp();
    let mut scores = LogProbPass::forward(model, batch, targets).scores();
    scores.log_probs.values = log_p.clone().gather(1, tokens).squeeze_dim(1);
    scores.entropies = -(p.clone() * log_p.clone()).sum_dim(1).squeeze_dim::<1>(1);
    scores.uniform_log_probs = log_p.clone().mean_dim(1).squeeze_dim(1);
    scores.divergences = Some((p * (log_p - log_q)).sum_dim(1).squeeze_dim(1));
    scores
}

#[test]
fn scores_of_one_pass_equal_scores_without_gradients() {
    let model = load("arch_llama_bias");
    let batch = TokenBatch::from_sequences(&[vec![5, 6, 7, 8], vec![9, 10]]);
    let targets = Targets::all(&batch);
    let read = |t: Tensor<1>| t.into_data().iter::<f32>().collect::<Vec<_>>();
    let tracked = LogProbPass::forward(&model, &batch, &targets).scores().log_probs.values;
    let plain = token_log_probs(&model, &batch, &targets).values;
    assert_close(&read(tracked.inner()), &read(plain), 1e-6);
}

#[test]
fn what_cannot_be_trained_on_is_refused_and_changes_nothing() {
    let mut trainer = SftTrainer::new(load("arch_llama_bias"), &config(8, 1e-3), 2).unwrap();
    let none = SftExample { tokens: vec![3, 4], is_target: vec![true, false] };
    assert_eq!(trainer.step([none].as_slice()).unwrap_err(), SftError::NoTargets);
    let limit = trainer.model().max_positions();
    let long = SftExample { tokens: vec![3; limit + 1], is_target: vec![true; limit + 1] };
    let error = trainer.step([examples()[0].clone(), long].as_slice()).unwrap_err();
    assert_eq!(error, SftError::TooLong { index: 1, tokens: limit + 1, limit });
}

#[test]
fn a_loss_that_is_not_a_number_leaves_the_weights_alone() {
    let mut trainer = SftTrainer::new(load("arch_llama_bias"), &config(8, 1e30), 3).unwrap();
    trainer.step(examples().as_slice()).unwrap();
    let before = trainer.model().valid();
    let error = trainer.step(examples().as_slice()).unwrap_err();
    assert!(matches!(error, SftError::NotFinite { .. } | SftError::Update(_)), "{error}");
    let weight = |model: &Decoder| model.embedding.val().into_data();
    weight(&before).assert_eq(&weight(&trainer.model().valid()), true);
}
