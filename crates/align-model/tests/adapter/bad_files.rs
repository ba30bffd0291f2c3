//! Adapters that cannot be used, and what is said of them; and what other versions of PEFT write, which can.

use std::{fs, path::Path};

use align_model::{
    adapter::{AdapterError, AdapterKind, SavedAdapter, save_adapter},
    decoder::Decoder,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use crate::models::{adapted, family, kinds, logits, lora, model};

fn saved(kind: AdapterKind) -> (tempfile::TempDir, Decoder) {
    let trained = adapted("llama", &lora(kind));
    let directory = tempfile::tempdir().unwrap();
    save_adapter(&trained, directory.path(), None).unwrap();
    (directory, trained)
}

pub(crate) fn change(directory: &Path, changes: &Value) {
    let path = directory.join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    fs::write(path, config.to_string()).unwrap();
}

/// Renames tensors; those without a new name are dropped.
pub(crate) fn rename(directory: &Path, new_name: impl Fn(&str) -> Option<String>) {
    let path = directory.join("adapter_model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let views = file.iter().filter_map(|(name, view)| {
        Some((new_name(name)?, TensorView::new(Dtype::F32, view.shape().to_vec(), view.data()).unwrap()))
    });
    let written = safetensors::serialize(views, None).unwrap();
    fs::write(path, written).unwrap();
}

fn load(directory: &Path) -> Result<Decoder, AdapterError> {
    SavedAdapter::open(directory)?.apply(model("llama"), family("llama"))
}

#[track_caller]
fn says(directory: &Path, parts: &[&str]) {
    let message = load(directory).unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "`{message}` does not say `{part}`");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    for (key, value) in [
        ("peft_type", json!("IA3")),
        ("bias", json!("lora_only")),
        ("modules_to_save", json!("norm")),
        ("lora_bias", json!(true)),
        ("use_qalora", json!(true)),
        ("layer_replication", json!([[0, 1], [0, 1]])),
        ("alora_invocation_tokens", json!([1, 2])),
        ("trainable_token_indices", json!([3])),
        ("target_parameters", json!(["experts.weight"])),
        ("arrow_config", json!({"top_k": 2})),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("loftq")),
        ("a_key_of_tomorrow", json!("on")),
        ("r", json!(0)),
        ("r", json!("eight")),
        ("lora_alpha", json!(-1)),
        ("lora_dropout", json!(1.5)),
        ("use_dora", json!("yes")),
        ("alpha_pattern", json!({".*q_proj": 3})),
        ("rank_pattern", json!({"q_proj": 0})),
        ("layers_to_transform", json!(["one"])),
    ] {
        let (directory, _) = saved(AdapterKind::Lora);
        change(directory.path(), &json!({key: value}));
        says(directory.path(), &["adapter_config.json", key]);
    }
}

#[test]
fn what_versions_of_peft_add_is_read() {
    let (directory, trained) = saved(AdapterKind::Lora);
    let all_keys = json!({
        "alora_invocation_tokens": null, "arrow_config": null, "corda_config": null, "eva_config": null,
        "ensure_weight_tying": false, "exclude_modules": null, "layer_replication": null, "loftq_config": {},
        "lora_bias": false, "megatron_config": null, "megatron_core": "megatron.core", "peft_version": "0.21.2",
        "qalora_group_size": 16, "target_parameters": null, "trainable_token_indices": null, "use_bdlora": null,
        "use_qalora": false, "revision": "main", "runtime_config": {"ephemeral_gpu_offload": false},
        "layers_to_transform": [], "layers_pattern": [], "a_key_of_tomorrow": null,
    });
    change(directory.path(), &all_keys);
    assert_eq!(logits(&load(directory.path()).unwrap()), logits(&trained));
    // All that PEFT 0.3 knew.
    let path = directory.path().join("adapter_config.json");
    let old = json!({"peft_type": "LORA", "r": 3, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "v_proj",
        "o_proj", "gate_proj", "up_proj", "down_proj"]});
    fs::write(&path, old.to_string()).unwrap();
    assert_eq!(logits(&load(directory.path()).unwrap()), logits(&trained));
}

