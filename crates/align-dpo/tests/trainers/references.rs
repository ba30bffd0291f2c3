//! References: adapters that are off, and log-probabilities kept in a file.

use std::fs;

use align_dpo::{
    CacheError, CacheKey, DpoConfig, DpoTrainer, KtoConfig, KtoTrainer, Objective, PreferenceConfigError,
    PreferenceError, Reference, ReferenceLogProbs, ReferencePolicy, loss::UnpairedLoss,
};
use align_model::{adapter::SavedAdapter, preference::UnpairedExample, pretrained::Checkpoint, train::Step};
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

/// Batches in the order of two passes, of which the second is another one.
fn meetings() -> Vec<Vec<UnpairedExample>> {
    let all = judged(7);
    let orders = [[0, 1, 2, 3, 4, 5, 6], [6, 2, 4, 0, 3, 1, 5]];
    let batch = |indices: &[usize]| indices.iter().map(|&index| all[index].clone()).collect();
    orders.iter().flat_map(|order| order.chunks(4)).map(batch).collect()
}

#[test]
fn exchanged_completions_may_be_precomputed_too() {
    for groups in [None, Some(2.try_into().unwrap())] {
        let live = KtoConfig { loss_batch_size: groups, max_length: 9.try_into().unwrap(), ..kto(2) };
        let batches: Vec<_> =
            meetings().into_iter().filter(|batch| groups.is_none() || batch.len() == 4).collect();
        let before = KtoConfig { reference: ReferencePolicy::Precomputed {}, ..live.clone() };
        let model = load();
        let mut known = ReferenceLogProbs::of_unpaired(&model, &judged(7), 3.try_into().unwrap());
        for batch in &batches {
            known.ask_for_step(&model, batch, &before);
        }
        known.ask_for_evaluation(&model, &judged(5), &before);
        assert!(known.len() > 7 + 2, "completions were exchanged");
        let fresh = |reference, config| KtoTrainer::new(model.clone(), reference, config, 4).unwrap();
        let mut one = fresh(Reference::Precomputed(known), &before);
        let mut other = fresh(Reference::Model(model.valid()), &live);
        for batch in &batches {
            let (a, b) = (one.step(batch.as_slice()).unwrap(), other.step(batch.as_slice()).unwrap());
            assert_same_report("kto", &a, &b);
            for name in ["loss", "kl"] {
                let (a, b) = (a.get(name).unwrap(), b.get(name).unwrap());
                assert!((a - b).abs() < 1e-6, "{name}: {a} {b}");
            }
        }
        let evaluated = |trainer: &KtoTrainer<_>| trainer.evaluate(trainer.model(), &judged(5)).unwrap();
        assert_same_report("evaluation", &evaluated(&one), &evaluated(&other));
        let error = one.evaluate(one.model(), &judged(6)).unwrap_err();
        assert_eq!(error, PreferenceError::MissingExchanged, "the first prompt has another completion");
    }
}

#[test]
fn a_batch_that_was_not_asked_about_is_refused() {
    let config = KtoConfig { reference: ReferencePolicy::Precomputed {}, ..kto(2) };
    let model = load();
    let mut known = ReferenceLogProbs::of_unpaired(&model, &judged(4), 3.try_into().unwrap());
    let trainer = |known| KtoTrainer::new(model.clone(), Reference::Precomputed(known), &config, 4).unwrap();
    let refused = trainer(known.clone()).step(judged(4).as_slice()).unwrap_err();
    assert_eq!(refused, PreferenceError::MissingExchanged);
    known.ask_for_step(&model, &judged(4), &config);
    let mut turned = judged(4);
    turned.swap(0, 2);
    let mut trainer = trainer(known);
    assert_eq!(trainer.step(turned.as_slice()).unwrap_err(), PreferenceError::MissingExchanged);
    assert!(trainer.step(judged(4).as_slice()).is_ok());
}

#[test]
fn a_file_knows_which_examples_met() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reference.bin");
    let (model, config) = (load(), kto(2));
    let mut known = ReferenceLogProbs::of_unpaired(&model, &judged(4), 3.try_into().unwrap());
    known.ask_for_step(&model, &judged(4), &config);
    let decided_by = |seed: u64| (judged(4), seed);
    let key = CacheKey::new(&model, &decided_by(1)).unwrap();
    known.save(&path, &key).unwrap();
    assert_eq!(ReferenceLogProbs::load(&path, &key).unwrap(), known);
    let other = CacheKey::new(&model, &decided_by(2)).unwrap();
    let error = ReferenceLogProbs::load(&path, &other).unwrap_err();
    assert!(matches!(error, CacheError::OtherExamples { .. }), "{error}");
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
