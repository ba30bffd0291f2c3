//! What is learnt, and going on after a stop.

use align_model::{
    adapter::{LoraConfig, Targets},
    checkpoint::{Resumable as _, State},
    preference::PreferenceExample,
    pretrained::Family,
    train::Step as _,
};
use align_reward::{
    model::RewardModel,
    trainer::{RewardObjective, RewardTrainer, evaluate_pairs},
};
use burn::module::Module as _;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

use crate::toy::{centred_pairs, config, decoder, grades, head, model, pairs, parameters, rankings};

#[test]
fn pairs_are_told_apart() {
    let config = config(RewardObjective::default(), 2);
    let mut trainer = RewardTrainer::new(model(1), &config, 40).unwrap();
    let first = trainer.step(&pairs()[..]).unwrap();
    for _ in 1..40 {
        trainer.step(&pairs()[..]).unwrap();
    }
    let learnt = evaluate_pairs(trainer.model(), &pairs(), &config).unwrap();
    assert!(learnt.loss < 0.3 * first.loss && learnt.accuracy > 0.99, "{first:?} {learnt:?}");
    assert_eq!((learnt.pairs, learnt.ties, learnt.differences.len()), (4, 0, 4));
    assert_eq!(learnt.slices["helpful"].pairs, 3);
    assert_eq!(learnt.slices["harmless"].pairs, 1);
    let margins: f64 = learnt.slices.values().map(|slice| slice.margin * slice.pairs as f64).sum();
    assert!((margins / 4.0 - learnt.margin).abs() < 1e-9);
}

#[test]
fn an_evaluation_measures_what_a_step_measures_before_its_update() {
    let config = config(centred_pairs(), 3);
    let mut trainer = RewardTrainer::new(model(1), &config, 1).unwrap();
    let evaluation = evaluate_pairs(trainer.model(), &pairs(), &config).unwrap();
    let step = trainer.step(&pairs()[..]).unwrap();
    assert!((evaluation.loss - step.loss).abs() < 1e-6);
    assert!((evaluation.margin - step.margin.unwrap()).abs() < 1e-6);
    assert_eq!((Some(evaluation.accuracy), evaluation.slices.len()), (step.accuracy, step.slices.len()));
}

#[test]
fn orders_and_grades_are_learnt() {
    let mut ranked = RewardTrainer::new(model(1), &config(RewardObjective::Ranked {}, 4), 60).unwrap();
    let objective = RewardObjective::Ordinal { grades: 3.try_into().unwrap() };
    let mut graded = RewardTrainer::new(model(1), &config(objective, 4), 60).unwrap();
    let mut last = None;
    for _ in 0..60 {
        last = Some((ranked.step(&rankings()[..]).unwrap(), graded.step(&grades()[..]).unwrap()));
    }
    let (ranked, graded) = last.unwrap();
    assert!(ranked.accuracy.unwrap() > 0.99, "{ranked:?}");
    assert!(graded.accuracy.unwrap() > 0.99 && graded.absolute_error.unwrap() < 0.01, "{graded:?}");
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let config = config(centred_pairs(), 2);
    let trainer = || RewardTrainer::new(model(1), &config, 4).unwrap();
    let (mut whole, mut first) = (trainer(), trainer());
    for _ in 0..2 {
        whole.step(&pairs()[..]).unwrap();
        first.step(&pairs()[..]).unwrap();
    }
    let mut state = State::new();
    first.save(&mut state).unwrap();
    let mut second = trainer();
    second.restore(&mut state).unwrap();
    state.finish().unwrap();
    for _ in 2..4 {
        assert_eq!(whole.step(&pairs()[..]).unwrap(), second.step(&pairs()[..]).unwrap());
    }
    let bits = |trainer: &RewardTrainer<_>| -> Vec<u32> {
        parameters(trainer.model()).into_iter().map(f32::to_bits).collect()
    };
    assert_eq!(bits(&whole), bits(&second));
}

#[test]
fn an_adapter_and_the_head_learn_and_nothing_else() {
    let lora = LoraConfig { targets: Targets::AllLinear, ..LoraConfig::default() };
    let adapted = decoder().with_adapter(Family::Llama, &lora, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let model = RewardModel::new(adapted, head(align_model::pretrained::ClassifierKind::Sequence, 1));
    let mut trainer = RewardTrainer::new(model, &config(RewardObjective::default(), 4), 30).unwrap();
    let before = parameters(&trainer.model().backbone.without_adapter());
    let first = trainer.step(&pairs()[..]).unwrap();
    for _ in 1..30 {
        trainer.step(&pairs()[..]).unwrap();
    }
    let last = trainer.step(&pairs()[..]).unwrap();
    assert!(last.loss < 0.5 * first.loss, "{first:?} {last:?}");
    let model = trainer.into_model();
    assert_eq!(before, parameters(&model.backbone.without_adapter()));
    let sequences: Vec<Vec<u32>> = pairs().iter().map(|pair| pair.chosen.clone()).collect();
    let adapted = model.score_sequences(&sequences, 2).unwrap();
    let merged = RewardModel::new(model.backbone.clone().merge_adapter().unwrap(), model.head.clone());
    for (adapted, merged) in
        adapted.iter().flatten().zip(merged.score_sequences(&sequences, 4).unwrap().iter().flatten())
    {
        assert!((adapted - merged).abs() < 1e-4);
    }
}

#[test]
fn pairs_of_the_same_response_are_counted_and_teach_nothing() {
    let same =
        |pair: PreferenceExample| PreferenceExample { rejected: pair.chosen.clone(), margin: None, ..pair };
    let same: Vec<_> = pairs().into_iter().map(same).collect();
    let mut trainer = RewardTrainer::new(model(1), &config(RewardObjective::default(), 4), 1).unwrap();
    let report = trainer.step(&same[..]).unwrap();
    assert_eq!((report.identical_pairs, report.accuracy), (4, Some(0.0)));
    assert!((report.loss - 2f64.ln()).abs() < 1e-6 && report.grad_norm < 1e-5, "{report:?}");
    assert_eq!(trainer.model().valid().labels(), 1);
}
