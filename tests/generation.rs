//! Generation on the small models of `tests/golden`: with and without cache, in batches and alone, sampled and greedy.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at what they did not expect")]

use std::{num::NonZeroUsize, ops::ControlFlow, path::PathBuf};

use align_model::{
    causal_lm::{Cache, CausalLm, IncrementalLm, TokenBatch},
    decoder::Decoder,
    generate::{
        Decoding, Finish, GenerateError, Generation, GenerationConfig, Sampling, SamplingConfig, StopAt,
        generate, generate_streaming,
    },
    logprob::{Targets, token_log_probs},
    number::Positive,
    pretrained::Checkpoint,
};
use burn::{
    module::Param,
    tensor::{Device, Tensor},
};
use proptest::prelude::*;
use statrs::distribution::{ChiSquared, ContinuousCDF};

const FAMILIES: [&str; 5] = ["gemma3_text", "mistral_sliding", "gpt2", "gpt_neox", "llama_bias"];

fn model(name: &str) -> Decoder {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("arch_{name}"));
    Checkpoint::open(&path).unwrap().load(&Device::flex()).unwrap()
}

fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn greedy(tokens: usize) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: count(tokens),
        sampling: SamplingConfig { decoding: Decoding::Greedy, ..SamplingConfig::default() },
        ..GenerationConfig::default()
    }
}

fn sampled(tokens: usize, samples: usize, batch: usize) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: count(tokens),
        samples: count(samples),
        batch_size: count(batch),
        seed: 11,
        ..GenerationConfig::default()
    }
}

/// Prompts of unequal lengths, some longer than the sliding windows.
fn prompts() -> Vec<Vec<u32>> {
    let prompt = |length: u32, salt: u32| (0..length).map(|i| (i * 37 + salt * 11) % 250 + 3).collect();
    vec![prompt(1, 1), prompt(23, 2), prompt(5, 3), prompt(12, 4)]
}

fn largest_difference(a: Tensor<2>, b: Tensor<2>) -> f32 {
    (a - b).abs().max().into_scalar()
}

#[test]
fn cached_hidden_states_equal_uncached_ones() {
    for family in FAMILIES {
        let model = model(family);
        let mut sequences = prompts();
        let (_, mut cache) = model.prefill(&TokenBatch::from_sequences(&sequences));
        for step in 0..12u32 {
            let next: Vec<u32> =
                (0..cache.rows() as u32).map(|row| (step * 53 + row * 29) % 250 + 3).collect();
            let cached = model.extend(&next, &mut cache);
            sequences.iter_mut().zip(&next).for_each(|(sequence, token)| sequence.push(*token));
            let batch = TokenBatch::from_sequences(&sequences);
            let last: Vec<i32> =
                batch.starts().iter().zip(batch.lengths()).map(|(s, l)| (s + l - 1) as i32).collect();
            let whole = model.hidden(&batch).select(0, Tensor::from_data(&last[..], &model.device()));
            let difference = largest_difference(cached, whole);
            assert!(difference < 1e-4, "{family}, step {step}: {difference}");
            if step == 5 {
                // One sequence leaves, two change places, one is doubled.
                cache.select(&[3, 1, 3]);
                sequences = [3, 1, 3].iter().map(|&row: &usize| sequences[row].clone()).collect();
            }
        }
    }
}

#[test]
fn a_batch_of_unequal_prompts_equals_one_by_one() {
    for family in FAMILIES {
        let model = model(family);
        let together = generate(&model, &prompts(), &greedy(16), None).unwrap();
        for (prompt, expected) in prompts().into_iter().zip(together) {
            let alone = generate(&model, &[prompt], &greedy(16), None).unwrap();
            assert_eq!(alone[0][0].tokens, expected[0].tokens, "{family}");
        }
    }
}

