//! Training on the small model of `tests/golden`: accumulation, gradients against differences, refusals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at what they did not expect")]

use std::path::PathBuf;

use align_model::{
    causal_lm::{CausalLm, HiddenPass, PassOptions, Recompute, TokenBatch},
    decoder::{ComputeDtype, Decoder},
    logprob::{LogProbPass, Targets, TokenScores, token_log_probs},
    number::Positive,
    pretrained::{Architecture, Checkpoint},
    sft::{SftConfig, SftError, SftExample, SftTrainer},
    train::{Schedule, Span, Step, UpdateConfig},
};
use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

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

/// Models that differ in everything that a block can differ in.
const FAMILIES: [&str; 7] = [
    "arch_llama_bias",
    "arch_gpt2",
    "arch_gemma3_text",
    "arch_gpt_neox",
    "arch_mistral_sliding",
    "arch_qwen2_tied",
    "arch_qwen3",
];

/// Hidden states and gradients of a pass, for a loss whose gradient with respect to the hidden states is their cosine.
fn hidden_and_gradients(model: &Decoder, pass: HiddenPass<'_>) -> (Vec<f32>, Vec<f32>) {
    let hidden = pass.hidden();
    let mut gradients = GradientsParams::new();
    pass.backward(hidden.clone().cos(), &mut gradients);
    (hidden.into_data().iter().collect(), flat(model, &gradients))
}

fn ragged_batch() -> TokenBatch {
    let sequence = |length: u32| (0..length).map(|t| (t * 37 + length) % 250 + 3).collect::<Vec<_>>();
    TokenBatch::from_sequences(&[sequence(5), sequence(40), sequence(40), sequence(1), sequence(127)])
}

#[test]
fn what_is_recomputed_changes_no_gradient() {
    for name in FAMILIES {
        let (model, batch) = (load(name), ragged_batch());
        let run = |recompute| {
            let pass = model.training_pass(&batch, PassOptions { recompute, dropout: None });
            hidden_and_gradients(&model, pass)
        };
        let (hidden, gradients) =
            hidden_and_gradients(&model, HiddenPass::keeping_graph(&model, model.hidden(&batch)));
        for recompute in [Recompute::Nothing, Recompute::Attention, Recompute::Layers] {
            let (again, of_pass) = run(recompute);
            assert_close(&again, &hidden, 2e-6);
            assert_close(&of_pass, &gradients, 2e-6);
            assert_eq!(of_pass, run(Recompute::Nothing).1, "{name} {recompute:?}: not the same bits");
        }
    }
}

/// Sequences that attention cuts into several blocks of queries, with and without a window.
#[test]
fn gradients_of_long_sequences_are_those_of_the_whole_graph() {
    for (name, edit) in [("arch_llama_bias", None), ("arch_mistral_sliding", Some(300))] {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let json = std::fs::read_to_string(directory.join("config.json")).unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["max_position_embeddings"] = 1024.into();
        if let Some(window) = edit {
            json["sliding_window"] = window.into();
        }
        let architecture = Architecture::from_json(&directory, json).unwrap();
        let model = architecture.random(&mut ChaCha8Rng::seed_from_u64(5), &Device::flex().autodiff());
        let sequence = |length: u32| (0..length).map(|t| (t * 37 + length) % 250 + 3).collect::<Vec<_>>();
        let batch = TokenBatch::from_sequences(&[sequence(600), sequence(3), sequence(257)]);
        let whole = hidden_and_gradients(&model, HiddenPass::keeping_graph(&model, model.hidden(&batch)));
        for recompute in [Recompute::Nothing, Recompute::Attention, Recompute::Layers] {
            let pass = model.training_pass(&batch, PassOptions { recompute, dropout: None });
            let (hidden, gradients) = hidden_and_gradients(&model, pass);
            assert_close(&hidden, &whole.0, 3e-6);
            assert_close(&gradients, &whole.1, 3e-6);
        }
    }
}

/// Freezes every parameter but those whose path ends as one of `trained` does.
fn freeze_but(model: Decoder, trained: &[&str]) -> Decoder {
    struct Freeze<'a>(Vec<String>, &'a [&'a str]);
    impl ModuleMapper for Freeze<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let path = self.0.join(".");
            parameter.set_require_grad(self.1.iter().any(|end| path.ends_with(end)))
        }
    }
    model.map(&mut Freeze(Vec::new(), trained))
}

#[test]
fn frozen_parameters_get_no_gradient_and_the_others_keep_theirs() {
    let (batch, all) = (ragged_batch(), load("arch_gemma3_text"));
    for trained in [
        &["layers.1.attention.query.weight"][..],
        &["layers.1.attention.output.weight", "layers.2.mlp.up.weight"],
        &["layers.0.attention.key_norm.weight"],
        &["embedding"],
        &["norm.weight"],
        &["layers.1.mlp_norm.weight", "embedding"],
        &[],
    ] {
        let model = freeze_but(all.clone(), trained);
        let whole = hidden_and_gradients(&model, HiddenPass::keeping_graph(&model, model.hidden(&batch))).1;
        for recompute in [Recompute::Nothing, Recompute::Attention, Recompute::Layers] {
            let pass = model.training_pass(&batch, PassOptions { recompute, dropout: None });
            let gradients = hidden_and_gradients(&model, pass).1;
            assert_eq!(gradients.is_empty(), trained.is_empty(), "{trained:?}");
            assert_close(&gradients, &whole, 2e-6);
        }
    }
}

