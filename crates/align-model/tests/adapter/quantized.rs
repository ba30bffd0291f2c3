//! Weights in four and eight bits.

use align_model::{
    adapter::{AdapterError, AdapterKind},
    decoder::{BaseWeights, Decoder, Weight},
    pretrained::{LoadError, SaveOptions},
};
use burn::module::Module;
use proptest::prelude::*;

use crate::models::{FAMILIES, adapted, architecture, distance, logits, lora, model};

const FORMATS: [BaseWeights; 2] = [BaseWeights::Int8, BaseWeights::NormalFloat4];

fn weight(model: &Decoder) -> Vec<f32> {
    model.layers[0].mlp.up.weight.val().into_data().try_into_vec().unwrap()
}

#[test]
fn a_quantized_model_is_the_model_with_rounded_weights() {
    for model_type in FAMILIES {
        for base in FORMATS {
            let quantized = model(model_type).quantize_base(base).unwrap();
            assert!(quantized.is_quantized());
            let rounded = quantized.clone().dequantize_base();
            assert!(!rounded.is_quantized());
            assert_eq!(logits(&quantized), logits(&rounded), "{model_type} {base:?}");
            assert_eq!(logits(&quantized.clone().train()), logits(&rounded.clone().train()));
            assert_eq!(logits(&quantized.clone().train().valid()), logits(&rounded));
            assert_eq!(quantized.parameter_count(), model(model_type).parameter_count());
            assert_ne!(weight(&rounded), weight(&model(model_type)));
        }
    }
}

#[test]
fn bits_are_saved() {
    let full = model("llama");
    let bytes = |base| {
        let model = full.clone().quantize_base(base).unwrap();
        model.layers[0].mlp.up.weight.bytes() as f64
    };
    // 12 × 8 numbers are one block of 64 and one that is half full.
    assert!((bytes(BaseWeights::Full) - 4.0 * 96.0).abs() < 0.5);
    assert!((bytes(BaseWeights::Int8) - (128.0 + 8.0)).abs() < 0.5);
    assert!((bytes(BaseWeights::NormalFloat4) - (64.0 + 8.0)).abs() < 0.5);
    let four = full.clone().quantize_base(BaseWeights::NormalFloat4).unwrap();
    assert!(four.weight_bytes() < full.weight_bytes());
    assert_eq!(full.weight_bytes(), 4 * full.parameter_count());
}

#[test]
fn an_adapter_is_merged_into_dequantized_weights_alone() {
    let trained = adapted("gpt_neox", &lora(AdapterKind::Lora)).quantize_base(BaseWeights::Int8).unwrap();
    assert!(matches!(trained.clone().merge_adapter(), Err(AdapterError::QuantizedBase)));
    let merged = trained.clone().dequantize_base().merge_adapter().unwrap();
    assert!(distance(&logits(&merged), &logits(&trained)) < 1e-5);
}

#[test]
fn a_quantized_model_is_not_saved() {
    let (architecture, directory) = (architecture("llama"), tempfile::tempdir().unwrap());
    let quantized = model("llama").quantize_base(BaseWeights::Int8).unwrap();
    let refused = architecture.save(&quantized, directory.path(), SaveOptions::default());
    assert!(matches!(refused, Err(LoadError::QuantizedBase)));
    architecture.save(&quantized.dequantize_base(), directory.path(), SaveOptions::default()).unwrap();
}

#[test]
fn zeros_and_the_largest_number_are_exact() {
    for base in FORMATS {
        let mut model = model("llama");
        let Weight::Full(parameter) = &mut model.layers[0].mlp.up.weight else { panic!("not quantized") };
        *parameter = parameter.clone().map(|old| {
            let device = old.device();
            let mut values = vec![0f32; 96];
            (values[3], values[5], values[95]) = (-2.5, 2.5, 1e-3);
            burn::tensor::Tensor::from_data(burn::tensor::TensorData::new(values, [12, 8]), &device)
        });
        let before = weight(&model);
        assert_eq!(weight(&model.quantize_base(base).unwrap()), before, "{base:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rounding_is_to_the_nearest_step(scale in 1e-6f32..1e6) {
        for (base, half_step) in [(BaseWeights::Int8, 0.5 / 127.0), (BaseWeights::NormalFloat4, 0.1520)] {
            let mut model = model("llama");
            let Weight::Full(parameter) = &mut model.layers[0].mlp.up.weight else { panic!("not quantized") };
            *parameter = parameter.clone().map(|old| old * scale);
            let before = weight(&model);
            let after = weight(&model.quantize_base(base).unwrap());
            for (old, new) in before.chunks(64).zip(after.chunks(64)) {
                let largest = old.iter().fold(0f32, |m, x| m.max(x.abs()));
                for (old, new) in old.iter().zip(new) {
                    prop_assert!((old - new).abs() <= 1.0001 * half_step * largest, "{base:?}: {old} became {new}");
                }
            }
        }
    }
}