#[test]
fn layers_may_be_described_by_regular_expressions() {
    let (directory, trained) = saved(AdapterKind::Lora);
    for changes in [
        json!({"target_modules": ".*\\.(self_attn|mlp)\\..*proj"}),
        json!({"target_modules": "all-linear"}),
        json!({"target_modules": ["q_proj"], "layers_pattern": "layers", "layers_to_transform": [0]}),
        json!({"exclude_modules": ".*head"}),
        json!({"rank_pattern": {".*q_proj": 3}}),
        json!({"alpha_pattern": {"^model\\.layers\\.0\\.self_attn\\.q_proj$": 8}}),
    ] {
        change(directory.path(), &changes);
        assert_eq!(logits(&load(directory.path()).unwrap()), logits(&trained), "{changes}");
    }
}

#[test]
fn the_first_pattern_that_fits_counts() {
    let (directory, _) = saved(AdapterKind::Lora);
    change(directory.path(), &json!({"alpha_pattern": {"q_proj": 16, "layers.0.self_attn.q_proj": 32}}));
    let read = load(directory.path()).unwrap();
    let scale = read.layers[0].attention.query.adapter.as_ref().unwrap().scale();
    assert!((scale - 16.0 / 3.0).abs() < 1e-12, "{scale}");
}

#[test]
fn magnitudes_are_read_under_both_names() {
    let (directory, trained) = saved(AdapterKind::Dora);
    rename(directory.path(), |name| {
        Some(if name.ends_with("magnitude_vector") { format!("{name}.weight") } else { name.into() })
    });
    assert_eq!(logits(&load(directory.path()).unwrap()), logits(&trained));
}

#[test]
fn missing_and_surplus_tensors_are_named() {
    const B: &str = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight";
    let (directory, _) = saved(AdapterKind::Lora);
    rename(directory.path(), |name| (name != B).then(|| name.into()));
    says(directory.path(), &["adapter_model.safetensors", B, "missing"]);
    rename(directory.path(), |name| (!name.contains("layers.1.mlp.up_proj")).then(|| name.into()));
    says(directory.path(), &["layers.1.mlp.up_proj", "missing"]);

    for surplus in ["base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.lora_A.weight"] {
        let (directory, _) = saved(AdapterKind::Lora);
        rename(directory.path(), |name| Some(if name == B { surplus.into() } else { name.into() }));
        says(directory.path(), &[surplus, "another model"]);
    }
    let (directory, _) = saved(AdapterKind::Dora);
    change(directory.path(), &json!({"use_dora": false}));
    says(directory.path(), &["lora_magnitude_vector"]);
    let (directory, _) = saved(AdapterKind::Lora);
    change(directory.path(), &json!({"use_dora": true}));
    says(directory.path(), &["lora_magnitude_vector", "missing"]);
    change(directory.path(), &json!({"use_dora": false, "target_modules": ["q_proj"]}));
    says(directory.path(), &["adapter_model.safetensors", "lora_A"]);
}

#[test]
fn shapes_and_ranks_have_to_fit() {
    let (directory, _) = saved(AdapterKind::Lora);
    change(directory.path(), &json!({"r": 4}));
    says(directory.path(), &["lora_A", "[3, 8]", "[4, 8]"]);
    let qwen = adapted("gpt_neox", &kinds()[0]);
    save_adapter(&qwen, directory.path(), None).unwrap();
    says(directory.path(), &["gpt_neox", "another model"]);
}

#[test]
fn incomplete_directories_say_what_to_do() {
    let (directory, _) = saved(AdapterKind::Lora);
    let weights = directory.path().join("adapter_model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 5]).unwrap();
    says(directory.path(), &["adapter_model.safetensors", "damaged"]);
    fs::remove_file(&weights).unwrap();
    says(directory.path(), &["adapter_model.safetensors", "copy"]);
    fs::write(directory.path().join("adapter_model.bin"), "").unwrap();
    says(directory.path(), &["adapter_model.bin", "PEFT"]);
    fs::write(directory.path().join("adapter_model.safetensors"), &bytes).unwrap();
    fs::write(directory.path().join("adapter_config.json"), "[]").unwrap();
    says(directory.path(), &["adapter_config.json"]);
    fs::remove_file(directory.path().join("adapter_config.json")).unwrap();
    says(directory.path(), &["adapter_config.json"]);
}
