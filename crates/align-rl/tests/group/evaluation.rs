//! What a policy is worth on prompts that it is not trained on.

use align_model::train::Step;
use align_reward::{function::each_fn, rollout::Rollout};
use align_rl::{Preset, Rewards, group::HeldOut};

use crate::world::{config, evenness, load, prompts, trainer};

#[test]
fn a_mean_comes_with_its_interval_and_its_distance() {
    let (config, prompts) = (config(Preset::Dapo), prompts(12));
    let held_out = HeldOut { prompts: &prompts[4..], rollout: &config.rollout, seed: 3, tokenizer: None };
    let untrained = load();
    let found = held_out.evaluate(&untrained, Some(&untrained), &mut evenness()).unwrap();
    assert!(found.kl.unwrap().abs() < 1e-3, "{:?}", found.kl);
    let before = found.reward().unwrap();
    assert_eq!(before.prompts, 8);
    assert!(
        before.standard_error < before.margin && before.margin < 3.0 * before.standard_error,
        "{before:?}"
    );
    let metrics = found.metrics();
    let named = |name: &str| metrics.iter().find(|(known, _)| known == name).map(|&(_, value)| value);
    assert_eq!((named("reward"), named("reward_margin")), (Some(before.mean), Some(before.margin)));
    assert!(named("rewards/even/mean").is_some() && named("completions/mean_length").is_some());

    let mut trainer = trainer(&config, evenness());
    (0..20).for_each(|_| drop(trainer.step(&prompts[..4]).unwrap()));
    let found = held_out.evaluate(trainer.model(), Some(&untrained), &mut evenness()).unwrap();
    assert!(found.kl.unwrap() > 0.1, "{:?}", found.kl);
    let mut none = Rewards::one(each_fn("none", |_: &Rollout| f64::NAN));
    assert_eq!(held_out.evaluate(&untrained, None, &mut none).unwrap().reward(), None);
}
