//! A run that is resumed goes on with the same bits.

use align_model::{
    checkpoint::{Resumable, State},
    decoder::Decoder,
    number::Positive,
    train::Step as _,
};
use align_rl::{
    KlControl, KlEstimator, PolicyReference, PpoConfig, PpoTrainer, RlReport,
    ppo::{RewardKl, RewardShaping, RewardWhitening},
};

use super::world::{config, parameters, prompts, trainer};

fn hand_over(trainer: &PpoTrainer<Decoder>, other: &mut PpoTrainer<Decoder>) {
    let mut state = State::new();
    trainer.save(&mut state).unwrap();
    other.restore(&mut state).unwrap();
    state.finish().unwrap();
}

fn run(trainer: &mut PpoTrainer<Decoder>, steps: usize) -> Vec<RlReport> {
    (0..steps).map(|_| trainer.step(&prompts(8)).unwrap()).collect()
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let control = KlControl::Adaptive { target: Positive::new(1.0), horizon: 100.try_into().unwrap() };
    let (estimator, coefficient) = (KlEstimator::K3, Positive::new(0.1));
    let config = PpoConfig {
        kl: Some(RewardKl::PerToken { estimator, coefficient, control }),
        reference: Some(PolicyReference::Averaged { decay: align_model::number::ProperFraction::new(0.9) }),
        rewards: RewardShaping {
            whitening: RewardWhitening::KeepMean,
            missing_end_penalty: Some(Positive::new(0.5)),
            ..RewardShaping::default()
        },
        ..config()
    };
    let mut whole = trainer(&config);
    let reports = run(&mut whole, 6);
    let mut begun = trainer(&config);
    run(&mut begun, 3);
    let mut resumed = trainer(&config);
    hand_over(&begun, &mut resumed);
    let rest = run(&mut resumed, 3);
    assert_eq!(rest, reports[3..]);
    let bits = |trainer: &PpoTrainer<Decoder>| {
        let both = [parameters(trainer.model()), parameters(&trainer.critic())].concat();
        both.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    assert_eq!(bits(&resumed), bits(&whole));
}

#[test]
fn the_state_of_another_configuration_is_refused() {
    let mut state = State::new();
    trainer(&config()).save(&mut state).unwrap();
    let averaged = PolicyReference::Averaged { decay: align_model::number::ProperFraction::new(0.9) };
    let mut other = trainer(&PpoConfig { reference: Some(averaged), ..config() });
    assert!(other.restore(&mut state).is_err());
}
