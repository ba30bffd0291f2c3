//! Relations that any estimate has to satisfy; how near it comes is measured by `benches/compare.rs`.

use std::path::Path;

use super::*;
use crate::pretrained::Architecture;
use burn::tensor::Device;
use proptest::prelude::*;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

fn llama(layers: usize) -> DecoderConfig {
    let json = serde_json::json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": true,
    });
    let architecture = Architecture::from_json(Path::new("config.json"), json).unwrap();
    architecture.random(&mut ChaCha8Rng::seed_from_u64(1), &Device::flex()).config().clone()
}

fn setup(recompute: Recompute) -> TrainingSetup {
    TrainingSetup {
        trained: Trained::Everything,
        recompute,
        compute: ComputeDtype::Float32,
        base: BaseWeights::Full,
        passes: 1,
        copies: 0,
    }
}

proptest! {
    #[test]
    fn less_is_kept_where_more_is_recomputed(lengths in prop::collection::vec(1usize..700, 1..6), layers in 2usize..5) {
        let (config, targets) = (llama(layers), lengths.iter().sum());
        let pass = LargestPass { lengths: &lengths, targets };
        let of = |recompute| MemoryEstimate::new(&config, &setup(recompute), &pass);
        let (nothing, attention) = (of(Recompute::Nothing), of(Recompute::Attention));
        prop_assert!(of(Recompute::Layers).kept < attention.kept && attention.kept < nothing.kept);
        prop_assert!(of(Recompute::Layers).total(0) <= nothing.total(0));
    }

    #[test]
    fn a_longer_batch_needs_no_less(mut lengths in prop::collection::vec(1usize..700, 1..6), more in 1usize..300) {
        let config = llama(2);
        let of = |lengths: &[usize], recompute| {
            let pass = LargestPass { lengths, targets: lengths.iter().sum() };
            MemoryEstimate::new(&config, &setup(recompute), &pass).total(0)
        };
        let before = lengths.clone();
        lengths.push(more);
        for recompute in [Recompute::Nothing, Recompute::Attention, Recompute::Layers] {
            prop_assert!(of(&lengths, recompute) >= of(&before, recompute));
        }
    }
}

#[test]
fn adapters_need_neither_gradients_nor_moments_of_the_model() {
    let (config, pass) = (llama(3), LargestPass { lengths: &[100, 20], targets: 50 });
    let adapters =
        TrainingSetup { trained: Trained::Adapters { parameters: 1000 }, ..setup(Recompute::Nothing) };
    let estimate = MemoryEstimate::new(&config, &adapters, &pass);
    assert_eq!((estimate.gradients, estimate.moments, estimate.head_gradient), (4000, 8000, 0));
    assert_eq!(estimate.weights, 4 * (parameters(&config) as u64 + 1000));
    assert!(estimate.total(7) < MemoryEstimate::new(&config, &setup(Recompute::Nothing), &pass).total(7));
}

#[test]
fn half_the_bytes_keep_less() {
    let (config, pass) = (llama(3), LargestPass { lengths: &[900, 20], targets: 50 });
    let full = MemoryEstimate::new(&config, &setup(Recompute::Nothing), &pass);
    let half = TrainingSetup { compute: ComputeDtype::Bfloat16, copies: 1, ..setup(Recompute::Nothing) };
    let half = MemoryEstimate::new(&config, &half, &pass);
    assert!(half.kept < full.kept && half.weights == full.weights);
    assert_eq!(half.copies, full.weights);
}

#[test]
fn a_step_of_several_passes_keeps_the_sum_of_their_gradients() {
    let (config, pass) = (llama(3), LargestPass { lengths: &[100, 20], targets: 50 });
    let one = MemoryEstimate::new(&config, &setup(Recompute::Nothing), &pass);
    let several = TrainingSetup { passes: 4, ..setup(Recompute::Nothing) };
    let several = MemoryEstimate::new(&config, &several, &pass);
    assert_eq!(several.total(0), one.total(0) + one.gradients);
}

#[test]
fn a_base_of_fewer_bits_takes_what_its_weights_take() {
    let json = serde_json::json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": true,
    });
    let architecture = Architecture::from_json(Path::new("config.json"), json).unwrap();
    for base in [BaseWeights::Full, BaseWeights::Int8, BaseWeights::NormalFloat4] {
        let model = architecture.random(&mut ChaCha8Rng::seed_from_u64(1), &Device::flex());
        let model = model.quantize_base(base).unwrap();
        assert_eq!(weight_bytes(model.config(), base), model.weight_bytes() as u64, "{base:?}");
    }
}

#[test]
fn loading_is_part_of_the_peak() {
    let (config, pass) = (llama(3), LargestPass { lengths: &[1], targets: 1 });
    let rounded = TrainingSetup {
        trained: Trained::Adapters { parameters: 10 },
        base: BaseWeights::NormalFloat4,
        ..setup(Recompute::Layers)
    };
    let estimate = MemoryEstimate::new(&config, &rounded, &pass);
    assert!(estimate.weights < estimate.loading);
    assert_eq!(estimate.loading, 4 * parameters(&config) as u64);
    assert!(estimate.total(7) >= 7 + estimate.loading);
}

#[test]
fn a_shared_prompt_takes_less_than_twice_the_prompt_and_more_than_no_prompt() {
    let (config, setup) = (llama(3), setup(Recompute::Nothing));
    let of = |lengths: &[usize]| MemoryEstimate::new(&config, &setup, &LargestPass { lengths, targets: 180 });
    let mut batch = TokenBatch::default();
    batch.push_sharing(&[1; 400], &[&[2; 100][..], &[3; 80]]);
    let shared = MemoryEstimate::of_batch(&config, &setup, &batch, 180);
    assert!(shared.total(0) < of(&[500, 480]).total(0));
    assert!(shared.total(0) > of(&[400, 100, 80]).total(0));
    let ordinary = TokenBatch::from_sequences(&[[1; 400]]);
    assert_eq!(MemoryEstimate::of_batch(&config, &setup, &ordinary, 180), of(&[400]));
}
