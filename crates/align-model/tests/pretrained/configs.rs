//! What configurations mean, in transformers' old words and new ones.

use align_model::decoder::{
    Activation, AttentionBias, DecoderConfig, Head, LayerConfig, Positions, Residual, RopeConfig, RopeScaling,
};
use serde_json::{Value, json};

use crate::models::{architecture, config, with};

fn read(config: &Value) -> DecoderConfig {
    architecture(config).config().clone()
}

fn ropes(config: &Value) -> Vec<RopeConfig> {
    match read(config).positions {
        Positions::Rotary(ropes) => ropes,
        Positions::Learned => Vec::new(),
    }
}

fn windows(config: &Value) -> Vec<Option<usize>> {
    read(config).layers.iter().map(|layer| layer.window).collect()
}

/// Old keys alone, new keys alone and both together mean the same.
#[track_caller]
fn same(base: &str, old: Value, new: Value, expected: &[RopeConfig]) {
    let both = with(with(config(base), old.clone()), new.clone());
    for config in [with(config(base), old), with(config(base), new), both] {
        assert_eq!(ropes(&config), expected, "{config}");
    }
}

#[test]
fn rope_theta_and_scaling_in_both_spellings() {
    let rope = |scaling| [RopeConfig { theta: 5e5, rotated: 4, scaling }];
    same(
        "llama",
        json!({"rope_theta": 5e5}),
        json!({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}),
        &rope(RopeScaling::None),
    );
    same(
        "llama",
        json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}}),
        json!({"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 4.0}}),
        &rope(RopeScaling::Linear { factor: 4.0 }),
    );
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8});
    same(
        "qwen2",
        json!({"rope_theta": 5e5, "rope_scaling": llama3}),
        json!({"rope_parameters": with(llama3.clone(), json!({"rope_theta": 5e5}))}),
        &rope(RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_max_positions: 8.0,
        }),
    );
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8});
    same(
        "mistral",
        json!({"rope_theta": 5e5, "rope_scaling": yarn}),
        json!({"rope_parameters": with(yarn.clone(), json!({"rope_theta": 5e5}))}),
        &rope(RopeScaling::Yarn {
            factor: 4.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original_max_positions: 8.0,
            attention_factor: 0.1 * 4f64.ln() + 1.0,
            truncate: true,
        }),
    );
}

#[test]
fn yarn_fills_in_what_a_config_leaves_out() {
    let yarn = |scaling: Value| {
        let scaling = with(json!({"rope_type": "yarn"}), scaling);
        match &ropes(&with(config("llama"), json!({"rope_scaling": scaling})))[0].scaling {
            RopeScaling::Yarn { factor, attention_factor, truncate, original_max_positions, .. } => {
                (*factor, *attention_factor, *truncate, *original_max_positions)
            }
            other => panic!("{other:?}"),
        }
    };
    let plain = 0.1 * 2f64.ln() + 1.0;
    assert_eq!(yarn(json!({"original_max_position_embeddings": 8})), (2.0, plain, true, 8.0));
    assert_eq!(yarn(json!({"factor": 2.0})), (2.0, plain, true, 16.0));
    assert_eq!(
        yarn(json!({"factor": 2.0, "attention_factor": 0.7, "truncate": false})),
        (2.0, 0.7, false, 16.0)
    );
    let deepseek = json!({"factor": 2.0, "mscale": 1.0, "mscale_all_dim": 0.5});
    assert!((yarn(deepseek).1 - plain / (0.05 * 2f64.ln() + 1.0)).abs() < 1e-12);
}

#[test]
fn gemma_rotates_locally_and_globally() {
    let rope = |theta, scaling| RopeConfig { theta, rotated: 6, scaling };
    let linear = RopeScaling::Linear { factor: 8.0 };
    same(
        "gemma3_text",
        json!({"rope_theta": 2e6, "rope_local_base_freq": 3e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
        json!({"rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 3e4},
        }}),
        &[rope(2e6, linear.clone()), rope(3e4, RopeScaling::None)],
    );
    assert_eq!(ropes(&config("gemma3_text")), [rope(1e6, RopeScaling::None), rope(1e4, RopeScaling::None)]);
    let global_only = json!({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}}});
    let read = ropes(&with(config("gemma3_text"), global_only));
    assert_eq!(read, [rope(1e6, linear), rope(1e4, RopeScaling::None)]);
}

