//! Steps over pairs.

use align_dpo::{
    DpoConfig, DpoTrainer, Objective, PairWeighting, PreferenceError, Reference, ReferencePolicy,
    loss::{
        Desensitized, LengthDesensitization, LikelihoodMean, PairLoss, PairObjective, ReferenceFreeLoss,
        ReferenceFreeObjective, SequenceScale, SimpoMargin,
    },
};
use align_model::{
    causal_lm::{CausalLm, Recompute, TokenBatch},
    logprob::{LogProbPass, Targets},
    number::{NonNegative, Positive, PositiveUnit, ProperFraction, UnitInterval},
    preference::PreferenceExample,
    train::{Report, Step},
};
use burn::module::Module;
use proptest::prelude::*;

use crate::world::{
    Separate, assert_close, assert_same_report, config, flat, hand_over, load, pairs, reference, under_way,
};

fn of(losses: &[PairLoss]) -> Objective {
    let losses = losses.iter().map(|&loss| loss.into()).collect();
    Objective::Dpo(PairObjective { losses, ..PairObjective::default() })
}

fn sft() -> PairLoss {
    PairLoss::Sft { mean: LikelihoodMean::Tokens }
}

fn objectives() -> Vec<(&'static str, Objective)> {
    let none = ProperFraction::new(0.0);
    let margin = SimpoMargin::Gamma(NonNegative::new(0.5));
    let cpo = ReferenceFreeLoss::Sigmoid { label_smoothing: none };
    let tpo = ReferenceFreeObjective::tpo(Positive::new(0.1), cpo, NonNegative::new(1.0));
    vec![
        ("sigmoid", of(&[PairLoss::default()])),
        ("mpo", of(&[PairLoss::default(), PairLoss::BcoPair {}, sft()])),
        ("ipo", of(&[PairLoss::Ipo { scale: SequenceScale::Mean }])),
        ("aot", of(&[PairLoss::Aot { label_smoothing: none }, sft()])),
        ("aot_unpaired", of(&[PairLoss::AotUnpaired { label_smoothing: none }])),
        ("orpo", Objective::ReferenceFree(ReferenceFreeObjective::orpo(Positive::new(0.1)))),
        ("tpo", Objective::ReferenceFree(tpo)),
        ("simpo", Objective::ReferenceFree(ReferenceFreeObjective::simpo(Positive::new(2.0), margin))),
    ]
}

#[test]
fn passes_do_not_change_a_step() {
    for (name, objective) in objectives() {
        let mut whole = config(objective, 8);
        if name == "aot" {
            let of = Desensitized::PolicyAndReference;
            whole.length_desensitization = Some(LengthDesensitization { alpha: UnitInterval::new(0.5), of });
        }
        let trainer = under_way(&whole);
        let (gradients, report) = trainer.gradients(&pairs(8)).unwrap();
        let gradients = flat(trainer.model(), &gradients);
        for micro_batch_size in [1, 3] {
            let parts = DpoConfig { micro_batch_size: micro_batch_size.try_into().unwrap(), ..whole.clone() };
            let model = load();
            let mut other = DpoTrainer::new(model.clone(), reference(&model, &parts), &parts, 8).unwrap();
            hand_over(&trainer, &mut other);
            let (of_parts, same_report) = other.gradients(&pairs(8)).unwrap();
            let what = format!("{name}, passes of {micro_batch_size}");
            assert_same_report(&what, &same_report, &report);
            assert_close(&what, &flat(other.model(), &of_parts), &gradients, 2e-5);
        }
    }
}

#[test]
fn shared_prompts_change_nothing() {
    for (name, objective) in objectives() {
        let config = config(objective, 8);
        let (shared, separate) = (load(), Separate::new(load()));
        let trainer = DpoTrainer::new(shared.clone(), reference(&shared, &config), &config, 8).unwrap();
        let other = DpoTrainer::new(separate.clone(), reference(&separate, &config), &config, 8).unwrap();
        let (a, report) = trainer.gradients(&pairs(5)).unwrap();
        let (b, of_separate) = other.gradients(&pairs(5)).unwrap();
        assert_close(name, &flat(trainer.model(), &a), &flat(other.model(), &b), 1e-5);
        for ((metric, a), (_, b)) in report.metrics().iter().zip(of_separate.metrics()) {
            // At the start both completions of a pair have the reward 0, up to rounding.
            if *metric != "rewards/accuracies" {
                assert!((a - b).abs() <= 1e-5 * b.abs() + 1e-5, "{name} {metric}: {a} {b}");
            }
        }
    }
}

