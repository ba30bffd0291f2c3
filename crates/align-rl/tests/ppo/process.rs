//! Process reward models as rewards of actions.

use align_model::pretrained::ClassifierKind;
use align_reward::{
    model::{RewardModel, ScoreHead},
    rollout::Rollout,
};
use align_rl::{ActionRewardFn as _, ProcessRewards, rollout::Sampled};
use burn::tensor::Device;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

use super::world::{CONTEXT, HIDDEN, decoder, experience};

fn model() -> RewardModel<align_model::decoder::Decoder> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let head = ScoreHead::random(ClassifierKind::Token, [2, HIDDEN], 0.3, &mut rng, &Device::flex());
    RewardModel::new(decoder(4).without_head(), head)
}

fn sample() -> Sampled {
    let mut trajectory = experience(2, false).remove(1).experience.trajectory;
    // The second token is what an environment said, and the separator in it ends no step.
    trajectory.tokens = vec![5, 9, 9, 6, 7];
    trajectory.is_action = vec![true, false, true, true, true];
    trajectory.sampling_log_probs = vec![-1.0; 4];
    Sampled { trajectory, rollout: Rollout::new("p", "c") }
}

#[test]
fn the_ends_of_steps_are_rewarded() {
    let (model, sample) = (model(), sample());
    let mut rewards = ProcessRewards::new("process", &model, vec![9], 1);
    let found = rewards.score(std::slice::from_ref(&sample)).unwrap().remove(0);
    let places: Vec<usize> = found.iter().map(|reward| reward.action).collect();
    assert_eq!(places, [1, 3]);
    let before = sample.trajectory.prompt.len();
    let tokens = [sample.trajectory.prompt, sample.trajectory.tokens].concat();
    let expected = model.step_probabilities(&tokens, &[before + 2, before + 4], 1);
    for (found, expected) in found.iter().zip(expected) {
        assert!((found.value - expected).abs() < 1e-6 && found.value > 0.0 && found.value < 1.0);
    }
}

#[test]
fn a_sample_that_does_not_fit_is_an_error() {
    let mut long = sample();
    long.trajectory.prompt = vec![5; CONTEXT];
    let error = ProcessRewards::new("process", &model(), vec![9], 1).score(&[long]).unwrap_err();
    assert!(error.to_string().contains("lower `max_new_tokens`"), "{error}");
}
