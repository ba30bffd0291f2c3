//! What adapters compute, on every family.

use align_model::{
    adapter::{AdapterError, AdapterInitialization, AdapterKind, LoraConfig, Scaling, Targets},
    causal_lm::{CausalLm, DropoutSeed, PassOptions},
    decoder::Weight,
    number::{Positive, ProperFraction},
};
use burn::module::Module;
use proptest::prelude::*;

use crate::models::{
    FAMILIES, adapted, batch, distance, family, kinds, logits, logits_with_dropout, lora, model, randomized,
    rng,
};

#[test]
fn a_fresh_adapter_changes_nothing() {
    for model_type in FAMILIES {
        let base = model(model_type);
        for config in kinds() {
            let fresh = base.clone().with_adapter(family(model_type), &config, &mut rng(5)).unwrap();
            assert_eq!(logits(&fresh), logits(&base), "{model_type} {config:?}");
        }
    }
}

#[test]
fn without_its_adapter_a_model_is_what_it_was() {
    for model_type in FAMILIES {
        for config in kinds() {
            let trained = adapted(model_type, &config);
            assert!(distance(&logits(&trained), &logits(&model(model_type))) > 1e-2);
            let off = trained.without_adapter();
            assert_eq!(logits(&off), logits(&model(model_type)), "{model_type} {config:?}");
            assert!(off.adapter_config().is_none());
            assert_eq!(off.parameter_count(), model(model_type).parameter_count());
        }
    }
}

#[test]
fn a_merged_adapter_gives_the_same_logits() {
    for model_type in FAMILIES {
        for config in kinds() {
            let trained = adapted(model_type, &config);
            let merged = trained.clone().merge_adapter().unwrap();
            let far = distance(&logits(&merged), &logits(&trained));
            assert!(far < 1e-5, "{model_type} {config:?}: {far}");
            assert_eq!(merged.parameter_count(), model(model_type).parameter_count());
            assert!(matches!(merged.merge_adapter(), Err(AdapterError::NoAdapter)));
        }
    }
}

#[test]
fn training_mode_computes_the_same() {
    for config in kinds() {
        let plain = adapted("gpt_neox", &config);
        let tracked = plain.clone().train();
        assert_eq!(logits(&tracked.valid()), logits(&plain));
        assert!(distance(&logits(&tracked), &logits(&plain)) < 1e-5);
        let merged = tracked.merge_adapter().unwrap();
        assert!(distance(&logits(&merged), &logits(&plain)) < 1e-5);
    }
}

#[test]
fn an_adapted_model_gets_no_second_adapter() {
    let trained = adapted("llama", &lora(AdapterKind::Lora));
    let again = trained.with_adapter(family("llama"), &lora(AdapterKind::Lora), &mut rng(0));
    assert!(matches!(again, Err(AdapterError::AlreadyAdapted)));
}

#[test]
fn the_head_can_be_adapted_where_it_is_a_matrix_of_its_own() {
    let config =
        LoraConfig { targets: Targets::Modules(["lm_head".into()].into()), ..lora(AdapterKind::Dora) };
    let trained = adapted("llama", &config);
    assert!(distance(&logits(&trained), &logits(&model("llama"))) > 1e-2);
    let merged = trained.clone().merge_adapter().unwrap();
    assert!(distance(&logits(&merged), &logits(&trained)) < 1e-5);
    let dropping = LoraConfig { dropout: ProperFraction::new(0.1), ..config };
    let refused = model("llama").with_adapter(family("llama"), &dropping, &mut rng(0)).unwrap_err();
    assert!(refused.to_string().contains("dropout"), "{refused}");
}

