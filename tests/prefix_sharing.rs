//! Prompts that are computed once for several continuations: the same numbers as every sequence laid out whole.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at what they did not expect")]

use std::path::{Path, PathBuf};

use align_model::{
    adapter::{AdapterKind, LoraConfig, Targets as AdapterTargets},
    causal_lm::{CausalLm, IncrementalLm, PassOptions, Recompute, TokenBatch},
    decoder::Decoder,
    logprob::{LogProbPass, Targets, TokenScores, token_log_probs},
    pretrained::{Architecture, Checkpoint},
};
use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData},
};
use proptest::prelude::*;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::json;

const TOLERANCE: f32 = 1e-5;

const RECOMPUTE: [Recompute; 3] = [Recompute::Nothing, Recompute::Attention, Recompute::Layers];

/// A prompt's length and those of its continuations.
type Group = (usize, Vec<usize>);

/// Some tokens; other numbers give others.
fn tokens(length: usize, which: usize) -> Vec<u32> {
    (0..length).map(|t| ((t * 37 + which * 11 + t * t * which) % 250 + 3) as u32).collect()
}

/// The same sequences with shared prompts and laid out whole, and the same targets in the same order: everything but the
/// first token of each prompt, that of a prompt once.
fn both_layouts(groups: &[Group]) -> [(TokenBatch, Targets); 2] {
    let (mut shared, mut whole, mut marks) = (TokenBatch::default(), TokenBatch::default(), Vec::new());
    for (index, (prompt, continuations)) in groups.iter().enumerate() {
        let prompt = tokens(*prompt, index);
        let continuations: Vec<_> =
            continuations.iter().enumerate().map(|(i, &length)| tokens(length, 7 * index + i + 1)).collect();
        shared.push_sharing(&prompt, &continuations);
        whole.push(&prompt, 0);
        marks.extend(vec![true; prompt.len()]);
        for continuation in &continuations {
            whole.push(&[&prompt[..], continuation].concat(), 0);
            marks.extend(vec![false; prompt.len()]);
            marks.extend(vec![true; continuation.len()]);
        }
    }
    let targets = [Targets::all(&shared), Targets::selected(&whole, &marks)];
    let [of_shared, of_whole] = targets;
    [(shared, of_shared), (whole, of_whole)]
}

/// A loss that depends on sums over sequences and on what single tokens have.
fn any_loss(scores: &TokenScores) -> Tensor<1> {
    let summed = scores.log_probs.summed().powi_scalar(2).sum() * 0.01;
    summed + scores.entropies.clone().sum() * 0.3 + scores.log_probs.values.clone().cos().sum() * 0.2
}

/// Log-probabilities and every gradient, in the order of the parameters.
fn scores_and_gradients(
    model: &Decoder,
    (batch, targets): &(TokenBatch, Targets),
    recompute: Recompute,
) -> (Vec<f32>, Vec<f32>) {
    let pass = LogProbPass::forward_with(model, batch, targets, PassOptions { recompute, dropout: None });
    let scores = pass.scores();
    let gradients = pass.backward(any_loss(&scores), &scores);
    (scores.log_probs.values.inner().into_data().iter().collect(), flat(model, &gradients))
}

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

/// How far apart, relative to the largest.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    assert!(largest > 0.0 && largest.is_finite(), "nothing to compare");
    a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

fn assert_same(model: &Decoder, groups: &[Group], recompute: &[Recompute], what: &str) {
    let [shared, whole] = both_layouts(groups);
    assert!(shared.0.tokens().len() < whole.0.tokens().len());
    let expected = scores_and_gradients(model, &whole, Recompute::Nothing);
    for &recompute in recompute {
        let actual = scores_and_gradients(model, &shared, recompute);
        let (scores, gradients) = (distance(&actual.0, &expected.0), distance(&actual.1, &expected.1));
        assert!(scores < TOLERANCE, "{what} {recompute:?}: log-probabilities are off by {scores}");
        assert!(gradients < TOLERANCE, "{what} {recompute:?}: gradients are off by {gradients}");
    }
    let read = |(batch, targets): &(TokenBatch, Targets)| -> Vec<f32> {
        token_log_probs(model, batch, targets).values.into_data().iter().collect()
    };
    let scores = distance(&read(&shared), &read(&whole));
    assert!(scores < TOLERANCE, "{what}: log-probabilities without gradients are off by {scores}");
}

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn load(directory: &Path) -> Decoder {
    Checkpoint::open(directory).unwrap().load(&Device::flex().autodiff()).unwrap()
}

/// One to four continuations, longer and shorter than their prompts and than every window; some of equal length.
fn groups() -> Vec<Group> {
    vec![
        (9, vec![4, 13]),
        (5, vec![]),
        (21, vec![1, 6, 6, 30]),
        (1, vec![3]),
        (4, vec![5, 5, 2]),
        (4, vec![5]),
        (40, vec![9, 9]),
    ]
}

#[test]
fn every_architecture_gives_the_same_numbers() {
    let mut seen = 0;
    for entry in std::fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name.starts_with("arch_") {
            assert_same(&load(&path), &groups(), &RECOMPUTE, &name);
            seen += 1;
        }
    }
    assert!(seen > 0);
}