#[test]
fn recomputation_changes_nothing() {
    let plain = config(Objective::default(), 4);
    let layers = DpoConfig { recompute: Recompute::Layers, ..plain.clone() };
    let run = |config: &DpoConfig| under_way(config).step(pairs(4).as_slice()).unwrap();
    assert_same_report("layers", &run(&layers), &run(&plain));
}

#[test]
fn groups_are_averaged() {
    // Two groups of two: half the sum of the groups' own losses.
    let grouped = DpoConfig {
        loss_batch_size: Some(2.try_into().unwrap()),
        ..config(of(&[PairLoss::Aot { label_smoothing: ProperFraction::new(0.0) }, sft()]), 1)
    };
    let whole = DpoConfig { loss_batch_size: None, ..grouped.clone() };
    let all = pairs(4);
    let loss = |config: &DpoConfig, pairs: &[PreferenceExample]| {
        let model = load();
        let trainer = DpoTrainer::new(model.clone(), Reference::Model(model.valid()), config, 1).unwrap();
        trainer.gradients(pairs).unwrap().1.loss()
    };
    let expected = f64::midpoint(loss(&whole, &all[..2]), loss(&whole, &all[2..]));
    assert!((loss(&grouped, &all) - expected).abs() < 1e-5 * expected);
    assert!((loss(&whole, &all) - expected).abs() > 1e-4 * expected);
}

#[test]
fn the_policys_own_weights_weigh_pairs() {
    let equal = config(Objective::default(), 4);
    let weighted = DpoConfig { weighting: PairWeighting::Policy, ..equal.clone() };
    let model = load();
    let trainer = |config: &DpoConfig| {
        DpoTrainer::new(model.clone(), Reference::Model(model.valid()), config, 1).unwrap()
    };
    let (equal, weighted) = (trainer(&equal), trainer(&weighted));
    let batch = pairs(1);
    let (plain, with) = (equal.gradients(&batch).unwrap().1, weighted.gradients(&batch).unwrap().1);
    let weight = with.loss() / plain.loss();
    let expected: f64 = [&batch[0].chosen, &batch[0].rejected]
        .map(|completion| {
            let sequence = [batch[0].prompt.as_slice(), completion].concat();
            let tokens = TokenBatch::from_sequences(&[sequence]);
            let marks: Vec<bool> = (0..tokens.tokens().len()).map(|t| t >= batch[0].prompt.len()).collect();
            let targets = Targets::selected(&tokens, &marks);
            let model = model.valid();
            let scores = LogProbPass::forward(&model, &tokens, &targets).with_collisions().scores();
            let positions: Vec<i32> = targets.positions().iter().map(|&p| p as i32).collect();
            let logits = model.logits(model.hidden(&tokens));
            let logits =
                logits.clone().select(0, burn::tensor::Tensor::from_data(&positions[..], &logits.device()));
            let p = burn::tensor::activation::softmax(logits, 1);
            let squares: Vec<f64> = p.powi_scalar(2).sum_dim(1).log().into_data().iter::<f64>().collect();
            let collisions: Vec<f64> = scores.collisions.unwrap().into_data().iter::<f64>().collect();
            for (a, b) in collisions.iter().zip(&squares) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
            let log_probs: Vec<f64> = scores.log_probs.values.into_data().iter::<f64>().collect();
            let mean: f64 =
                log_probs.iter().zip(&squares).map(|(a, b)| a - b).sum::<f64>() / squares.len() as f64;
            mean.exp()
        })
        .iter()
        .product();
    assert!((weight - expected).abs() < 1e-3 * expected, "{weight} {expected}");
}