#[test]
fn fresh_matrices_have_pefts_spread() {
    for (initialization, bound, spread) in [
        (AdapterInitialization::KaimingUniform, 8f64.sqrt().recip(), (8.0 * 3f64).sqrt().recip()),
        (AdapterInitialization::Gaussian, f64::INFINITY, 1.0 / 200.0),
    ] {
        let rank = 200.try_into().unwrap();
        let config = LoraConfig { initialization, rank, ..lora(AdapterKind::Lora) };
        let fresh = model("llama").with_adapter(family("llama"), &config, &mut rng(0)).unwrap();
        let adapter = fresh.layers[0].attention.query.adapter.as_ref().unwrap();
        let a: Vec<f32> = adapter.a.val().into_data().try_into_vec().unwrap();
        assert!(a.iter().all(|value| f64::from(value.abs()) <= bound));
        let deviation = (a.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / a.len() as f64).sqrt();
        assert!((deviation / spread - 1.0).abs() < 0.06, "{initialization:?}: {deviation} and not {spread}");
        assert!(adapter.b.val().into_data().iter::<f32>().all(|value| value.abs() == 0.0));
    }
}

#[test]
fn dropout_acts_in_training_passes_alone_and_repeats() {
    for kind in [AdapterKind::Lora, AdapterKind::Dora] {
        let config = LoraConfig { dropout: ProperFraction::new(0.4), ..lora(kind) };
        let dropping = adapted("gpt2", &config).train();
        let keeping = adapted("gpt2", &lora(kind)).train();
        assert_eq!(logits(&dropping), logits(&keeping), "scoring drops nothing");
        let once = logits_with_dropout(&dropping, 7);
        assert_eq!(once, logits_with_dropout(&dropping, 7));
        assert_ne!(once, logits_with_dropout(&dropping, 8));
        assert_ne!(once, logits(&keeping));
        assert_eq!(
            logits_with_dropout(&keeping, 7),
            logits_with_dropout(&keeping, 8),
            "a share of 0 is no dropout"
        );
    }
}

#[test]
fn dropout_keeps_the_mean() {
    // Only the head's input is linear in what the last adapter adds: average over its masks.
    let config = LoraConfig {
        dropout: ProperFraction::new(0.3),
        targets: Targets::Modules(["layers.1.mlp.down_proj".into()].into()),
        ..lora(AdapterKind::Lora)
    };
    let dropping = adapted("llama", &config);
    let sample = |seed| {
        let options = PassOptions { dropout: Some(DropoutSeed(seed)), ..PassOptions::default() };
        let hidden = dropping.training_pass(&batch(), options).hidden();
        hidden.into_data().try_into_vec::<f32>().unwrap()
    };
    let rounds = 2000;
    let mut mean = vec![0f64; sample(0).len()];
    for seed in 0..rounds {
        mean.iter_mut().zip(sample(seed)).for_each(|(sum, value)| *sum += f64::from(value) / rounds as f64);
    }
    // The final norm bends the mean a little.
    let mean: Vec<f32> = mean.into_iter().map(|value| value as f32).collect();
    let expected: Vec<f32> = dropping.hidden(&batch()).into_data().try_into_vec().unwrap();
    assert!(distance(&mean, &expected) < 0.05, "{}", distance(&mean, &expected));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn alpha_and_rank_only_scale(rank in 1usize..9, alpha in 0.5f64..20.0, stabilized: bool, seed: u64) {
        let scaling = if stabilized { Scaling::RankStabilized } else { Scaling::Standard };
        let config = LoraConfig {
            rank: rank.try_into().unwrap(), alpha: Positive::new(alpha), scaling, ..lora(AdapterKind::Lora)
        };
        let fresh = model("llama").with_adapter(family("llama"), &config, &mut rng(seed)).unwrap();
        let trained = randomized(fresh, seed);
        let expected = if stabilized { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 };
        let query = &trained.layers[0].attention.query;
        let adapter = query.adapter.as_ref().unwrap();
        prop_assert_eq!(adapter.rank(), rank);
        prop_assert!((adapter.scale() - expected).abs() < 1e-12);
        // The dense weight is W + s·B·A.
        let dense = query.weight.val() + adapter.b.val().matmul(adapter.a.val()) * expected;
        let merged = trained.clone().merge_adapter().unwrap();
        let Weight::Full(weight) = &merged.layers[0].attention.query.weight else { panic!("not quantized") };
        let read = |x: burn::tensor::Tensor<2>| x.into_data().try_into_vec::<f32>().unwrap();
        prop_assert!(distance(&read(weight.val()), &read(dense)) < 1e-6);
        prop_assert!(distance(&logits(&merged), &logits(&trained)) < 1e-5);
    }
}