#[test]
fn neox_rotates_a_part_of_each_head() {
    let base = with(config("gpt_neox"), json!({"hidden_size": 16, "rotary_pct": null}));
    let rotated = |changes: Value| {
        let rope = ropes(&with(base.clone(), changes)).remove(0);
        (rope.rotated, rope.theta)
    };
    assert_eq!(rotated(json!({})), (2, 1e4));
    assert_eq!(rotated(json!({"rotary_pct": 0.5, "rotary_emb_base": 5e3})), (4, 5e3));
    assert_eq!(rotated(json!({"partial_rotary_factor": 1.0, "rope_theta": 5e3})), (8, 5e3));
    let new = json!({"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 5e3}});
    assert_eq!(rotated(new), (4, 5e3));
}

#[test]
fn other_families_rotate_whole_heads() {
    let share =
        json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5, "rope_theta": 1e4}});
    assert_eq!(ropes(&with(config("llama"), share))[0].rotated, 4);
}

#[test]
fn layers_slide_as_their_family_does() {
    let four = json!({"num_hidden_layers": 4});
    let of = |family: &str, changes: Value| windows(&with(with(config(family), four.clone()), changes));
    assert_eq!(of("llama", json!({"sliding_window": 4})), [None; 4]);
    assert_eq!(of("mistral", json!({})), [Some(4); 4]);
    let mut without = config("mistral");
    without["sliding_window"] = Value::Null;
    assert_eq!(windows(&without), [None; 2]);
    // transformers' default where a configuration does not have the key at all.
    assert_eq!(of("mistral", json!({"sliding_window": null})), [Some(4096); 4]);
    assert_eq!(of("qwen2", json!({"sliding_window": 3})), [None; 4]);
    let from_two = json!({"sliding_window": 3, "use_sliding_window": true, "max_window_layers": 2});
    assert_eq!(of("qwen2", from_two), [None, None, Some(3), Some(3)]);
    let every_second = json!({"sliding_window_pattern": 2});
    assert_eq!(of("gemma3_text", every_second), [Some(4), None, Some(4), None]);
    let types = json!(["full_attention", "sliding_attention", "sliding_attention", "full_attention"]);
    let gemma = with(with(config("gemma3_text"), four.clone()), json!({"layer_types": types}));
    assert_eq!(windows(&gemma), [None, Some(4), Some(4), None]);
    let ropes: Vec<usize> = read(&gemma).layers.iter().map(|layer| layer.rope).collect();
    assert_eq!(ropes, [0, 1, 1, 0]);
}

#[test]
fn attention_is_scaled_as_the_family_does() {
    let scales = |config: &Value| {
        read(config).layers.iter().map(|l: &LayerConfig| l.attention_scale).collect::<Vec<_>>()
    };
    assert_eq!(scales(&config("llama")), [0.5; 2]);
    assert_eq!(scales(&config("gemma3_text")), [0.0625; 2]);
    assert_eq!(scales(&with(config("gemma3_text"), json!({"query_pre_attn_scalar": 4}))), [0.5; 2]);
    assert_eq!(scales(&with(config("gpt2"), json!({"scale_attn_by_inverse_layer_idx": true}))), [0.5, 0.25]);
    assert_eq!(scales(&with(config("gpt2"), json!({"scale_attn_weights": false}))), [1.0; 2]);
}

#[test]
fn what_a_config_leaves_out_is_transformers_default() {
    let llama = read(&with(config("llama"), json!({"num_key_value_heads": null})));
    assert_eq!((llama.kv_heads, llama.head_dim, llama.head), (2, 4, Head::Untied));
    assert_eq!(read(&with(config("qwen3"), json!({"head_dim": null}))).head_dim, 128);
    assert_eq!(read(&with(config("gemma3_text"), json!({"head_dim": null}))).head_dim, 256);
    let gpt2 = read(&config("gpt2"));
    assert_eq!((gpt2.intermediate_size, gpt2.head, gpt2.activation), (32, Head::Tied, Activation::GeluTanh));
    let neox = read(&config("gpt_neox"));
    assert_eq!((neox.residual, neox.attention_bias), (Residual::Parallel, AttentionBias::All));
    assert_eq!((neox.head, neox.activation), (Head::Untied, Activation::Gelu));
    assert_eq!(read(&config("qwen2")).attention_bias, AttentionBias::QueryKeyValue);
}

#[test]
fn gemma_activations_have_two_names_and_the_newer_one_wins() {
    let both = json!({"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "relu"});
    assert_eq!(read(&with(config("gemma3_text"), both)).activation, Activation::GeluTanh);
    assert_eq!(
        read(&with(config("gemma3_text"), json!({"hidden_act": "relu"}))).activation,
        Activation::Relu
    );
}
