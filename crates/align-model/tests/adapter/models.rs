//! Small models of every family, adapted.

use std::path::Path;

use align_model::{
    adapter::{AdapterKind, LoraConfig, Scaling, Targets},
    causal_lm::{CausalLm, DropoutSeed, PassOptions, TokenBatch},
    decoder::{Decoder, ParameterSource},
    number::Positive,
    pretrained::{Architecture, Family},
};
use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Device, Tensor, TensorData},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Families that differ in what an adapter sees: separate projections, biases, fused projections of both layouts.
pub(crate) const FAMILIES: [&str; 5] = ["llama", "qwen2", "gemma3_text", "gpt2", "gpt_neox"];

fn config(model_type: &str) -> Value {
    if model_type == "gpt2" {
        return json!({"model_type": "gpt2", "vocab_size": 13, "n_embd": 8, "n_head": 2, "n_layer": 2, "n_positions": 16});
    }
    json!({
        "model_type": model_type, "vocab_size": 13, "hidden_size": 8, "intermediate_size": 12,
        "num_attention_heads": 2, "num_hidden_layers": 2, "max_position_embeddings": 16, "rotary_pct": 0.5,
        "num_key_value_heads": if model_type == "gpt_neox" { 2 } else { 1 }, "head_dim": 4,
    })
}

struct Uniform(ChaCha8Rng);

impl ParameterSource for Uniform {
    type Error = std::convert::Infallible;

    fn parameter(&mut self, _path: &str, shape: &[usize]) -> Result<Vec<f32>, Self::Error> {
        Ok((0..shape.iter().product()).map(|_| uniform(&mut self.0)).collect())
    }
}

fn uniform(rng: &mut ChaCha8Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1u32 << 23) as f32 - 1.0
}

pub(crate) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

pub(crate) fn architecture(model_type: &str) -> Architecture {
    Architecture::from_json(Path::new("config.json"), config(model_type)).unwrap()
}

pub(crate) fn family(model_type: &str) -> Family {
    architecture(model_type).family()
}

/// A model with random weights and biases.
pub(crate) fn model(model_type: &str) -> Decoder {
    let Ok(model) = Decoder::build(architecture(model_type).config(), &mut Uniform(rng(1)), &Device::flex());
    model
}

pub(crate) fn lora(kind: AdapterKind) -> LoraConfig {
    LoraConfig { kind, rank: 3.try_into().unwrap(), targets: Targets::AllLinear, ..LoraConfig::default() }
}

/// One of each kind and scaling.
pub(crate) fn kinds() -> [LoraConfig; 3] {
    let alpha = Positive::new(5.0);
    [
        LoraConfig { alpha, ..lora(AdapterKind::Lora) },
        LoraConfig { alpha, scaling: Scaling::RankStabilized, ..lora(AdapterKind::Lora) },
        LoraConfig { alpha, ..lora(AdapterKind::Dora) },
    ]
}

/// The model with an adapter that has learnt something: every trained number is random.
pub(crate) fn adapted(model_type: &str, config: &LoraConfig) -> Decoder {
    let model = model(model_type).with_adapter(family(model_type), config, &mut rng(2)).unwrap();
    randomized(model, 3)
}

/// Gives everything that is trained other values; magnitudes stay near where they were.
pub(crate) fn randomized(model: Decoder, seed: u64) -> Decoder {
    model.map(&mut Randomize(rng(seed)))
}

struct Randomize(ChaCha8Rng);

impl ModuleMapper for Randomize {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.clone().train().is_require_grad() {
            return param;
        }
        param.map(|old| {
            let values: Vec<f32> =
                (0..old.shape().num_elements()).map(|_| 0.3 * uniform(&mut self.0)).collect();
            let noise = Tensor::<D>::from_data(TensorData::new(values, old.shape()), &old.device());
            if D == 1 { old * (noise + 1.0) } else { noise }
        })
    }
}

pub(crate) fn batch() -> TokenBatch {
    TokenBatch::from_sequences(&[vec![1, 5, 12, 0, 3], vec![7, 7, 2]])
}

/// All logits of the batch.
pub(crate) fn logits(model: &Decoder) -> Vec<f32> {
    model.logits(model.hidden(&batch())).into_data().try_into_vec().unwrap()
}

/// All logits of a training pass with dropout.
pub(crate) fn logits_with_dropout(model: &Decoder, seed: u64) -> Vec<f32> {
    let options = PassOptions { dropout: Some(DropoutSeed(seed)), ..PassOptions::default() };
    let batch = batch();
    let hidden = model.training_pass(&batch, options).hidden();
    model.logits(hidden).into_data().try_into_vec().unwrap()
}

/// How far apart two arrays are at most, relative to the largest number.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(1e-30f32, |m, x| m.max(x.abs()));
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}
