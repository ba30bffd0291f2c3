//! A β that follows the margins.

use align_dpo::{
    DpoConfig, Objective, PreferenceReport,
    loss::{DynamicBetaConfig, LikelihoodMean, PairLoss, PairObjective},
};
use align_model::{
    checkpoint::{Resumable, State},
    number::{NonNegative, Positive, PositiveUnit, ProperFraction},
    train::Step,
};

use crate::world::{assert_close, assert_same_report, config, flat, hand_over, pairs, under_way};

const BETA: DynamicBetaConfig =
    DynamicBetaConfig { sensitivity: NonNegative::new(0.6), momentum: PositiveUnit::new(0.6) };

fn dynamic(micro_batch_size: usize) -> DpoConfig {
    DpoConfig { dynamic_beta: Some(BETA), ..config(Objective::default(), micro_batch_size) }
}

fn number(report: &PreferenceReport, name: &str) -> f64 {
    report.get(name).unwrap()
}

#[test]
fn each_step_has_the_beta_of_its_margins() {
    let mut trainer = under_way(&dynamic(4));
    let mut running = None;
    for _ in 0..4 {
        let mut state = State::new();
        trainer.save(&mut state).unwrap();
        let saved: f64 = state.take("usual_margin").unwrap();
        assert!((*running.get_or_insert(saved) - saved).abs() < 1e-12);

        let report = trainer.step(pairs(4).as_slice()).unwrap();
        let base = 0.1;
        let mean_margin = number(&report, "rewards/margins") / base;
        let mut expected = BETA.around(Positive::new(base));
        expected.usual_margin = saved;
        let beta = expected.next(mean_margin);
        assert!((number(&report, "beta") - beta.get()).abs() < 1e-5 * beta.get());
        assert!((number(&report, "usual_margin") - expected.usual_margin).abs() < 1e-5);
        assert!((beta.get() - base).abs() > 1e-3 * base, "{beta:?} tells nothing");
        running = Some(number(&report, "usual_margin"));

        // The same step with this β from the beginning.
        let objective = PairObjective { beta, ..PairObjective::default() };
        let mut fixed = under_way(&config(Objective::Dpo(objective), 4));
        fixed.restore(&mut state).unwrap();
        let of_fixed = fixed.step(pairs(4).as_slice()).unwrap();
        assert!((number(&report, "loss") - of_fixed.loss()).abs() < 1e-6);
        let (a, b) = (number(&report, "grad_norm"), number(&of_fixed, "grad_norm"));
        assert!(b > 0.0 && (a - b).abs() < 1e-5 * b, "{a} {b}, {report:?}");
        assert_eq!(of_fixed.get("beta"), None);
    }
}

#[test]
fn passes_do_not_change_a_step() {
    let aot = PairLoss::Aot { label_smoothing: ProperFraction::new(0.0) };
    let sft = PairLoss::Sft { mean: LikelihoodMean::Tokens };
    for losses in [vec![PairLoss::default()], vec![aot, sft]] {
        let losses = losses.into_iter().map(Into::into).collect();
        let objective = Objective::Dpo(PairObjective { losses, ..PairObjective::default() });
        let whole = DpoConfig { objective, ..dynamic(8) };
        let trainer = under_way(&whole);
        let (gradients, report) = trainer.gradients(&pairs(8)).unwrap();
        for micro_batch_size in [1, 3] {
            let parts = DpoConfig { micro_batch_size: micro_batch_size.try_into().unwrap(), ..whole.clone() };
            let mut other = under_way(&parts);
            hand_over(&trainer, &mut other);
            let (of_parts, same_report) = other.gradients(&pairs(8)).unwrap();
            let what = format!("passes of {micro_batch_size}");
            assert_same_report(&what, &same_report, &report);
            assert_close(&what, &flat(other.model(), &of_parts), &flat(trainer.model(), &gradients), 2e-5);
        }
    }
}

#[test]
fn each_group_has_its_own_beta() {
    let grouped = DpoConfig { loss_batch_size: Some(2.try_into().unwrap()), ..dynamic(1) };
    let trainer = under_way(&grouped);
    let all = trainer.gradients(&pairs(4)).unwrap().1;
    let first = trainer.gradients(&pairs(4)[..2]).unwrap().1;
    let mut state = State::new();
    trainer.save(&mut state).unwrap();
    let mut second = trainer;
    let _: f64 = state.take("usual_margin").unwrap();
    state.insert("usual_margin", &number(&first, "usual_margin")).unwrap();
    second.restore(&mut state).unwrap();
    let second = second.gradients(&pairs(4)[2..]).unwrap().1;
    for name in ["beta", "loss"] {
        let expected = f64::midpoint(number(&first, name), number(&second, name));
        assert!((number(&all, name) - expected).abs() < 1e-6, "{name}");
    }
    assert!((number(&all, "usual_margin") - number(&second, "usual_margin")).abs() < 1e-9);
    assert!((number(&first, "beta") - number(&second, "beta")).abs() > 1e-4);
}

#[test]
fn a_run_that_was_interrupted_goes_on_with_the_same_bits() {
    let mut trainer = under_way(&dynamic(2));
    let mut resumed = under_way(&dynamic(2));
    trainer.step(pairs(4).as_slice()).unwrap();
    hand_over(&trainer, &mut resumed);
    for _ in 0..3 {
        let (a, b) = (trainer.step(pairs(4).as_slice()), resumed.step(pairs(4).as_slice()));
        assert_eq!(a.unwrap(), b.unwrap());
    }
}

#[test]
fn what_is_measured_moves_nothing() {
    let mut trainer = under_way(&dynamic(2));
    let mut other = under_way(&dynamic(2));
    trainer.gradients(&pairs(3)).unwrap();
    let report = trainer.evaluate(trainer.model(), &pairs(3)).unwrap();
    assert_eq!(report.get("beta"), None, "an evaluation has the objective's");
    let failing = &mut pairs(3);
    failing[1].chosen.clear();
    trainer.step(failing.as_slice()).unwrap_err();
    assert_eq!(trainer.step(pairs(4).as_slice()).unwrap(), other.step(pairs(4).as_slice()).unwrap());
}

#[test]
fn without_sensitivity_beta_stays() {
    let still = DynamicBetaConfig { sensitivity: NonNegative::new(0.0), ..BETA };
    let mut trainer = under_way(&DpoConfig { dynamic_beta: Some(still), ..dynamic(4) });
    let mut plain = under_way(&config(Objective::default(), 4));
    let (a, b) = (trainer.step(pairs(4).as_slice()).unwrap(), plain.step(pairs(4).as_slice()).unwrap());
    assert_eq!((a.loss(), a.get("beta")), (b.loss(), Some(0.1)));
}
