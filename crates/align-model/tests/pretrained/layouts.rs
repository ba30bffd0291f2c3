//! How checkpoints lay out their weights: fused projections, bare models, buffers, tied heads.

use std::fs;

use align_model::{
    causal_lm::{CausalLm, TokenBatch},
    decoder::{Decoder, Head},
    pretrained::{Checkpoint, Family, HostTensor, LoadError, SafetensorsWeights, WeightSource, tensor_name},
};
use burn::tensor::Device;
use serde_json::json;

use crate::models::{
    FAMILIES, architecture, assert_says, config, distinct, edit, load, read_tensors, saved, with,
};

/// Rows of a row-major matrix.
fn rows(values: &[f32], width: usize) -> Vec<Vec<f32>> {
    values.chunks_exact(width).map(<[f32]>::to_vec).collect()
}

fn column(values: &[f32], width: usize, column: usize) -> Vec<f32> {
    rows(values, width).iter().map(|row| row[column]).collect()
}

#[test]
fn gpt2_keeps_query_key_and_value_side_by_side_and_transposed() {
    let (_, parameters) = distinct(&architecture(&config("gpt2")));
    let directory = saved(&config("gpt2"));
    let tensors = read_tensors(&directory.path().join("model.safetensors"));
    let (shape, fused) = &tensors["transformer.h.1.attn.c_attn.weight"];
    assert_eq!(shape, &[8, 24]);
    let (bias_shape, bias) = &tensors["transformer.h.1.attn.c_attn.bias"];
    assert_eq!(bias_shape, &[24]);
    for (part, name) in ["query", "key", "value"].iter().enumerate() {
        let weight = &parameters[&format!("layers.1.attention.{name}.weight")];
        for output in 0..8 {
            assert_eq!(column(fused, 24, 8 * part + output), rows(weight, 8)[output], "{name} {output}");
        }
        assert_eq!(bias[8 * part..8 * (part + 1)], parameters[&format!("layers.1.attention.{name}.bias")]);
    }
    let (shape, up) = &tensors["transformer.h.0.mlp.c_fc.weight"];
    assert_eq!(shape, &[8, 32]);
    assert_eq!(column(up, 32, 5), rows(&parameters["layers.0.mlp.up.weight"], 8)[5]);
}

#[test]
fn gpt_neox_keeps_query_key_and_value_head_by_head() {
    let (_, parameters) = distinct(&architecture(&config("gpt_neox")));
    let directory = saved(&config("gpt_neox"));
    let tensors = read_tensors(&directory.path().join("model.safetensors"));
    let (shape, fused) = &tensors["gpt_neox.layers.1.attention.query_key_value.weight"];
    assert_eq!(shape, &[24, 8]);
    let (_, bias) = &tensors["gpt_neox.layers.1.attention.query_key_value.bias"];
    let fused = rows(fused, 8);
    for (part, name) in ["query", "key", "value"].iter().enumerate() {
        let weight = rows(&parameters[&format!("layers.1.attention.{name}.weight")], 8);
        let own_bias = &parameters[&format!("layers.1.attention.{name}.bias")];
        for (head, channel) in [(0, 0), (0, 3), (1, 0), (1, 3)] {
            let (stored, own) = (head * 12 + part * 4 + channel, head * 4 + channel);
            assert_eq!(fused[stored], weight[own], "{name} head {head} channel {channel}");
            assert_eq!(bias[stored].to_bits(), own_bias[own].to_bits());
        }
    }
}

/// What a model says, to compare two loaded ones.
fn logits(model: &Decoder) -> Vec<f32> {
    let batch = TokenBatch::from_sequences(&[[1u32, 5, 3, 2]]);
    model.logits(model.hidden(&batch)).into_data().iter::<f32>().collect()
}

#[test]
fn the_bare_models_prefix_may_be_missing() {
    for (family, prefix) in [("gpt2", "transformer."), ("gpt_neox", "gpt_neox."), ("llama", "model.")] {
        let directory = saved(&config(family));
        let before = logits(&load(directory.path()).unwrap());
        edit(directory.path(), |tensors| {
            *tensors = std::mem::take(tensors)
                .into_iter()
                .map(|(name, tensor)| (name.strip_prefix(prefix).unwrap_or(&name).to_string(), tensor))
                .collect();
        });
        assert_eq!(logits(&load(directory.path()).unwrap()), before, "{family}");
    }
}

