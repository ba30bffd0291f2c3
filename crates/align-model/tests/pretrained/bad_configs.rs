//! Configurations and tokenizers that are missing, malformed or ask for what the decoder does not do.

use std::{fs, path::Path};

use align_model::pretrained::{Architecture, Checkpoint, LoadError};
use serde_json::{Value, json};

use crate::models::{FAMILIES, assert_says, config, load, saved, with};

fn read(config: Value) -> Result<Architecture, LoadError> {
    Architecture::from_json(Path::new("here/config.json"), config)
}

/// A change to a family's configuration that must be refused under its key.
#[track_caller]
fn refused(family: &str, changes: Value, key: &str, says: &str) {
    let error = read(with(config(family), changes.clone())).expect_err(&changes.to_string());
    assert!(matches!(&error, LoadError::Config { key: found, .. } if found == key), "{error:?}");
    assert_says(&error, &["here/config.json", key, says]);
}

#[test]
fn a_directory_without_config() {
    let directory = saved(&config("llama"));
    let path = directory.path().join("config.json");
    for (text, says) in
        [("{", "EOF"), ("", "EOF"), ("[]", "expected an object"), ("{\"a\": \u{1}}", "line 1")]
    {
        fs::write(&path, text).unwrap();
        let error = load(directory.path()).unwrap_err();
        assert!(matches!(&error, LoadError::Malformed { format: "JSON", .. }), "{error:?}");
        assert_says(&error, &[path.to_str().unwrap(), says]);
    }
    fs::write(&path, b"{\"model_type\": \"\xff\"}").unwrap();
    assert!(matches!(load(directory.path()), Err(LoadError::Malformed { format: "JSON", .. })));
    fs::write(&path, "[".repeat(100_000)).unwrap();
    assert!(matches!(load(directory.path()), Err(LoadError::Malformed { format: "JSON", .. })));
    fs::remove_file(&path).unwrap();
    let error = load(directory.path()).unwrap_err();
    assert!(matches!(&error, LoadError::NoConfig { .. }), "{error:?}");
    assert_says(&error, &[directory.path().to_str().unwrap(), "no config.json"]);
}

#[test]
fn malformed_generation_settings_are_named() {
    let directory = saved(&config("llama"));
    fs::write(directory.path().join("generation_config.json"), "{").unwrap();
    assert_says(&load(directory.path()).unwrap_err(), &["generation_config.json", "JSON"]);
}

#[test]
fn unknown_architectures_name_those_that_are_known() {
    for model_type in ["gemma3", "mamba", ""] {
        let error = read(json!({ "model_type": model_type })).unwrap_err();
        assert!(matches!(&error, LoadError::UnknownArchitecture { .. }), "{error:?}");
        assert_says(&error, &["here/config.json", &format!("`{model_type}`"), "gemma3_text"]);
    }
    let error = read(json!({})).unwrap_err();
    assert_says(&error, &["model_type", "is missing"]);
    let error = read(json!({"model_type": 5})).unwrap_err();
    assert_says(&error, &["model_type", "expected a text"]);
}

#[test]
fn every_size_must_be_there_and_positive() {
    for family in FAMILIES {
        let sizes: &[&str] = match family {
            "gpt2" => &["vocab_size"],
            _ => &[
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "num_attention_heads",
                "num_hidden_layers",
                "max_position_embeddings",
            ],
        };
        for key in sizes {
            refused(family, json!({ *key: null }), key, "is missing");
            for wrong in [json!(0), json!(-1), json!(1.5), json!("8"), json!([8]), json!(true), json!(1e300)]
            {
                refused(family, json!({ *key: wrong }), key, "expected an integer");
            }
        }
    }
    for key in ["n_embd", "n_head", "n_layer", "n_positions", "n_inner"] {
        refused("gpt2", json!({ key: 0 }), key, "expected an integer");
    }
}

#[test]
fn wrong_types_are_named() {
    refused("llama", json!({"rms_norm_eps": "1e-6"}), "rms_norm_eps", "expected a positive number");
    refused("llama", json!({"rms_norm_eps": 0}), "rms_norm_eps", "expected a positive number");
    refused("llama", json!({"rope_theta": -1.0}), "rope_theta", "expected a positive number");
    refused("llama", json!({"tie_word_embeddings": "yes"}), "tie_word_embeddings", "expected true or false");
    refused("llama", json!({"hidden_act": 3}), "hidden_act", "expected a text");
    refused("llama", json!({"rope_scaling": 3}), "rope_scaling", "expected an object");
    refused("gemma3_text", json!({"layer_types": 3}), "layer_types", "expected a list");
}