/// A small model with room for long sequences.
fn random(model_type: &str, window: Option<usize>) -> Decoder {
    let mut json = json!({
        "model_type": model_type, "vocab_size": 256, "hidden_size": 16, "intermediate_size": 24, "head_dim": 4,
        "num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": 1024, "rotary_pct": 0.5,
        "num_key_value_heads": if model_type == "gpt_neox" { 4 } else { 2 },
    });
    if model_type == "gpt2" {
        json = json!({
            "model_type": "gpt2", "vocab_size": 256, "n_embd": 16, "n_head": 4, "n_layer": 2, "n_positions": 1024,
        });
    }
    if let Some(window) = window {
        json["sliding_window"] = window.into();
    }
    let architecture = Architecture::from_json(Path::new("config.json"), json).unwrap();
    spread(architecture.random(&mut ChaCha8Rng::seed_from_u64(5), &Device::flex().autodiff()))
}

/// Adds noise to everything that is trained, so that no weight is too small to matter.
fn spread(model: Decoder) -> Decoder {
    struct Spread(ChaCha8Rng);
    impl ModuleMapper for Spread {
        fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !parameter.is_require_grad() {
                return parameter;
            }
            parameter.map(|old| {
                let mut uniform = || (self.0.next_u32() >> 8) as f32 / (1u32 << 23) as f32 - 1.0;
                let noise: Vec<f32> = (0..old.shape().num_elements()).map(|_| 0.3 * uniform()).collect();
                let noise = Tensor::<D>::from_data(TensorData::new(noise, old.shape()), &Device::flex());
                Tensor::from_inner(old.inner() + noise).require_grad()
            })
        }
    }
    model.map(&mut Spread(ChaCha8Rng::seed_from_u64(3)))
}

/// Prompts and continuations that attention cuts into several blocks of queries; windows that end inside the prompt, inside
/// the continuation, and at its start.
#[test]
fn long_prompts_and_windows_of_every_reach_give_the_same_numbers() {
    let groups = [(300, vec![270, 20]), (260, vec![1, 600]), (30, vec![300, 300])];
    for window in [None, Some(1), Some(2), Some(40), Some(290), Some(900)] {
        let model = random(if window.is_some() { "mistral" } else { "llama" }, window);
        let recompute = if window == Some(290) { &RECOMPUTE[..] } else { &RECOMPUTE[..1] };
        assert_same(&model, &groups, recompute, &format!("window {window:?}"));
    }
}

#[test]
fn adapters_get_the_same_gradients() {
    for (name, kind) in [
        ("arch_llama_bias", AdapterKind::Lora),
        ("arch_gpt2", AdapterKind::Lora),
        ("arch_mistral_sliding", AdapterKind::Dora),
    ] {
        let checkpoint = Checkpoint::open(&golden().join(name)).unwrap();
        let family = checkpoint.architecture().family();
        let config = LoraConfig { kind, targets: AdapterTargets::AllLinear, ..LoraConfig::default() };
        let model = checkpoint.load(&Device::flex().autodiff()).unwrap();
        let model = model.with_adapter(family, &config, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        assert_same(&spread(model), &groups(), &RECOMPUTE, name);
    }
}

#[test]
fn the_whole_graph_gives_the_same_numbers() {
    let model = load(&golden().join("arch_gemma3_text"));
    let [(shared, targets), _] = both_layouts(&groups());
    let of_hidden = |hidden: Tensor<2>| hidden.cos();
    let pass = model.training_pass(&shared, PassOptions::default());
    let mut gradients = GradientsParams::new();
    let hidden = pass.hidden();
    pass.backward(of_hidden(hidden.clone()), &mut gradients);

    let tracked = model.hidden(&shared);
    let whole = (tracked.clone() * Tensor::from_inner(of_hidden(hidden))).sum().backward();
    let whole = GradientsParams::from_grads(whole, &model);
    assert!(distance(&flat(&model, &gradients), &flat(&model, &whole)) < TOLERANCE);
    assert!(targets.len() < shared.tokens().len());
}

#[test]
#[should_panic(expected = "a whole prompt")]
fn a_cache_has_no_row_for_a_continuation() {
    let [(shared, _), _] = both_layouts(&[(3, vec![2])]);
    let _ = load(&golden().join("arch_llama_bias")).valid().prefill(&shared);
}

fn group() -> impl Strategy<Value = Group> {
    (1usize..14, prop::collection::vec(1usize..12, 0..5))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_shapes_give_the_same_numbers(
        mut groups in prop::collection::vec(group(), 1..5),
        family in prop::sample::select(vec!["llama", "mistral", "gpt2", "gpt_neox"]),
        window in prop::sample::select(vec![None, Some(1), Some(3), Some(9)]),
        recompute in prop::sample::select(RECOMPUTE.to_vec()),
    ) {
        groups.push((6, vec![2, 3]));
        let model = random(family, window.filter(|_| family == "mistral"));
        assert_same(&model, &groups, &[recompute], family);
    }
}
