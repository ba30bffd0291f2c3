//! Scores under a temperature and a restricted support: against plain autodiff on all logits, and against sampling.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at what they did not expect")]

use std::{num::NonZeroUsize, path::Path};

use align_model::{
    causal_lm::{CausalLm, TokenBatch},
    decoder::Decoder,
    generate::{
        Decoding, Generation, GenerationConfig, Request, Sampling, SamplingConfig, generate,
        generate_requests,
    },
    logprob::{
        CompletionLayout, LogProbPass, Prompted, Prompts, ScoringDistribution, Support, Targets,
        token_log_probs_under, vector,
    },
    number::{Positive, PositiveUnit, UnitInterval},
    pretrained::Architecture,
};
use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, Int, Tensor, TensorData, activation::log_softmax},
};
use proptest::prelude::*;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde_json::json;

const VOCAB: usize = 48;

fn model(seed: u64, device: &Device) -> Decoder {
    let json = json!({
        "model_type": "llama", "vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 24, "head_dim": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "max_position_embeddings": 128,
        "initializer_range": 0.6, "tie_word_embeddings": false,
    });
    let architecture = Architecture::from_json(Path::new("config.json"), json).unwrap();
    architecture.random(&mut ChaCha8Rng::seed_from_u64(seed), device)
}

fn batch() -> TokenBatch {
    let sequence =
        |length: u32, salt: u32| (0..length).map(|i| (i * 37 + salt * 11) % 48).collect::<Vec<_>>();
    TokenBatch::from_sequences(&[sequence(7, 1), sequence(12, 2), sequence(4, 3)])
}

/// A support of each kind for each target, with the target in it.
fn supports(targets: &Targets) -> Vec<Support> {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let support = |(index, &target): (usize, &u32)| {
        let share = [1, 2, 8, 12][index % 4];
        let mut drawn = |token: u32| token == target || rng.next_u32() % share == 0;
        let tokens: Vec<u32> = (0..VOCAB as u32).filter(|&token| drawn(token)).collect();
        Support::of(tokens.into_iter(), VOCAB)
    };
    targets.tokens().iter().enumerate().map(support).collect()
}

/// Log-probabilities, entropies, means over the support and divergences, `[targets]` each, with their whole graph.
fn naive(
    model: &Decoder,
    reference: &Decoder,
    targets: &Targets,
    distribution: &ScoringDistribution,
) -> [Tensor<1>; 4] {
    let (batch, device) = (batch(), Device::flex());
    let rows = targets.len();
    let allowed: Vec<f32> = match &distribution.supports {
        Some(supports) => supports
            .iter()
            .flat_map(|support| (0..VOCAB as u32).map(|token| f32::from(u8::from(support.allows(token)))))
            .collect(),
        None => vec![1.0; rows * VOCAB],
    };
    let on = |x: Tensor<2>| if model.device() == device { x } else { Tensor::from_inner(x) };
    let allowed = on(Tensor::<2>::from_data(TensorData::new(allowed, [rows, VOCAB]), &device));
    let positions: Vec<i32> = targets.positions().iter().map(|&p| p as i32).collect();
    let tokens: Vec<i32> = targets.tokens().iter().map(|&t| t as i32).collect();
    let log_probs = |model: &Decoder| {
        let positions =
            Tensor::<1, Int>::from_data(TensorData::new(positions.clone(), [rows]), &model.device());
        let logits = model.logits(model.hidden(&batch).select(0, positions)) / distribution.temperature.get();
        log_softmax(logits + (allowed.clone() - 1.0) * 1e6, 1)
    };
    let of_model = log_probs(model);
    let of_reference = Tensor::from_inner(log_probs(reference).inner());
    let p = of_model.clone().exp();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [rows, 1]), &model.device());
    let sum = |x: Tensor<2>| x.sum_dim(1).squeeze_dim::<1>(1);
    let size = sum(allowed.clone());
    [
        of_model.clone().gather(1, tokens).squeeze_dim(1),
        -sum(p.clone() * of_model.clone()),
        sum(of_model.clone() * allowed) / size,
        sum(p * (of_model - of_reference)),
    ]
}