#[test]
fn sampling_does_not_depend_on_how_prompts_are_batched() {
    let model = model("llama_bias");
    let tokens = |config: &GenerationConfig| {
        let generated = generate(&model, &prompts(), config, None).unwrap();
        generated.into_iter().flatten().map(|generation| generation.tokens).collect::<Vec<_>>()
    };
    let expected = tokens(&sampled(8, 3, 64));
    assert_eq!(expected.len(), 12);
    assert_ne!(expected[0], expected[1], "samples of a prompt differ");
    for batch in [1, 3, 6] {
        assert_eq!(tokens(&sampled(8, 3, batch)), expected, "batches of {batch}");
    }
}

#[test]
fn log_probs_are_those_of_the_distribution_that_was_sampled() {
    let model = model("qwen3");
    let temperature = 0.7;
    let sampling = Sampling { temperature: Positive::new(temperature), ..Sampling::default() };
    for (decoding, temperature) in
        [(Decoding::Sample(Sampling::default()), 1.0), (Decoding::Sample(sampling), 0.7)]
    {
        let mut config = sampled(10, 2, 64);
        config.sampling.decoding = decoding;
        for (prompt, generations) in
            prompts().iter().zip(generate(&model, &prompts(), &config, None).unwrap())
        {
            for Generation { tokens, log_probs, .. } in generations {
                let sequence = [prompt.clone(), tokens].concat();
                let batch = TokenBatch::from_sequences(&[&sequence]);
                let expected = tempered(&model, &batch, prompt.len(), temperature);
                for (a, b) in log_probs.iter().zip(expected) {
                    assert!((a - b).abs() < 1e-4, "{a} {b}");
                }
            }
        }
    }
}

/// Log-probabilities of what follows the prompt, logits divided by a temperature.
fn tempered(model: &Decoder, batch: &TokenBatch, prompt: usize, temperature: f64) -> Vec<f32> {
    if temperature >= 1.0 {
        let selected: Vec<bool> = (0..batch.tokens().len()).map(|i| i >= prompt).collect();
        let values = token_log_probs(model, batch, &Targets::selected(batch, &selected)).values;
        return values.into_data().iter::<f32>().collect();
    }
    let logits = model.logits(model.hidden(batch)) / temperature;
    let log_probs = burn::tensor::activation::log_softmax(logits, 1);
    let vocab = model.vocab_size();
    let all: Vec<f32> = log_probs.into_data().iter::<f32>().collect();
    (prompt..batch.tokens().len()).map(|i| all[(i - 1) * vocab + batch.tokens()[i] as usize]).collect()
}

#[test]
fn sampled_frequencies_fit_the_models_distribution() {
    let model = model("llama_bias");
    let prompt = vec![5, 77, 140];
    let draws = 6000;
    let generated = generate(&model, std::slice::from_ref(&prompt), &sampled(1, draws, draws), None).unwrap();
    let hidden = model.hidden(&TokenBatch::from_sequences(&[&prompt]));
    let logits = model.logits(hidden).narrow(0, prompt.len() - 1, 1);
    let probabilities: Vec<f64> =
        burn::tensor::activation::softmax(logits, 1).into_data().iter::<f64>().collect();
    let mut seen = vec![0.0; probabilities.len()];
    for generation in &generated[0] {
        seen[generation.tokens[0] as usize] += 1.0;
    }
    // Cells that expect fewer than five draws are thrown together.
    let (mut statistic, mut cells, mut rest) = (0.0, 0, (0.0, 0.0));
    for (&seen, &p) in seen.iter().zip(&probabilities) {
        let expected = p * draws as f64;
        if expected >= 5.0 {
            statistic += (seen - expected).powi(2) / expected;
            cells += 1;
        } else {
            rest = (rest.0 + seen, rest.1 + expected);
        }
    }
    statistic += (rest.0 - rest.1).powi(2) / rest.1;
    let p_value = 1.0 - ChiSquared::new(f64::from(cells)).unwrap().cdf(statistic);
    assert!(p_value > 0.001, "chi-square {statistic} on {cells} degrees of freedom: p = {p_value}");
}

