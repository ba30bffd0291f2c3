//! References: adapters that are off, and log-probabilities kept in a file.

use std::fs;

use align_dpo::{
    CacheError, CacheKey, DpoConfig, DpoTrainer, KtoConfig, KtoTrainer, Objective, PreferenceConfigError,
    PreferenceError, Reference, ReferenceLogProbs, ReferencePolicy, loss::UnpairedLoss,
};
use align_model::{adapter::SavedAdapter, pretrained::Checkpoint, train::Step};
use burn::{module::Module, tensor::Device};

use crate::world::{assert_same_report, config, golden, judged, kto, load, pairs};

#[test]
fn an_adapter_that_is_off_is_a_frozen_copy() {
    let checkpoint = Checkpoint::open(&golden("tiny/model")).unwrap();
    let base = checkpoint.load(&Device::flex().autodiff()).unwrap();
    let adapter = SavedAdapter::open(&golden("trace_tiny_dpo_lora_initial_adapter")).unwrap();
    let model = adapter.apply(base.clone(), checkpoint.architecture().family()).unwrap();
    let run = |policy, reference| {
        let config = DpoConfig { reference: Some(policy), ..config(Objective::default(), 2) };
        let mut trainer = DpoTrainer::new(model.clone(), Reference::Model(reference), &config, 4).unwrap();
        (0..3).map(|_| trainer.step(pairs(4).as_slice()).unwrap()).collect::<Vec<_>>()
    };
    let off = run(ReferencePolicy::AdapterOff {}, model.without_adapter());
    let copy = run(ReferencePolicy::Frozen {}, base.valid());
    for (a, b) in off.iter().zip(&copy) {
        assert_same_report("adapter off", a, b);
    }
}

#[test]
fn log_probs_of_before_are_those_of_now() {
    let live = config(Objective::default(), 2);
    let before = DpoConfig { reference: Some(ReferencePolicy::Precomputed {}), ..live.clone() };
    let model = load();
    let run = |reference, config: &DpoConfig| {
        let mut trainer = DpoTrainer::new(model.clone(), reference, config, 4).unwrap();
        (0..3).map(|_| trainer.step(pairs(4).as_slice()).unwrap()).collect::<Vec<_>>()
    };
    let known = ReferenceLogProbs::of_pairs(&model, &pairs(4), 3.try_into().unwrap());
    assert_eq!(known.len(), 8);
    let live = run(Reference::Model(model.valid()), &live);
    for (a, b) in run(Reference::Precomputed(known), &before).iter().zip(&live) {
        assert_same_report("precomputed", a, b);
    }

    let known = ReferenceLogProbs::of_pairs(&model, &pairs(3), 3.try_into().unwrap());
    let mut trainer = DpoTrainer::new(model, Reference::Precomputed(known), &before, 4).unwrap();
    let error = trainer.step(pairs(4).as_slice()).unwrap_err();
    assert!(matches!(error, PreferenceError::Missing(_)), "{error}");
}

#[test]
fn judged_completions_may_be_precomputed_too() {
    let live = KtoConfig { loss: UnpairedLoss::Bco {}, ..kto(2) };
    let before = KtoConfig { reference: ReferencePolicy::Precomputed {}, ..live.clone() };
    let model = load();
    let known = ReferenceLogProbs::of_unpaired(&model, &judged(4), 3.try_into().unwrap());
    let mut one = KtoTrainer::new(model.clone(), Reference::Precomputed(known), &before, 4).unwrap();
    let mut other = KtoTrainer::new(model.clone(), Reference::Model(model.valid()), &live, 4).unwrap();
    for _ in 0..3 {
        let (a, b) = (one.step(judged(4).as_slice()).unwrap(), other.step(judged(4).as_slice()).unwrap());
        assert_same_report("bco", &a, &b);
    }
}

#[test]
fn a_file_is_read_only_for_what_it_belongs_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reference.bin");
    let (model, examples) = (load(), pairs(3));
    let key = CacheKey::new(&model, &examples).unwrap();
    assert_eq!(key, CacheKey::new(&model.valid(), &examples).unwrap(), "gradients are no part of a model");
    let known = ReferenceLogProbs::of_pairs(&model, &examples, 2.try_into().unwrap());
    known.save(&path, &key).unwrap();
    assert_eq!(ReferenceLogProbs::load(&path, &key).unwrap(), known);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");

    let mut trainer =
        DpoTrainer::new(model.clone(), Reference::Model(model.valid()), &config(Objective::default(), 2), 2)
            .unwrap();
    trainer.step(examples.as_slice()).unwrap();
    let other = CacheKey::new(trainer.model(), &examples).unwrap();
    let error = ReferenceLogProbs::load(&path, &other).unwrap_err();
    assert!(matches!(error, CacheError::OtherReference { .. }), "{error}");
    let other = CacheKey::new(&model, &pairs(4)).unwrap();
    let error = ReferenceLogProbs::load(&path, &other).unwrap_err();
    assert!(matches!(error, CacheError::OtherExamples { .. }), "{error}");

    let bytes = fs::read(&path).unwrap();
    for damaged in [&bytes[..bytes.len() - 2], &bytes[..20], b"{}\n"] {
        fs::write(&path, damaged).unwrap();
        let error = ReferenceLogProbs::load(&path, &key).unwrap_err();
        assert!(matches!(error, CacheError::Malformed { .. }), "{error}");
    }
    let error = ReferenceLogProbs::load(&directory.path().join("none"), &key).unwrap_err();
    assert!(matches!(error, CacheError::Io { .. }), "{error}");
}

#[test]
fn a_reference_is_what_the_settings_ask_for() {
    let model = load();
    let config = config(Objective::default(), 2);
    let error = DpoTrainer::new(model.clone(), Reference::Nothing, &config, 1).unwrap_err();
    assert_eq!(error.to_string(), "`reference` asks for a model, and the trainer was given none");
    let precomputed = DpoConfig { reference: Some(ReferencePolicy::Precomputed {}), ..config };
    let error = DpoTrainer::new(model.clone(), Reference::Model(model), &precomputed, 1).unwrap_err();
    assert!(matches!(error, PreferenceConfigError::OtherReference { .. }), "{error}");
}
