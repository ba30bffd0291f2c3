//! Steps over judged completions.

use align_dpo::{
    KtoConfig, KtoTrainer, PreferenceError, Reference,
    loss::{ClassWeights, UnpairedLoss},
};
use align_model::{causal_lm::CausalLm, decoder::Decoder, preference::UnpairedExample, train::Step};
use burn::module::Module;

use crate::world::{assert_close, assert_same_report, flat, hand_over, judged, kto, load};

fn losses() -> [(&'static str, UnpairedLoss); 3] {
    let weights = ClassWeights::default();
    [
        ("kto", UnpairedLoss::Kto { weights }),
        ("apo_zero_unpaired", UnpairedLoss::ApoZeroUnpaired { weights }),
        ("bco", UnpairedLoss::Bco {}),
    ]
}

fn fresh(config: &KtoConfig) -> KtoTrainer<Decoder> {
    let model = load();
    KtoTrainer::new(model.clone(), Reference::Model(model.valid()), config, 8).unwrap()
}

/// A trainer a few steps away from its reference.
fn under_way(config: &KtoConfig) -> KtoTrainer<Decoder> {
    let mut trainer = fresh(config);
    for _ in 0..2 {
        trainer.step(judged(4).as_slice()).unwrap();
    }
    trainer
}

#[test]
fn passes_do_not_change_a_step() {
    for (name, loss) in losses() {
        let trainer = under_way(&KtoConfig { loss, ..kto(8) });
        let (gradients, report) = trainer.gradients(&judged(8)).unwrap();
        let gradients = flat(trainer.model(), &gradients);
        for micro in [1, 3] {
            let mut other = fresh(&KtoConfig { loss, ..kto(micro) });
            hand_over(&trainer, &mut other);
            let (of_parts, same_report) = other.gradients(&judged(8)).unwrap();
            let what = format!("{name}, passes of {micro}");
            assert_same_report(&what, &same_report, &report);
            assert_close(&what, &flat(other.model(), &of_parts), &gradients, 2e-5);
        }
    }
}

#[test]
fn a_run_that_was_interrupted_goes_on_with_the_same_bits() {
    for (_, loss) in losses() {
        let config = KtoConfig { loss, ..kto(2) };
        let mut trainer = under_way(&config);
        let mut resumed = fresh(&config);
        hand_over(&trainer, &mut resumed);
        for _ in 0..2 {
            let (a, b) = (trainer.step(judged(4).as_slice()), resumed.step(judged(4).as_slice()));
            assert_eq!(a.unwrap(), b.unwrap());
        }
    }
}

#[test]
fn one_class_alone_is_learnt_from_and_reported() {
    for desirable in [true, false] {
        let batch: Vec<UnpairedExample> =
            judged(4).into_iter().map(|example| UnpairedExample { desirable, ..example }).collect();
        let report = under_way(&kto(2)).step(batch.as_slice()).unwrap();
        assert!(report.loss().is_finite());
        assert_eq!(report.get("rewards/chosen").is_some(), desirable);
        assert_eq!(report.get("rewards/rejected").is_some(), !desirable);
        assert_eq!(report.get("rewards/margins"), None);
        assert_eq!(report.get("desirable"), Some(f64::from(u8::from(desirable))));
    }
}

#[test]
fn what_cannot_be_trained_on_is_refused_with_its_place() {
    let mut trainer = fresh(&kto(2));
    let limit = trainer.model().max_positions();
    let mut batch = judged(3);
    batch[2].completion = vec![3; limit];
    let tokens = batch[2].prompt.len() + limit;
    assert_eq!(trainer.step(batch.as_slice()), Err(PreferenceError::TooLong { index: 2, tokens, limit }));
    batch[2].completion.clear();
    assert_eq!(trainer.step(batch.as_slice()), Err(PreferenceError::EmptyResponse { index: 2 }));
    assert_eq!(trainer.step(&batch[..1]), Err(PreferenceError::LonelyExample));
    assert_eq!(trainer.step(&batch[..0]), Err(PreferenceError::EmptyBatch));
}

#[test]
fn an_exchanged_completion_is_cut_to_what_the_model_reads() {
    let mut trainer = fresh(&kto(2));
    let limit = trainer.model().max_positions();
    let mut batch = judged(2);
    batch[0].prompt = vec![4; limit - 2];
    batch[0].completion.truncate(2);
    batch[1].completion = vec![5; 9];
    assert!(trainer.step(batch.as_slice()).unwrap().get("kl").unwrap().is_finite());
}

#[test]
fn a_model_learns_what_is_desirable() {
    for (name, loss) in losses() {
        let mut trainer = under_way(&KtoConfig { loss, ..kto(4) });
        let margins: Vec<f64> = (0..6)
            .map(|_| trainer.step(judged(4).as_slice()).unwrap().get("rewards/margins").unwrap())
            .collect();
        assert!(margins[5] > margins[0], "{name}: {margins:?}");
    }
}
