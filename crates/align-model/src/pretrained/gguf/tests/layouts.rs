//! Names, layouts and configurations of every architecture.

use serde_json::{Value, json};

use crate::pretrained::gguf::GgufModel;
use crate::pretrained::gguf::fixture::{Field, Fixture};
use crate::pretrained::{HostTensor, LoadError, WeightSource};

fn read(fixture: &Fixture, name: &str) -> HostTensor {
    GgufModel::open(fixture.file().path()).unwrap().read(name).unwrap()
}

fn config(fixture: &Fixture) -> Value {
    GgufModel::open(fixture.file().path()).unwrap().config().unwrap()
}

/// The rows of a tensor by the value that each begins with, divided by the width.
fn row_order(tensor: &HostTensor) -> Vec<usize> {
    let width = tensor.shape[1];
    tensor.values.chunks(width).map(|row| row[0] as usize / width).collect()
}

#[test]
fn llama_queries_and_keys_get_their_halves_back() {
    let fixture = Fixture::new("llama")
        .counting("blk.0.attn_q.weight", &[8, 4])
        .counting("blk.0.attn_k.weight", &[4, 4])
        .counting("blk.0.attn_v.weight", &[4, 4])
        .counting("blk.0.attn_k.bias", &[4]);
    let query = read(&fixture, "model.layers.0.self_attn.q_proj.weight");
    assert_eq!(query.shape, [8, 4]);
    assert_eq!(row_order(&query), [0, 2, 1, 3, 4, 6, 5, 7]);
    assert_eq!(row_order(&read(&fixture, "model.layers.0.self_attn.k_proj.weight")), [0, 2, 1, 3]);
    assert_eq!(row_order(&read(&fixture, "model.layers.0.self_attn.v_proj.weight")), [0, 1, 2, 3]);
    assert_eq!(read(&fixture, "model.layers.0.self_attn.k_proj.bias").values, [0.0, 2.0, 1.0, 3.0]);
}

#[test]
fn qwen_queries_stay_as_they_are() {
    for architecture in ["qwen2", "qwen3"] {
        let fixture = Fixture::new(architecture).counting("blk.1.attn_q.weight", &[8, 4]);
        let query = read(&fixture, "model.layers.1.self_attn.q_proj.weight");
        assert_eq!(row_order(&query), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
    let fixture = Fixture::new("qwen3").counting("blk.1.attn_q_norm.weight", &[2]);
    assert_eq!(read(&fixture, "model.layers.1.self_attn.q_norm.weight").values, [0.0, 1.0]);
}

#[test]
fn gemma_norms_lose_the_one_that_was_added() {
    let fixture = Fixture::new("gemma3")
        .values("output_norm.weight", &[2], &[1.5, 0.25])
        .values("blk.0.attn_norm.weight", &[2], &[3.0, 1.0])
        .values("blk.0.attn_q_norm.weight", &[2], &[2.0, 1.0])
        .values("blk.0.post_attention_norm.weight", &[2], &[4.0, 1.0])
        .values("blk.0.ffn_norm.weight", &[2], &[5.0, 1.0])
        .values("blk.0.post_ffw_norm.weight", &[2], &[6.0, 1.0])
        .field("gemma3.attention.sliding_window", Field::U32(8));
    assert_eq!(read(&fixture, "model.norm.weight").values, [0.5, -0.75]);
    for (name, first) in [
        ("input_layernorm", 2.0),
        ("self_attn.q_norm", 1.0),
        ("post_attention_layernorm", 3.0),
        ("pre_feedforward_layernorm", 4.0),
        ("post_feedforward_layernorm", 5.0),
    ] {
        assert_eq!(read(&fixture, &format!("model.layers.0.{name}.weight")).values, [first, 0.0]);
    }
    assert_eq!(read(&fixture, "model.embed_tokens.weight").values[..1], [0.0]);
    let config = config(&fixture);
    assert_eq!(config["model_type"], "gemma3_text");
    assert_eq!(config["sliding_window"], 8);
    assert_eq!(config["rope_theta"], 1_000_000.0);
    assert_eq!(config["rope_local_base_freq"], 10_000.0);
    assert_eq!(config["layer_types"], json!(["sliding_attention", "sliding_attention"]));
    assert_eq!(config["query_pre_attn_scalar"], 2);
}

#[test]
fn gpt2_matrices_are_transposed_back() {
    let fixture = Fixture::new("gpt2")
        .counting("position_embd.weight", &[16, 4])
        .counting("blk.0.attn_qkv.weight", &[12, 4])
        .counting("blk.0.attn_qkv.bias", &[12])
        .counting("blk.0.ffn_down.weight", &[4, 6])
        .counting("blk.0.ffn_norm.weight", &[4])
        .counting("output_norm.bias", &[4]);
    let fused = read(&fixture, "transformer.h.0.attn.c_attn.weight");
    assert_eq!(fused.shape, [4, 12]);
    assert_eq!(fused.values[..3], [0.0, 4.0, 8.0]);
    assert_eq!(fused.values[12..13], [1.0]);
    assert_eq!(read(&fixture, "transformer.h.0.mlp.c_proj.weight").shape, [6, 4]);
    assert_eq!(read(&fixture, "transformer.h.0.attn.c_attn.bias").values[11..], [11.0]);
    assert_eq!(read(&fixture, "transformer.wpe.weight").shape, [16, 4]);
    assert_eq!(read(&fixture, "transformer.h.0.ln_2.weight").shape, [4]);
    assert_eq!(read(&fixture, "transformer.ln_f.bias").shape, [4]);
    let config = config(&fixture);
    assert_eq!((&config["n_embd"], &config["n_positions"]), (&json!(4), &json!(16)));
    assert_eq!(config["layer_norm_epsilon"], 1e-5);
}

#[test]
fn neox_heads_get_their_queries_keys_and_values_back() {
    let fixture = Fixture::new("gptneox")
        .counting("blk.0.attn_qkv.weight", &[12, 4])
        .counting("blk.0.attn_qkv.bias", &[12])
        .field("gptneox.rope.dimension_count", Field::U32(1))
        .field("gptneox.use_parallel_residual", Field::Bool(false));
    let fused = read(&fixture, "gpt_neox.layers.0.attention.query_key_value.weight");
    assert_eq!(row_order(&fused), [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]);
    let bias = read(&fixture, "gpt_neox.layers.0.attention.query_key_value.bias");
    assert_eq!(bias.values, [0.0, 1.0, 4.0, 5.0, 8.0, 9.0, 2.0, 3.0, 6.0, 7.0, 10.0, 11.0]);
    let config = config(&fixture);
    assert_eq!(config["rotary_pct"], 0.5);
    assert_eq!(config["use_parallel_residual"], false);
    assert_eq!(config["attention_bias"], true);
}

#[test]
fn llama_configuration_has_the_keys_of_hugging_face() {
    let fixture = Fixture::new("llama")
        .counting("output.weight", &[8, 4])
        .field("llama.rope.freq_base", Field::F32(500_000.0))
        .field("llama.rope.scaling.type", Field::Text("yarn"))
        .field("llama.rope.scaling.factor", Field::F32(4.0))
        .field("llama.rope.scaling.original_context_length", Field::U32(4))
        .field("tokenizer.ggml.eos_token_id", Field::U32(3));
    let config = config(&fixture);
    for (key, expected) in [
        ("architectures", json!(["LlamaForCausalLM"])),
        ("model_type", json!("llama")),
        ("hidden_size", json!(4)),
        ("head_dim", json!(2)),
        ("num_key_value_heads", json!(1)),
        ("rms_norm_eps", json!(1e-5)),
        ("rope_theta", json!(500_000.0)),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4})),
        ("vocab_size", json!(8)),
        ("tie_word_embeddings", json!(false)),
        ("attention_bias", json!(false)),
        ("eos_token_id", json!(3)),
        ("bos_token_id", json!(null)),
    ] {
        assert_eq!(config[key], expected, "{key}");
    }
}

