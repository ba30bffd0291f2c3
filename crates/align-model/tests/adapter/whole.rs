//! Modules that are trained whole beside adapters.

use std::collections::BTreeSet;

use align_model::{
    adapter::{AdapterError, AdapterKind, LoraConfig, SavedAdapter, Targets, save_adapter},
    decoder::{Decoder, Head},
    sft::{SftConfig, SftExample, SftTrainer},
    train::Step as _,
};
use burn::module::Module as _;
use serde_json::{Value, json};

use crate::{
    bad_files::{change, rename},
    models::{FAMILIES, adapted, distance, family, logits, lora, model, rng},
};

fn config(model_type: &str) -> LoraConfig {
    let names: &[&str] = match model_type {
        "gpt2" => &["wte", "wpe", "ln_f"],
        "gpt_neox" => &["embed_in", "lm_head", "final_layer_norm"],
        "llama" => &["embed_tokens", "lm_head", "norm"],
        _ => &["embed_tokens", "input_layernorm"],
    };
    let modules_to_save = names.iter().map(|name| (*name).to_owned()).collect();
    LoraConfig { modules_to_save, ..lora(AdapterKind::Lora) }
}

fn saved(model: &Decoder) -> (tempfile::TempDir, Value) {
    let directory = tempfile::tempdir().unwrap();
    save_adapter(model, directory.path(), Some("some/base")).unwrap();
    let json = std::fs::read(directory.path().join("adapter_config.json")).unwrap();
    (directory, serde_json::from_slice(&json).unwrap())
}

fn read(directory: &tempfile::TempDir, model_type: &str) -> Result<Decoder, AdapterError> {
    SavedAdapter::open(directory.path())?.apply(model(model_type), family(model_type))
}

#[test]
fn they_are_trained_saved_read_merged_and_taken_off() {
    for model_type in FAMILIES {
        let base = model(model_type);
        let fresh = base.clone().with_adapter(family(model_type), &config(model_type), &mut rng(2)).unwrap();
        assert_eq!(logits(&fresh), logits(&base), "{model_type}");
        let trained = adapted(model_type, &config(model_type));
        let plain = adapted(model_type, &lora(AdapterKind::Lora));
        assert!(distance(&logits(&trained), &logits(&plain)) > 1e-3, "{model_type}: they count");
        assert_eq!(logits(&trained.without_adapter()), logits(&base), "{model_type}");
        let merged = trained.clone().merge_adapter().unwrap();
        assert!(distance(&logits(&merged), &logits(&trained)) < 1e-5, "{model_type}");
        assert_eq!(merged.parameter_count(), base.parameter_count());
        assert!(merged.train().embedding.is_require_grad());

        let (directory, _) = saved(&trained);
        let again = read(&directory, model_type).unwrap();
        assert_eq!(logits(&again), logits(&trained), "{model_type}");
        assert_eq!(logits(&again.without_adapter()), logits(&base), "{model_type}");
        let (other, _) = saved(&again);
        let bytes = |directory: &tempfile::TempDir, file| std::fs::read(directory.path().join(file)).unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            assert_eq!(bytes(&directory, file), bytes(&other, file), "{model_type} {file}");
        }
    }
}

#[test]
fn they_and_the_adapters_move_and_nothing_else() {
    let step = |model: Decoder| {
        let mut trainer = SftTrainer::new(model, &SftConfig::default(), 2).unwrap();
        for _ in 0..2 {
            let example = SftExample { tokens: vec![1, 5, 12, 0, 3], is_target: vec![true; 5] };
            trainer.step(&[example][..]).unwrap();
        }
        trainer.into_model()
    };
    let fresh = model("llama").with_adapter(family("llama"), &config("llama"), &mut rng(1)).unwrap();
    let counts = fresh.adapter_parameters();
    let names: BTreeSet<String> = counts.trained.iter().map(|one| one.name.clone()).collect();
    for name in ["model.embed_tokens", "lm_head", "model.norm"] {
        assert!(names.contains(&format!("base_model.model.{name}.weight")), "{names:?}");
    }
    let after = step(fresh.clone().train());
    let values = |tensor: burn::tensor::Tensor<1>| tensor.into_data().try_into_vec::<f32>().unwrap();
    let of = |model: &Decoder| {
        let model = model.clone().valid();
        [values(model.embedding.val().reshape([-1])), values(model.norm.weight.val())]
    };
    let ([embedding, norm], [embedding_after, norm_after]) = (of(&fresh), of(&after));
    assert!(embedding != embedding_after && norm != norm_after);
    let first = |model: &Decoder| {
        let block = &model.clone().valid().layers[0];
        values(block.attention_norm.weight.val())
    };
    assert_eq!(first(&fresh), first(&after), "other norms are frozen");
    assert_eq!(logits(&after.valid().without_adapter()), logits(&model("llama")));
}