#[test]
fn buffers_of_old_checkpoints_are_ignored_and_nothing_else() {
    let buffers = [
        ("gpt2", "transformer.h.0.attn.bias"),
        ("gpt2", "transformer.h.1.attn.masked_bias"),
        ("gpt_neox", "gpt_neox.layers.0.attention.bias"),
        ("gpt_neox", "gpt_neox.layers.0.attention.masked_bias"),
        ("gpt_neox", "gpt_neox.layers.0.attention.rotary_emb.inv_freq"),
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("llama", "model.rotary_emb.inv_freq"),
        ("llama", "position_ids"),
    ];
    for (family, buffer) in buffers {
        let directory = saved(&config(family));
        edit(directory.path(), |tensors| drop(tensors.insert(buffer.into(), (vec![2], vec![0.0; 2]))));
        load(directory.path()).unwrap_or_else(|e| panic!("{e}"));
    }
    let directory = saved(&config("gpt2"));
    let extra = "transformer.h.2.attn.c_attn.bias";
    edit(directory.path(), |tensors| drop(tensors.insert(extra.into(), (vec![24], vec![0.0; 24]))));
    let error = load(directory.path()).unwrap_err();
    assert!(matches!(&error, LoadError::UnexpectedTensor { tensor, .. } if tensor == extra), "{error:?}");
}

#[test]
fn a_tied_head_may_be_in_the_file() {
    for (family, head, embedding) in [
        ("qwen3", "lm_head.weight", "model.embed_tokens.weight"),
        ("gemma3_text", "lm_head.weight", "model.embed_tokens.weight"),
        ("gpt2", "lm_head.weight", "transformer.wte.weight"),
    ] {
        let directory = saved(&config(family));
        let before = logits(&load(directory.path()).unwrap());
        edit(directory.path(), |tensors| drop(tensors.insert(head.into(), tensors[embedding].clone())));
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        assert_eq!(checkpoint.architecture().config().head, Head::Tied);
        assert_eq!(logits(&checkpoint.load(&Device::flex()).unwrap()), before, "{family}");
    }
}

#[test]
fn a_head_that_differs_from_the_embedding_is_not_tied_to_it() {
    let directory = saved(&config("qwen3"));
    edit(directory.path(), |tensors| {
        let (shape, values) = tensors["model.embed_tokens.weight"].clone();
        let doubled = values.iter().map(|v| 2.0 * v).collect();
        tensors.insert("lm_head.weight".into(), (shape, doubled));
    });
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(checkpoint.architecture().config().head, Head::Untied);
    let model = checkpoint.load(&Device::flex()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    checkpoint.save(&model, copy.path(), align_model::pretrained::SaveOptions::default()).unwrap();
    let again = Checkpoint::open(copy.path()).unwrap();
    assert_eq!(again.architecture().json()["tie_word_embeddings"], false);
    assert_eq!(logits(&again.load(&Device::flex()).unwrap()), logits(&model));
}

#[test]
fn half_and_double_precision_files_load() {
    use safetensors::{Dtype, tensor::TensorView};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.safetensors");
    let values = [1.5f32, -0.25, 3.0];
    let encodings: [(Dtype, Vec<u8>); 4] = [
        (Dtype::F64, values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect()),
        (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        (Dtype::F16, values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect()),
        (Dtype::BF16, values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect()),
    ];
    for (dtype, bytes) in encodings {
        let view = TensorView::new(dtype, vec![3], &bytes).unwrap();
        fs::write(&path, safetensors::serialize([("x", view)], None).unwrap()).unwrap();
        let weights = SafetensorsWeights::open_file(&path).unwrap();
        assert_eq!(weights.names(), ["x"]);
        assert_eq!(weights.shape("x"), Some(vec![3]));
        assert_eq!(weights.shape("y"), None);
        assert_eq!(weights.read("x").unwrap(), HostTensor { shape: vec![3], values: values.to_vec() });
        let error = weights.read("y").unwrap_err();
        assert!(matches!(error, LoadError::MissingTensor { .. }));
        assert_says(&error, &["x.safetensors", "tensor y is missing"]);
    }
}

#[test]
fn parameters_have_the_names_of_their_family() {
    let name = |family| tensor_name(family, "layers.3.mlp_norm.weight");
    assert_eq!(name(Family::Llama), "model.layers.3.post_attention_layernorm.weight");
    assert_eq!(name(Family::Gemma3), "model.layers.3.pre_feedforward_layernorm.weight");
    assert_eq!(name(Family::Gpt2), "transformer.h.3.ln_2.weight");
    assert_eq!(name(Family::GptNeoX), "gpt_neox.layers.3.post_attention_layernorm.weight");
}

#[test]
fn a_saved_directory_has_no_tensor_under_the_modules_own_names() {
    for family in FAMILIES {
        let directory = saved(&with(config(family), json!({"tie_word_embeddings": false})));
        for name in read_tensors(&directory.path().join("model.safetensors")).keys() {
            let prefixes = ["model.", "transformer.", "gpt_neox.", "lm_head.", "embed_out."];
            assert!(prefixes.iter().any(|prefix| name.starts_with(prefix)), "{family}: {name}");
        }
    }
}