/// Depends on everything, and not linearly.
fn loss([log_probs, entropies, uniform, divergences]: [Tensor<1>; 4]) -> Tensor<1> {
    let weights = log_probs.clone().cos() + entropies * 0.7;
    (weights + uniform.powi_scalar(2) * 0.1 + divergences * 0.4 + log_probs * 0.3).sum()
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

fn read(values: Tensor<1>) -> Vec<f32> {
    values.into_data().iter().collect()
}

fn assert_close(actual: &[f32], expected: &[f32], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    let off = actual.iter().zip(expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / scale;
    assert!(off < 2e-5, "{what} are off by {off}");
}

#[test]
fn values_and_gradients_equal_autodiff_on_all_logits() {
    let device = Device::flex().autodiff();
    let (model, reference) = (model(1, &device), model(2, &device));
    let batch = batch();
    let targets = Targets::all(&batch);
    for (temperature, supports) in
        [(1.0, None), (0.6, None), (1.0, Some(supports(&targets))), (1.7, Some(supports(&targets)))]
    {
        let distribution = ScoringDistribution { temperature: Positive::new(temperature), supports };
        let expected = naive(&model, &reference, &targets, &distribution);
        let of_loss = GradientsParams::from_grads(loss(expected.clone()).backward(), &model);
        let pass = || {
            LogProbPass::forward(&model, &batch, &targets)
                .with_reference(&reference, &batch)
                .in_chunks_of(5)
                .under(distribution.clone())
        };
        let open = pass();
        let scores = open.scores();
        let found = |scores: &align_model::logprob::TokenScores| {
            let divergences = scores.divergences.clone().unwrap();
            [
                scores.log_probs.values.clone(),
                scores.entropies.clone(),
                scores.uniform_log_probs.clone(),
                divergences,
            ]
        };
        for (index, (actual, expected)) in found(&scores).into_iter().zip(expected).enumerate() {
            assert_close(
                &read(actual),
                &read(expected),
                &format!("temperature {temperature}: scores {index}"),
            );
        }
        let gradients = open.backward(loss(found(&scores)), &scores);
        let expected = flat(&model, &of_loss);
        assert_close(&flat(&model, &gradients), &expected, &format!("temperature {temperature}: gradients"));
        let per_token = |scores: &align_model::logprob::TokenScores| {
            let [a, b, c, d] = found(scores);
            (a.clone().cos() + b * 0.7) + c.powi_scalar(2) * 0.1 + d * 0.4 + a * 0.3
        };
        let (gradients, _, _) = pass().backward_per_token(per_token);
        assert_close(&flat(&model, &gradients), &expected, "gradients in a single pass");
    }
}

#[test]
fn a_reference_equal_to_the_model_is_at_no_distance_under_any_distribution() {
    let model = model(1, &Device::flex());
    let batch = batch();
    let targets = Targets::all(&batch);
    let distribution =
        ScoringDistribution { temperature: Positive::new(0.5), supports: Some(supports(&targets)) };
    let pass =
        LogProbPass::forward(&model, &batch, &targets).with_reference(&model, &batch).under(distribution);
    assert!(read(pass.scores().divergences.unwrap()).iter().all(|kl| kl.abs() < 1e-6));
}

#[test]
#[should_panic(expected = "every target can be drawn from its support")]
fn a_target_outside_its_support_is_refused() {
    let batch = TokenBatch::from_sequences(&[[1, 2]]);
    let distribution = ScoringDistribution {
        supports: Some(vec![Support::Only(vec![3])]),
        ..ScoringDistribution::default()
    };
    let _ = token_log_probs_under(&model(1, &Device::flex()), &batch, &Targets::all(&batch), distribution);
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let temperature = (0.3f64..2.0).prop_map(Positive::new);
    let top_k = prop::option::of((1usize..30).prop_map(|k| NonZeroUsize::new(k).unwrap()));
    let top_p = prop::option::of((0.2f64..1.0).prop_map(PositiveUnit::new));
    let min_p = prop::option::of((0.0f64..0.4).prop_map(UnitInterval::new));
    (temperature, top_k, top_p, min_p).prop_map(|(temperature, top_k, top_p, min_p)| Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        ..Sampling::default()
    })
}

fn config(sampling: Sampling, samples: usize, seed: u64) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: NonZeroUsize::new(7).unwrap(),
        samples: NonZeroUsize::new(samples).unwrap(),
        sampling: SamplingConfig { decoding: Decoding::Sample(sampling), ..SamplingConfig::default() },
        seed,
        keep_supports: true,
        ..GenerationConfig::default()
    }
}