#[test]
fn stop_tokens_end_a_sequence_and_the_others_go_on() {
    let model = model("gpt2");
    let free = generate(&model, &prompts(), &greedy(12), None).unwrap();
    let stop = free[1][0].tokens[4];
    let config = GenerationConfig { stop: StopAt { tokens: vec![stop], strings: vec![] }, ..greedy(12) };
    for (stopped, free) in generate(&model, &prompts(), &config, None).unwrap().iter().zip(&free) {
        let end = free[0].tokens.iter().position(|&token| token == stop);
        let length = end.map_or(12, |end| end + 1);
        assert_eq!(stopped[0].tokens, free[0].tokens[..length]);
        let finish = if end.is_some() { Finish::StopToken(stop) } else { Finish::Length };
        assert_eq!(stopped[0].finish, finish);
    }
}

#[test]
fn a_full_context_ends_a_sequence() {
    let model = model("gpt2");
    let prompt = vec![7; model.max_positions() - 3];
    let generated = generate(&model, &[prompt], &greedy(50), None).unwrap();
    assert_eq!((generated[0][0].tokens.len(), generated[0][0].finish), (3, Finish::Context));
}

#[test]
fn a_caller_sees_every_token_and_may_end_a_sequence() {
    let model = model("llama_bias");
    let mut seen = vec![Vec::new(); prompts().len()];
    let generated = generate_streaming(&model, &prompts(), &greedy(6), None, &mut |event| {
        seen[event.prompt].push(event.token);
        if event.prompt == 2 && seen[2].len() == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .unwrap();
    for (seen, generated) in seen.iter().zip(&generated) {
        assert_eq!(*seen, generated[0].tokens);
    }
    assert_eq!(generated[2][0].finish, Finish::Cancelled);
    assert_eq!(generated.iter().map(|g| g[0].tokens.len()).collect::<Vec<_>>(), [6, 6, 2, 6]);
}

#[test]
fn prompts_that_cannot_be_continued_are_named() {
    let model = model("gpt2");
    let attempt = |prompt: Vec<u32>| generate(&model, &[vec![1], prompt], &greedy(4), None).unwrap_err();
    assert!(matches!(attempt(vec![]), GenerateError::EmptyPrompt { prompt: 1 }));
    assert!(matches!(attempt(vec![999]), GenerateError::UnknownToken { prompt: 1, token: 999, .. }));
    let long = attempt(vec![1; model.max_positions()]);
    assert!(long.to_string().contains("shorten it"), "{long}");
    let stop = StopAt { tokens: vec![], strings: vec!["end".into()] };
    let error = generate(&model, &prompts(), &GenerationConfig { stop, ..greedy(4) }, None).unwrap_err();
    assert!(matches!(error, GenerateError::StopStringsWithoutTokenizer));
}

#[test]
fn logits_that_are_not_numbers_say_where() {
    let mut model = model("gpt2");
    model.norm.weight = Param::from_tensor(Tensor::full([64], f32::NAN, &model.device()));
    let error = generate(&model, &prompts()[1..2], &greedy(4), None).unwrap_err();
    assert!(matches!(error, GenerateError::Sampling { prompt: 0, sample: 0, position: 23, .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_batch_continues_as_its_members_do(lengths in prop::collection::vec(1usize..30, 1..5), salt in 0u32..200) {
        let model = model("mistral_sliding");
        let prompt = |&length: &usize| (0..length as u32).map(|i| (i * 41 + salt) % 250 + 3).collect::<Vec<u32>>();
        let prompts: Vec<Vec<u32>> = lengths.iter().map(prompt).collect();
        let together = generate(&model, &prompts, &greedy(6), None).unwrap();
        for (prompt, expected) in prompts.iter().zip(together) {
            let alone = generate(&model, std::slice::from_ref(prompt), &greedy(6), None).unwrap();
            prop_assert_eq!(&alone[0][0].tokens, &expected[0].tokens);
        }
    }
}