#[test]
fn a_window_makes_llama_mistral() {
    let fixture = Fixture::new("llama").field("llama.attention.sliding_window", Field::U32(8));
    let config = config(&fixture);
    assert_eq!(config["model_type"], "mistral");
    assert_eq!(config["sliding_window"], 8);
}

#[test]
fn names_come_in_the_order_of_the_file() {
    let fixture =
        Fixture::new("llama").counting("output_norm.weight", &[4]).counting("blk.0.attn_norm.weight", &[4]);
    let fixture = fixture.counting("rope_freqs.weight", &[1]);
    let model = GgufModel::open(fixture.file().path()).unwrap();
    assert_eq!(
        model.names(),
        ["model.embed_tokens.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight"]
    );
    let missing = model.read("lm_head.weight").unwrap_err();
    assert!(matches!(missing, LoadError::MissingTensor { tensor, .. } if tensor == "lm_head.weight"));
}

#[test]
fn a_tensor_without_a_place_is_refused() {
    for name in ["blk.0.ffn_gate_inp.weight", "blk.00.attn_q.weight", "blk.0.attn_q.scales", "token_embd"] {
        let fixture = Fixture::new("llama").counting(name, &[4, 4]);
        let error = GgufModel::open(fixture.file().path()).unwrap_err();
        assert!(matches!(error, LoadError::UnknownTensor { ref tensor, .. } if tensor == name), "{error}");
    }
}

#[test]
fn missing_and_senseless_keys_are_named() {
    let mut without = Fixture::new("llama");
    without.fields.retain(|(key, _)| key != "llama.block_count");
    let wrong_type = Fixture::new("llama").field("llama.rope.freq_base", Field::Text("high"));
    let mut zero = Fixture::new("llama");
    zero.fields.iter_mut().find(|(key, _)| key == "llama.context_length").unwrap().1 = Field::U32(0);
    let scaling = Fixture::new("llama").field("llama.rope.scaling.type", Field::Text("longrope"));
    for (fixture, expected) in [
        (without, "llama.block_count"),
        (wrong_type, "llama.rope.freq_base"),
        (zero, "llama.context_length"),
        (scaling, "llama.rope.scaling.type"),
    ] {
        let error = GgufModel::open(fixture.file().path()).unwrap().config().unwrap_err();
        assert!(matches!(error, LoadError::Config { ref key, .. } if key == expected), "{error}");
    }
    let error = GgufModel::open(Fixture::new("falcon").file().path()).unwrap_err();
    assert!(matches!(error, LoadError::UnknownArchitecture { model_type, .. } if model_type == "falcon"));
}