#[test]
fn a_run_that_was_interrupted_goes_on_with_the_same_bits() {
    let moving = ReferencePolicy::Moving { every: 2.try_into().unwrap(), mixup: PositiveUnit::new(0.6) };
    let averaged = ReferencePolicy::Averaged { decay: ProperFraction::new(0.5) };
    for policy in [ReferencePolicy::Frozen {}, moving, averaged] {
        let config = DpoConfig { reference: Some(policy), ..config(Objective::default(), 2) };
        let fresh = || {
            let model = load();
            DpoTrainer::new(model.clone(), Reference::Model(model.valid()), &config, 8).unwrap()
        };
        let mut trainer = fresh();
        for _ in 0..3 {
            trainer.step(pairs(4).as_slice()).unwrap();
        }
        let mut resumed = fresh();
        hand_over(&trainer, &mut resumed);
        for _ in 0..3 {
            assert_eq!(
                trainer.step(pairs(4).as_slice()).unwrap(),
                resumed.step(pairs(4).as_slice()).unwrap()
            );
        }
    }
}

#[test]
fn a_reference_that_follows_comes_nearer() {
    let margin = |policy| {
        let config = DpoConfig { reference: Some(policy), ..config(Objective::default(), 4) };
        let mut trainer = under_way(&config);
        trainer.step(pairs(4).as_slice()).unwrap().get("rewards/margins").unwrap()
    };
    let frozen = margin(ReferencePolicy::Frozen {});
    let all = ReferencePolicy::Moving { every: 1.try_into().unwrap(), mixup: PositiveUnit::new(1.0) };
    assert!(frozen > 1e-3, "{frozen}");
    assert!(margin(all).abs() < 1e-5);
    let half = margin(ReferencePolicy::Averaged { decay: ProperFraction::new(0.5) });
    assert!(0.0 < half && half < frozen);
}

#[test]
fn what_cannot_be_trained_on_is_refused_with_its_place() {
    let mut trainer = under_way(&config(Objective::default(), 4));
    let limit = trainer.model().max_positions();
    let mut batch = pairs(3);
    batch[1].rejected = vec![3; limit];
    let tokens = batch[1].prompt.len() + limit;
    assert_eq!(trainer.step(batch.as_slice()), Err(PreferenceError::TooLong { index: 1, tokens, limit }));
    batch[1].rejected.clear();
    assert_eq!(trainer.step(batch.as_slice()), Err(PreferenceError::EmptyResponse { index: 1 }));
    assert_eq!(trainer.step(&batch[..0]), Err(PreferenceError::EmptyBatch));
}

#[test]
fn an_identical_pair_teaches_nothing_and_is_counted() {
    let mut batch = pairs(2);
    batch[1].rejected = batch[1].chosen.clone();
    let report = under_way(&config(Objective::default(), 4)).step(batch.as_slice()).unwrap();
    assert_eq!(report.get("identical_pairs"), Some(1.0));
    let report = under_way(&config(Objective::default(), 4)).step(pairs(2).as_slice()).unwrap();
    assert_eq!(report.get("identical_pairs"), None);
}

#[test]
fn each_slice_has_its_own_measurements() {
    let report = under_way(&config(Objective::default(), 4)).step(pairs(4).as_slice()).unwrap();
    let of = |name: &str| report.get(name).unwrap();
    let mean = f64::midpoint(of("rewards/margins/even"), of("rewards/margins/odd"));
    assert!((of("rewards/margins") - mean).abs() < 1e-9);
    assert_eq!(report.named_metrics().len(), 4);
}

#[test]
fn a_model_learns_which_completions_are_better() {
    for (name, objective) in objectives() {
        let config = config(objective, 4);
        let mut trainer = under_way(&config);
        let margins: Vec<f64> = (0..6)
            .map(|_| trainer.step(pairs(4).as_slice()).unwrap().get("rewards/margins").unwrap())
            .collect();
        assert!(margins[5] > margins[0], "{name}: {margins:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn company_does_not_change_a_pair(count in 1usize..6, which in 0usize..6) {
        let which = which % count;
        let config = config(of(&[PairLoss::default()]), 8);
        let model = load();
        let trainer = DpoTrainer::new(model.clone(), Reference::Model(model.valid()), &config, 1).unwrap();
        let batch = pairs(count as u32);
        let alone = trainer.gradients(&batch[which..=which]).unwrap().1;
        let mut marked = batch;
        for pair in &mut marked {
            pair.slice = None;
        }
        let wanted = "this".to_owned();
        marked[which].slice = Some(wanted);
        let together = trainer.gradients(&marked).unwrap().1;
        let (a, b) = (alone.get("rewards/margins").unwrap(), together.get("rewards/margins/this").unwrap());
        prop_assert!((a - b).abs() < 1e-5, "{} {}", a, b);
    }
}