#[test]
fn a_run_with_recomputation_is_the_same_run() {
    let run = |recompute| {
        let config = SftConfig { recompute, ..config(4, 1e-3) };
        let mut trainer = SftTrainer::new(load("arch_gemma3_text"), &config, 3).unwrap();
        (0..3).map(|_| trainer.step(examples().as_slice()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(run(Recompute::Layers), run(Recompute::Nothing));
    assert_eq!(run(Recompute::Attention), run(Recompute::Nothing));
}

#[test]
fn recomputation_is_named_in_the_configuration() {
    let read = |text: &str| toml::from_str::<SftConfig>(text).map(|config| config.recompute);
    assert_eq!(read("recompute = 'layers'").unwrap(), Recompute::Layers);
    assert_eq!(read("").unwrap(), Recompute::Nothing);
    let error = read("recompute = 'everything'").unwrap_err().to_string();
    assert!(error.contains("everything") && error.contains("`nothing`"), "{error}");
}

#[test]
fn parameters_are_counted_without_a_model() {
    for name in FAMILIES {
        let model = load(name);
        assert_eq!(align_model::memory::parameters(model.config()), model.parameter_count(), "{name}");
    }
}

fn flat_logits(model: &Decoder, batch: &TokenBatch) -> Vec<f32> {
    model.logits(model.hidden(batch)).into_data().iter().collect()
}

#[test]
fn bfloat16_gives_nearly_the_same_logits_and_gradients_in_f32() {
    for name in FAMILIES {
        let (model, batch) = (load(name), ragged_batch());
        let half = model.clone().with_compute_dtype(ComputeDtype::Bfloat16).unwrap();
        let (exact, rounded) = (flat_logits(&model, &batch), flat_logits(&half, &batch));
        let rms = |values: &mut dyn Iterator<Item = f32>| {
            let (count, sum) = values.fold((0.0, 0.0), |(n, s), x| (n + 1.0, s + f64::from(x * x)));
            (sum / count).sqrt()
        };
        let noise =
            rms(&mut exact.iter().zip(&rounded).map(|(a, b)| a - b)) / rms(&mut exact.iter().copied());
        // A bf16 number is within 2⁻⁹ of the truth; a handful of layers add up a handful of those.
        assert!(noise > 0.0 && noise < 0.02, "{name}: {noise}");
        for recompute in [Recompute::Nothing, Recompute::Layers] {
            let run = |model: &Decoder| {
                let pass = model.training_pass(&batch, PassOptions { recompute, dropout: None });
                hidden_and_gradients(model, pass).1
            };
            let (exact, rounded) = (run(&model), run(&half));
            let error =
                rms(&mut exact.iter().zip(&rounded).map(|(a, b)| a - b)) / rms(&mut exact.iter().copied());
            assert!(error > 0.0 && error < 0.05, "{name}: {error}");
        }
    }
}

#[test]
fn bfloat16_trains_weights_whose_steps_are_smaller_than_its_precision() {
    let rate = 1e-5;
    let run = |model: Decoder| {
        let mut trainer = SftTrainer::new(model, &config(4, rate), 40).unwrap();
        let reports: Vec<_> = (0..40).map(|_| trainer.step(examples().as_slice()).unwrap()).collect();
        (reports, trainer.into_model())
    };
    let before = load("arch_llama_bias");
    let (exact, _) = run(before.clone());
    let (rounded, after) = run(before.clone().with_compute_dtype(ComputeDtype::Bfloat16).unwrap());
    let (first, last) = (rounded[0].loss, rounded[39].loss);
    assert!(last < first, "{first} {last}");
    let (fallen, exactly) = (first - last, exact[0].loss - exact[39].loss);
    assert!((fallen - exactly).abs() < 0.3 * exactly, "the loss fell by {fallen}, in f32 by {exactly}");
    let weights =
        |model: &Decoder| model.layers[0].mlp.up.weight.val().into_data().iter::<f32>().collect::<Vec<_>>();
    let (before, after) = (weights(&before.valid()), weights(&after));
    let moved = before.iter().zip(&after).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    assert!(moved * 100 > before.len() * 99, "{moved} of {} weights moved", before.len());
    // One step moves a weight by about the rate: less than half the distance of neighbouring bf16 numbers at most weights.
    let below_half_ulp = before.iter().filter(|w| rate < f64::from(w.abs()) / 512.0).count();
    assert!(
        below_half_ulp * 2 > before.len(),
        "the test shows nothing: {below_half_ulp} of {}",
        before.len()
    );
}