#[test]
fn names_are_such_that_peft_finds_the_same_modules() {
    let (_, json) = saved(&adapted("llama", &config("llama")));
    // A short `norm` would mean every norm.
    assert_eq!(json["modules_to_save"], json!(["embed_tokens", "lm_head", "model.norm"]));
    assert!(json["ensure_weight_tying"].is_null());
    let (_, json) = saved(&adapted("llama", &lora(AdapterKind::Lora)));
    assert!(json["modules_to_save"].is_null());
}

#[test]
fn a_tied_head_goes_with_its_embedding() {
    const HEAD: &str = "base_model.model.lm_head.weight";
    assert_eq!(model("gpt2").config().head, Head::Tied);
    let trained = adapted("gpt2", &config("gpt2"));
    let (directory, json) = saved(&trained);
    assert_eq!(json["modules_to_save"], json!(["lm_head", "ln_f", "wpe", "wte"]));
    assert_eq!(json["ensure_weight_tying"], true);
    rename(directory.path(), |name| (name != HEAD).then(|| name.into()));
    let parted = read(&directory, "gpt2").unwrap_err();
    assert!(
        matches!(&parted, AdapterError::TiedHead { tensor, .. } if tensor.ends_with("wte.weight")),
        "{parted}"
    );
}

#[test]
fn what_peft_stores_without_saying_so_is_read() {
    // Embeddings of a vocabulary that grew, and the names of older versions.
    let trained = adapted("llama", &config("llama"));
    let (directory, _) = saved(&trained);
    change(directory.path(), &json!({"modules_to_save": null}));
    assert_eq!(logits(&read(&directory, "llama").unwrap()), logits(&trained));
    let (directory, _) = saved(&trained);
    rename(directory.path(), |name| {
        Some(name.replace("embed_tokens.", "embed_tokens.modules_to_save.default."))
    });
    assert_eq!(logits(&read(&directory, "llama").unwrap()), logits(&trained));
    let neox = adapted("gpt_neox", &config("gpt_neox"));
    let (of_neox, _) = saved(&neox);
    rename(of_neox.path(), |name| Some(name.replace("lm_head.", "embed_out.")));
    assert_eq!(logits(&read(&of_neox, "gpt_neox").unwrap()), logits(&neox));
    // A target that is trained whole has no adapter.
    change(
        directory.path(),
        &json!({"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
        "down_proj", "lm_head"]}),
    );
    assert_eq!(logits(&read(&directory, "llama").unwrap()), logits(&trained));
}

#[test]
fn what_cannot_be_read_is_named() {
    let says = |change: &dyn Fn(&std::path::Path), expected: &str| {
        let (directory, _) = saved(&adapted("llama", &config("llama")));
        change(directory.path());
        let message = read(&directory, "llama").unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    says(
        &|directory| rename(directory, |name| (!name.contains("embed_tokens")).then(|| name.into())),
        "base_model.model.model.embed_tokens.weight is missing",
    );
    says(
        &|directory| {
            rename(directory, |name| {
                Some(name.replace("model.norm.weight", "model.layers.0.mlp.up_proj.weight"))
            });
            change(directory, &json!({"modules_to_save": ["up_proj"]}));
        },
        "model.layers.0.mlp.up_proj.weight",
    );
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let refused = |config: &LoraConfig| {
        model("llama").with_adapter(family("llama"), config, &mut rng(0)).unwrap_err().to_string()
    };
    let config = |names: &[&str], targets: Targets| LoraConfig {
        modules_to_save: names.iter().map(|name| (*name).to_owned()).collect(),
        targets,
        ..lora(AdapterKind::Lora)
    };
    let unknown = refused(&config(&["q_proj"], Targets::AllLinear));
    assert!(unknown.contains("modules_to_save: `q_proj`") && unknown.contains("embed_tokens"), "{unknown}");
    let both = refused(&config(&["lm_head"], Targets::Modules(["lm_head".into()].into())));
    assert!(both.contains("`lm_head` is also among `targets`"), "{both}");
}