fn prompts(lengths: &[usize]) -> Vec<Vec<u32>> {
    let prompt = |(salt, &length): (usize, &usize)| {
        (0..length).map(|i| ((i * 31 + salt * 7) % VOCAB) as u32).collect()
    };
    lengths.iter().enumerate().map(prompt).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn sampled_log_probs_are_the_scores_under_the_same_distribution(
        sampling in sampling(), lengths in prop::collection::vec(1usize..20, 1..4), seed in 0u64..1000
    ) {
        let model = model(3, &Device::flex());
        let (prompts, temperature) = (prompts(&lengths), sampling.temperature);
        let groups = generate(&model, &prompts, &config(sampling, 3, seed), None).unwrap();
        let items: Vec<Prompted<'_>> = prompts.iter().zip(&groups).map(|(prompt, group)| Prompted {
            prompt, completions: group.iter().map(|sample| (&sample.tokens).into()).collect(),
        }).collect();
        let samples: Vec<&Generation> = groups.iter().flatten().collect();
        let supports = samples.iter().flat_map(|sample| sample.supports.clone().unwrap()).collect();
        let distribution = ScoringDistribution { temperature, supports: Some(supports) };
        for are_shared in [false, true] {
            let layout = CompletionLayout::new(&items, Prompts { are_shared, are_read: false });
            let scored = token_log_probs_under(&model, &layout.batch, &layout.targets, distribution.clone()).values;
            let sampled = vector(samples.iter().flat_map(|sample| sample.log_probs.clone()), &Device::flex());
            let off: f32 = (scored - sampled).abs().max().into_scalar();
            prop_assert!(off < 1e-4, "off by {off}");
        }
    }

    /// A prompt that is computed once for a group continues as if it were computed for each member, alone or among others.
    #[test]
    fn shared_prompts_continue_as_separate_ones_do(
        sampling in sampling(), lengths in prop::collection::vec(1usize..20, 2..4), seed in 0u64..1000
    ) {
        let model = model(3, &Device::flex());
        let prompts = prompts(&lengths);
        let shared = generate(&model, &prompts, &config(sampling.clone(), 3, seed), None).unwrap();
        let first = generate(&model, &prompts, &config(sampling.clone(), 1, seed), None).unwrap();
        for (shared, first) in shared.iter().zip(&first) {
            prop_assert_eq!(&shared[0].tokens, &first[0].tokens);
        }
        // The last prompt alone, under its own stream of random numbers.
        let stream = prompts.len() - 1;
        let request = Request {
            tokens: &prompts[stream], stream: stream as u32, max_new_tokens: NonZeroUsize::new(4).unwrap(),
        };
        let alone = generate_requests(&model, &[request], &config(sampling, 3, seed), None).unwrap();
        for (alone, shared) in alone[0].iter().zip(&shared[stream]) {
            prop_assert_eq!(&alone.tokens[..], &shared.tokens[..alone.tokens.len()]);
            prop_assert_eq!(alone.tokens.len(), 4);
        }
    }
}