#[test]
fn heads_must_fit() {
    refused("llama", json!({"num_key_value_heads": 0}), "num_key_value_heads", "expected an integer");
    refused(
        "llama",
        json!({"num_attention_heads": 4, "num_key_value_heads": 3}),
        "num_key_value_heads",
        "3 does not divide 4",
    );
    refused(
        "llama",
        json!({"num_attention_heads": 2, "num_key_value_heads": 4}),
        "num_key_value_heads",
        "divide",
    );
    refused("llama", json!({"num_attention_heads": 3}), "hidden_size", "8 is not divisible by 3");
    refused("gpt2", json!({"n_head": 3}), "n_embd", "8 is not divisible by 3");
    refused("qwen3", json!({"head_dim": 5}), "head_dim", "even number");
    refused("gemma3_text", json!({"head_dim": 1}), "head_dim", "even number");
}

#[test]
fn layers_must_fit() {
    refused("llama", json!({"num_hidden_layers": 2_000_000_000}), "num_hidden_layers", "more than the 10000");
    refused("gpt2", json!({"n_layer": 2_000_000_000}), "n_layer", "more than the 10000");
    refused(
        "gemma3_text",
        json!({"layer_types": ["full_attention"]}),
        "layer_types",
        "1 entries for 2 layers",
    );
    refused("qwen3", json!({"layer_types": ["full_attention", "chunked"]}), "layer_types", "chunked");
    refused("qwen3", json!({"layer_types": ["full_attention", 3]}), "layer_types", "3 is not supported");
    refused("mistral", json!({"sliding_window": 0}), "sliding_window", "expected an integer");
    refused(
        "gemma3_text",
        json!({"sliding_window_pattern": 0}),
        "sliding_window_pattern",
        "expected an integer",
    );
}

#[test]
fn what_the_decoder_does_not_do_is_refused() {
    refused(
        "gemma3_text",
        json!({"attn_logit_softcapping": 50.0}),
        "attn_logit_softcapping",
        "not supported",
    );
    refused(
        "gemma3_text",
        json!({"final_logit_softcapping": 30.0}),
        "final_logit_softcapping",
        "not supported",
    );
    refused(
        "gemma3_text",
        json!({"use_bidirectional_attention": true}),
        "use_bidirectional_attention",
        "causal",
    );
    refused(
        "llama",
        json!({"hidden_act": "quick_gelu"}),
        "hidden_act",
        "`quick_gelu` is not supported (silu",
    );
    refused("gpt2", json!({"activation_function": "tanh"}), "activation_function", "`tanh`");
    for kind in ["dynamic", "longrope", "su"] {
        refused(
            "llama",
            json!({"rope_scaling": {"rope_type": kind, "factor": 2.0}}),
            "rope_type",
            "(default, linear",
        );
    }
}

#[test]
fn rope_settings_must_make_sense() {
    refused("llama", json!({"rope_scaling": {"type": "linear"}}), "factor", "is missing");
    refused(
        "llama",
        json!({"rope_parameters": {"rope_type": "linear", "factor": 0}}),
        "factor",
        "positive number",
    );
    let equal =
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0});
    refused("llama", json!({ "rope_scaling": equal }), "high_freq_factor", "not above");
    let part = json!({"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5});
    refused("llama", json!({ "rope_scaling": part }), "partial_rotary_factor", "whole heads");
    refused("gpt_neox", json!({"rotary_pct": 0.25}), "rotary_pct", "rotates 1 of a head's 4");
    refused("gpt_neox", json!({"rotary_pct": 1.5}), "rotary_pct", "rotates 6 of");
    refused("gpt_neox", json!({"rotary_pct": 0.1}), "rotary_pct", "rotates 0 of");
}

#[test]
fn a_missing_tokenizer_is_named_and_does_not_keep_a_model_from_being_saved() {
    let directory = saved(&config("llama"));
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let error = checkpoint.tokenizer().unwrap_err();
    assert!(matches!(&error, LoadError::TokenizerFiles { .. }), "{error:?}");
    assert_says(&error, &[directory.path().to_str().unwrap(), "there is no tokenizer.json", "copy the file"]);
    let model = checkpoint.load(&burn::tensor::Device::flex()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    checkpoint.save(&model, copy.path(), align_model::pretrained::SaveOptions::default()).unwrap();
    load(copy.path()).unwrap();
}

#[test]
fn a_malformed_tokenizer_is_named_before_anything_is_saved() {
    let directory = saved(&config("llama"));
    fs::write(directory.path().join("tokenizer.json"), "{}").unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let model = checkpoint.load(&burn::tensor::Device::flex()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let error =
        checkpoint.save(&model, copy.path(), align_model::pretrained::SaveOptions::default()).unwrap_err();
    assert!(matches!(&error, LoadError::TokenizerFiles { .. }), "{error:?}");
    assert_says(&error, &["tokenizer.json"]);
    assert!(crate::models::files(copy.path()).is_empty());
}
