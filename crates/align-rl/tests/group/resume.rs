//! A run that is resumed goes on as if nothing had happened.

use align_model::{
    checkpoint::{Resumable, State, StateError},
    number::{NonNegative, Positive, PositiveUnit, ProperFraction},
    train::Step,
};
use align_reward::{compose::Normalized, function::each_fn, rollout::Rollout};
use align_rl::{
    GroupConfig, KlControl, KlPenalty, PolicyReference, Preset, Rewards,
    loss::{AdaptiveEntropy, EntropyBonus},
    watch::{AlarmAction, AlarmConfig, Danger},
};

use crate::world::{config, evenness, flat, prompts, restored, trainer};

/// A run with everything that has a state.
fn everything() -> GroupConfig {
    let mut config = config(Preset::Dapo);
    config.iterations = 2.try_into().unwrap();
    config.reference =
        Some(PolicyReference::Moving { every: 4.try_into().unwrap(), mixup: PositiveUnit::new(0.5) });
    config.algorithm.objective.kl = Some(KlPenalty::k3(Positive::new(0.05)));
    config.algorithm.kl_control =
        KlControl::Adaptive { target: Positive::new(0.001), horizon: 100.try_into().unwrap() };
    config.algorithm.objective.entropy = Some(EntropyBonus {
        coefficient: NonNegative::new(0.001),
        adaptive: Some(AdaptiveEntropy { target: NonNegative::new(7.0), ..AdaptiveEntropy::default() }),
    });
    config.alarms = vec![AlarmConfig {
        when: Danger::KlBudget { nats: Positive::new(1e-5) },
        patience: 2.try_into().unwrap(),
        action: AlarmAction::LowerRate { factor: ProperFraction::new(0.5) },
    }];
    config
}

/// A reward with a state: what it gives depends on what it has seen.
fn normalized() -> Rewards {
    let even = each_fn("even", |rollout: &Rollout| {
        let tokens = rollout.tokens.as_deref().unwrap();
        tokens.iter().filter(|&token| token % 2 == 0).count() as f64
    });
    Rewards::one(Normalized::new(Box::new(even)))
}

#[test]
fn six_steps_are_three_and_three() {
    let config = everything();
    let batches: Vec<_> = (0..6).map(|step| prompts(6)[step % 3..step % 3 + 4].to_vec()).collect();
    let mut whole = trainer(&config, normalized());
    let reports: Vec<_> = batches.iter().map(|batch| whole.step(batch).unwrap()).collect();
    assert!(reports.iter().any(|report| !report.alarms.is_empty()), "the rate was never lowered");
    let mut first = trainer(&config, normalized());
    batches[..3].iter().for_each(|batch| drop(first.step(batch).unwrap()));
    let mut second = restored(&first, trainer(&config, normalized()));
    for (batch, expected) in batches[3..].iter().zip(&reports[3..]) {
        assert_eq!(&second.step(batch).unwrap(), expected);
    }
    assert_eq!(flat(second.model(), None), flat(whole.model(), None));
}

#[test]
fn the_state_of_another_run_is_refused() {
    let saved = |config: &GroupConfig| {
        let mut state = State::new();
        trainer(config, evenness()).save(&mut state).unwrap();
        state
    };
    let other = config(Preset::Grpo);
    let error = trainer(&other, evenness()).restore(&mut saved(&everything())).unwrap_err();
    assert!(matches!(error, StateError::Surplus { .. } | StateError::Value { .. }), "{error}");
    let error = trainer(&everything(), evenness()).restore(&mut saved(&other)).unwrap_err();
    assert!(matches!(error, StateError::Missing { .. } | StateError::Value { .. }), "{error}");
}
