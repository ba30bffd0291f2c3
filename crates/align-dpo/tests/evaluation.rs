//! What an evaluation says is what a step would say of the same examples.

#![allow(clippy::unwrap_used, reason = "tests stop at what they did not expect")]

use std::path::Path;

use align_dpo::{DpoConfig, DpoTrainer, KtoConfig, KtoTrainer, PreferenceReport, Reference};
use align_model::{
    decoder::Decoder,
    preference::{PreferenceExample, UnpairedExample},
    pretrained::Architecture,
    train::Report as _,
};
use burn::tensor::Device;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use serde_json::json;

fn model(seed: u64) -> Decoder {
    let config = json!({
        "model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": true, "initializer_range": 0.3, "architectures": ["LlamaForCausalLM"],
    });
    let architecture = Architecture::from_json(Path::new("config.json"), config).unwrap();
    architecture.random(&mut ChaCha8Rng::seed_from_u64(seed), &Device::flex())
}

fn pairs() -> Vec<PreferenceExample> {
    let pair = |start: u32| PreferenceExample {
        prompt: (start..start + 3).collect(),
        chosen: (start + 3..start + 5 + start % 3).collect(),
        rejected: (start + 9..start + 13).collect(),
        gold: None,
        margin: None,
        slice: Some(if start.is_multiple_of(2) { "even" } else { "odd" }.into()),
    };
    (1..8).map(pair).collect()
}

/// Whether an evaluation says the same as a step.
fn close(evaluation: &PreferenceReport, step: &PreferenceReport) {
    let of_step = step.metrics().into_iter().map(|(name, value)| (name.to_owned(), value));
    let of_step: Vec<_> = of_step.chain(step.named_metrics()).collect();
    assert!(of_step.len() > 5, "{of_step:?}");
    for (name, expected) in of_step {
        let found = evaluation.get(&name).unwrap();
        assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{name}: {found} {expected}");
    }
}

#[test]
fn pairs_are_measured_as_in_a_step_and_in_passes_of_any_size() {
    let (policy, reference, pairs) = (model(1), model(2), pairs());
    let with = |micro: usize| {
        let micro_batch_size = micro.try_into().unwrap();
        let config = DpoConfig { micro_batch_size, ..DpoConfig::default() };
        DpoTrainer::new(policy.clone(), Reference::Model(reference.clone()), &config, 9).unwrap()
    };
    let trainer = with(7);
    let (_, step) = trainer.gradients(&pairs).unwrap();
    let whole = trainer.evaluate(trainer.model(), &pairs).unwrap();
    let [low, share, high] =
        ["_low", "", "_high"].map(|end| whole.get(&format!("rewards/accuracies{end}")).unwrap());
    assert!(low < share && share < high, "{low} {share} {high}");
    close(&whole, &step);
    close(&with(2).evaluate(&policy, &pairs).unwrap(), &step);
    let itself = trainer.evaluate(&reference, &pairs).unwrap();
    assert!((itself.loss() - 2f64.ln()).abs() < 1e-5, "the reference against itself");
}

#[test]
fn judged_completions_are_measured_as_in_a_step_and_in_passes_of_any_size() {
    let (policy, reference) = (model(1), model(2));
    let examples: Vec<UnpairedExample> = pairs().into_iter().flat_map(PreferenceExample::unpair).collect();
    let with = |micro: usize| {
        let (micro_batch_size, batch_size) = (micro.try_into().unwrap(), 14.try_into().unwrap());
        let config = KtoConfig { micro_batch_size, batch_size, ..KtoConfig::default() };
        KtoTrainer::new(policy.clone(), Reference::Model(reference.clone()), &config, 9).unwrap()
    };
    let trainer = with(14);
    let (_, step) = trainer.gradients(&examples).unwrap();
    close(&trainer.evaluate(trainer.model(), &examples).unwrap(), &step);
    close(&with(3).evaluate(&policy, &examples).unwrap(), &step);
    trainer.evaluate(&policy, &examples[..1]).unwrap_err();
}
