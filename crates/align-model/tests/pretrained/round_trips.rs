//! Save, load, save again: the same bytes.

use align_model::{
    causal_lm::{CausalLm, TokenBatch},
    decoder::{Decoder, Head},
    pretrained::{Checkpoint, SaveOptions, SavedDtype},
};
use burn::tensor::Device;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::{Value, json};

use crate::models::{FAMILIES, architecture, config, distinct, files, load, read_tensors, saved, with};

const DTYPES: [SavedDtype; 3] = [SavedDtype::Float32, SavedDtype::Bfloat16, SavedDtype::Float16];

/// Saves a model and saves what loads again; both directories are the same, byte for byte.
fn round_trip(config: &Value, options: SaveOptions) {
    let architecture = architecture(config);
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    architecture.save(&distinct(&architecture).0, first.path(), options).unwrap();
    let checkpoint = Checkpoint::open(first.path()).unwrap();
    let loaded = checkpoint.load(&Device::flex()).unwrap();
    checkpoint.save(&loaded, second.path(), options).unwrap();
    let (first, second) = (files(first.path()), files(second.path()));
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    for (name, bytes) in first {
        assert!(second[&name] == bytes, "{} {options:?}: {name} differs", config["model_type"]);
    }
}

#[test]
fn every_family_and_number_format_in_one_file() {
    for family in FAMILIES {
        for dtype in DTYPES {
            round_trip(&config(family), SaveOptions { dtype, ..SaveOptions::default() });
        }
    }
}

#[test]
fn every_family_in_shards() {
    for family in FAMILIES {
        for dtype in DTYPES {
            round_trip(&config(family), SaveOptions { dtype, max_shard_bytes: 700 });
        }
    }
}

#[test]
fn every_choice_that_adds_or_drops_weights() {
    let choices = [
        with(config("llama"), json!({"attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true})),
        with(config("qwen3"), json!({"attention_bias": true, "tie_word_embeddings": false})),
        with(config("gemma3_text"), json!({"tie_word_embeddings": false})),
        with(config("gpt2"), json!({"n_inner": 20, "tie_word_embeddings": false})),
        with(config("gpt_neox"), json!({"attention_bias": false, "use_parallel_residual": false})),
    ];
    for choice in choices {
        round_trip(&choice, SaveOptions::default());
    }
}

#[test]
fn loaded_weights_are_the_saved_ones() {
    for family in FAMILIES {
        let directory = saved(&config(family));
        let architecture = architecture(&config(family));
        let expected = distinct(&architecture).0;
        let again = tempfile::tempdir().unwrap();
        architecture.save(&load(directory.path()).unwrap(), again.path(), SaveOptions::default()).unwrap();
        let path = again.path().join("model.safetensors");
        let (loaded, stored) =
            (read_tensors(&path), read_tensors(&directory.path().join("model.safetensors")));
        assert_eq!(loaded, stored, "{family}");
        let count = |values: &[usize]| values.iter().product::<usize>();
        let parameters: usize = stored.values().map(|(shape, _)| count(shape)).sum();
        assert_eq!(burn::module::Module::num_params(&expected), parameters, "{family}");
    }
}

#[test]
fn random_models_survive_and_start_like_those_of_transformers() {
    for family in FAMILIES {
        let architecture = architecture(&config(family));
        let model = architecture.random(&mut ChaCha8Rng::seed_from_u64(1), &Device::flex());
        let directory = tempfile::tempdir().unwrap();
        architecture.save(&model, directory.path(), SaveOptions::default()).unwrap();
        load(directory.path()).unwrap();
        for (name, (_, values)) in read_tensors(&directory.path().join("model.safetensors")) {
            let norm: f32 = if family == "gemma3_text" { 0.0 } else { 1.0 };
            if name.ends_with("bias") {
                assert!(values.iter().all(|&v| v == 0.0), "{name}");
            } else if name.contains("norm") || name.contains("ln_") {
                assert!(values.iter().all(|v| v.to_bits() == norm.to_bits()), "{name}");
            } else {
                assert!(
                    values.iter().all(|v| v.abs() < 0.2) && values[0].to_bits() != values[1].to_bits(),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn half_precision_rounds_to_the_nearest_number() {
    let architecture = architecture(&config("llama"));
    let (model, expected) = distinct(&architecture);
    for (dtype, step) in [(SavedDtype::Bfloat16, 256.0), (SavedDtype::Float16, 2048.0)] {
        let directory = tempfile::tempdir().unwrap();
        architecture.save(&model, directory.path(), SaveOptions { dtype, ..SaveOptions::default() }).unwrap();
        let loaded = load(directory.path()).unwrap();
        let values: Vec<f32> = loaded.embedding.val().into_data().iter::<f32>().collect();
        for (value, exact) in values.iter().zip(&expected["embedding"]) {
            assert!((value - exact).abs() <= exact.abs() / step, "{value} for {exact}");
        }
    }
}

#[test]
fn a_config_says_what_was_saved() {
    let directory = saved(&with(config("qwen2"), json!({"torch_dtype": "bfloat16", "my_own_key": [1]})));
    let saved: Value = serde_json::from_slice(&files(directory.path())["config.json"]).unwrap();
    assert_eq!(saved["dtype"], "float32");
    assert_eq!(saved["torch_dtype"], "float32");
    assert_eq!(saved["architectures"], json!(["Qwen2ForCausalLM"]));
    assert_eq!(saved["tie_word_embeddings"], false);
    assert_eq!(saved["my_own_key"], json!([1]));
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(checkpoint.architecture().config().head, Head::Untied);
}

#[test]
fn fewer_tokens_are_spoken_of_as_before() {
    for family in FAMILIES {
        let model = distinct(&architecture(&config(family))).0;
        let batch = TokenBatch::from_sequences(&[vec![1, 5, 2], vec![6, 0]]);
        let says = |model: &Decoder| model.logits(model.hidden(&batch));
        let before = says(&model).narrow(1, 0, 7);
        let fewer = model.with_vocabulary(7);
        assert_eq!(fewer.config().vocab_size, 7);
        assert_eq!(says(&fewer).into_data(), before.into_data(), "{family}");
    }
}
