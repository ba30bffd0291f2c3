//! Adapters written and read.

use std::fs;

use align_model::{
    adapter::{
        AdapterError, AdapterInitialization, AdapterKind, LoraConfig, SavedAdapter, Targets, save_adapter,
    },
    number::{Positive, ProperFraction},
    pretrained::{LoadError, SaveOptions},
};
use serde_json::{Value, json};

use crate::models::{FAMILIES, adapted, architecture, family, kinds, logits, lora, model};

fn saved(model: &align_model::decoder::Decoder) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    save_adapter(model, directory.path(), Some("some/base")).unwrap();
    directory
}

fn config_of(directory: &tempfile::TempDir) -> Value {
    serde_json::from_slice(&fs::read(directory.path().join("adapter_config.json")).unwrap()).unwrap()
}

#[test]
fn what_is_saved_loads_bit_by_bit() {
    for model_type in FAMILIES {
        for config in kinds() {
            let trained = adapted(model_type, &config);
            let directory = saved(&trained);
            let read = SavedAdapter::open(directory.path()).unwrap();
            assert_eq!(read.base_model(), Some("some/base"));
            let again = read.apply(model(model_type), family(model_type)).unwrap();
            assert_eq!(logits(&again), logits(&trained), "{model_type} {config:?}");
            let other = saved(&again);
            for file in ["adapter_config.json", "adapter_model.safetensors"] {
                let bytes = |directory: &tempfile::TempDir| fs::read(directory.path().join(file)).unwrap();
                assert_eq!(bytes(&other), bytes(&directory), "{model_type} {file}");
            }
        }
    }
}

#[test]
fn every_setting_survives() {
    let config = LoraConfig {
        dropout: ProperFraction::new(0.25),
        initialization: AdapterInitialization::Gaussian,
        alpha: Positive::new(2.5),
        rank_pattern: [
            ("q_proj".into(), 2.try_into().unwrap()),
            ("layers.1.self_attn.q_proj".into(), 5.try_into().unwrap()),
        ]
        .into(),
        alpha_pattern: [("mlp.up_proj".into(), Positive::new(7.0))].into(),
        ..lora(AdapterKind::Lora)
    };
    let trained = adapted("llama", &config);
    let again =
        SavedAdapter::open(saved(&trained).path()).unwrap().apply(model("llama"), family("llama")).unwrap();
    assert_eq!(logits(&again), logits(&trained));
    let read = again.adapter_config().unwrap();
    assert_eq!((read.dropout, read.alpha, read.rank), (config.dropout, config.alpha, config.rank));
    assert_eq!(read.initialization, config.initialization);
    assert_eq!(again.layers[1].attention.query.adapter.as_ref().unwrap().rank(), 5);
    assert_eq!(again.layers[0].attention.query.adapter.as_ref().unwrap().rank(), 2);
}

#[test]
fn names_and_shapes_are_pefts() {
    let trained = adapted("gpt_neox", &lora(AdapterKind::Dora));
    let parameters = trained.adapter_parameters();
    let attention = "base_model.model.gpt_neox.layers.0.attention.query_key_value";
    let shape = |name: String| parameters.trained.iter().find(|p| p.name == name).unwrap().shape.clone();
    assert_eq!(shape(format!("{attention}.lora_A.weight")), [3, 8]);
    assert_eq!(shape(format!("{attention}.lora_B.weight")), [24, 3]);
    assert_eq!(shape(format!("{attention}.lora_magnitude_vector")), [24]);
    assert_eq!(parameters.frozen_count, model("gpt_neox").parameter_count());
    assert_eq!(parameters.trained_count + parameters.frozen_count, trained.parameter_count());
    let config = config_of(&saved(&trained));
    assert_eq!(
        config["target_modules"],
        json!(["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"])
    );
    assert_eq!((&config["use_dora"], &config["fan_in_fan_out"]), (&json!(true), &json!(false)));
    assert_eq!(config_of(&saved(&adapted("gpt2", &lora(AdapterKind::Lora))))["fan_in_fan_out"], json!(true));
}

#[test]
fn layers_that_short_names_do_not_tell_apart_are_written_in_full() {
    let config = LoraConfig {
        targets: Targets::Modules(["q_proj".into()].into()),
        layers_to_transform: Some([1].into()),
        ..lora(AdapterKind::Lora)
    };
    let directory = saved(&adapted("llama", &config));
    assert_eq!(config_of(&directory)["target_modules"], json!(["model.layers.1.self_attn.q_proj"]));
    SavedAdapter::open(directory.path()).unwrap().apply(model("llama"), family("llama")).unwrap();
}

#[test]
fn a_loaded_adapter_takes_the_place_of_one_before_it() {
    let (first, second) = (adapted("llama", &kinds()[0]), adapted("llama", &kinds()[2]));
    let directory = saved(&first);
    save_adapter(&second, directory.path(), None).unwrap();
    let read = SavedAdapter::open(directory.path()).unwrap();
    assert_eq!(read.base_model(), None);
    assert_eq!(logits(&read.apply(model("llama"), family("llama")).unwrap()), logits(&second));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else is left behind");
}

#[test]
fn a_model_with_an_adapter_is_not_saved_as_a_whole() {
    let (architecture, directory) = (architecture("llama"), tempfile::tempdir().unwrap());
    let trained = adapted("llama", &lora(AdapterKind::Lora));
    let refused = architecture.save(&trained, directory.path(), SaveOptions::default());
    assert!(matches!(refused, Err(LoadError::HasAdapter)));
    architecture.save(&trained.merge_adapter().unwrap(), directory.path(), SaveOptions::default()).unwrap();
    assert!(matches!(save_adapter(&model("llama"), directory.path(), None), Err(AdapterError::NoAdapter)));
}
