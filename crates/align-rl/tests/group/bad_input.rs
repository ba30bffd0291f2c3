//! What cannot be learnt from: an error or a counted row, and the weights as they were.

use std::time::Duration;

use align_model::train::Step;
use align_reward::{
    function::{Deadline, RewardError, batch_fn, each_fn},
    rollout::Rollout,
    score::Score,
};
use align_rl::{
    ActionReward, ActionRewardFn, Experience, GroupConfig, GroupTrainer, KlPenalty, PolicyReference, Preset,
    Rewards, RlConfigError, RlError, group::TruncatedCompletions, rollout::Sampled,
};

use crate::world::{config, evenness, flat, load, prompts, trainer};

/// A step with this reward fails, and leaves the weights alone.
fn fails(reward: Rewards) -> RlError {
    let mut trainer = trainer(&config(Preset::Grpo), reward);
    let error = trainer.step(&prompts(4)).unwrap_err();
    assert_eq!(flat(trainer.model(), None), flat(&load(), None));
    error
}

#[test]
fn rewards_that_fail_are_errors() {
    let panics = each_fn("panics", |_: &Rollout| -> f64 { panic!("oh") });
    assert!(matches!(fails(Rewards::one(panics)), RlError::Reward(RewardError::Panicked { .. })));
    let short = batch_fn("short", |_| Ok(vec![Score::Value(1.0)]));
    let error = fails(Rewards::one(short));
    assert!(
        matches!(error, RlError::Reward(RewardError::WrongCount { expected: 16, found: 1, .. })),
        "{error}"
    );
}

/// Rewards this action of every sample with this.
#[derive(Debug)]
struct Misplaced(usize, f64);

impl ActionRewardFn for Misplaced {
    fn name(&self) -> &'static str {
        "misplaced"
    }

    fn score(&mut self, samples: &[Sampled]) -> Result<Vec<Vec<ActionReward>>, RewardError> {
        assert!(self.0 != 13, "oh");
        Ok(samples.iter().map(|_| vec![ActionReward { action: self.0, value: self.1 }]).collect())
    }
}

#[test]
fn a_reward_that_hangs_is_an_error() {
    let hangs = each_fn("hangs", |_: &Rollout| {
        std::thread::sleep(Duration::from_secs(2));
        1.0
    });
    let error = fails(Rewards::one(Deadline::new(Box::new(hangs), Duration::from_millis(20))));
    assert!(matches!(error, RlError::Reward(RewardError::Deadline { .. })), "{error}");
}

#[test]
fn rewards_of_actions_that_fail_are_errors() {
    for (action, value) in [(99, 1.0), (0, f64::NAN)] {
        let error = fails(evenness().with_action_rewards(Misplaced(action, value)));
        assert!(matches!(error, RlError::Reward(RewardError::Failed { .. })), "{error}");
    }
    let error = fails(evenness().with_action_rewards(Misplaced(13, 1.0)));
    assert!(matches!(error, RlError::Reward(RewardError::Panicked { .. })), "{error}");
    let mut trainer = trainer(&config(Preset::Grpo), evenness().with_action_rewards(Misplaced(0, 1.0)));
    trainer.step(&prompts(4)).unwrap();
}

#[test]
fn scores_that_are_none_stay_out_of_the_statistics() {
    let by_group = |rollout: &Rollout| match rollout.group {
        0 => f64::NAN,
        _ => f64::from(rollout.tokens.as_ref().unwrap()[0] % 7),
    };
    let mut trainer = trainer(&config(Preset::Grpo), Rewards::one(each_fn("sometimes", by_group)));
    let report = trainer.step(&prompts(4)).unwrap();
    assert_eq!(report.get("rewards/unscored"), Some(0.25));
    assert!(report.rollouts[..4].iter().all(|row| row.reward.is_none() && row.advantage == Some(0.0)));
    assert!(report.rollouts[4..].iter().any(|row| row.advantage.unwrap().abs() > 0.1));
    assert!(report.get("reward").unwrap().is_finite());
    assert_ne!(flat(trainer.model(), None), flat(&load(), None));
}

#[test]
fn a_batch_without_any_score_makes_no_update() {
    let none = Rewards::one(each_fn("none", |_: &Rollout| f64::INFINITY));
    let mut trainer = trainer(&config(Preset::Grpo), none);
    let report = trainer.step(&prompts(4)).unwrap();
    assert_eq!((report.get("updates"), report.get("rewards/unscored")), (Some(0.0), Some(1.0)));
    assert_eq!(flat(trainer.model(), None), flat(&load(), None));
}

#[test]
fn equal_rewards_teach_nothing() {
    let mut trainer = trainer(&config(Preset::Grpo), Rewards::one(each_fn("one", |_: &Rollout| 1.0)));
    let report = trainer.step(&prompts(4)).unwrap();
    assert_eq!((report.get("frac_reward_zero_std"), report.get("reward_std")), (Some(1.0), Some(0.0)));
    assert_eq!((report.get("grad_norm"), report.get("loss")), (Some(0.0), Some(0.0)));
}

#[test]
fn a_prompt_that_fills_the_context_is_counted() {
    let mut prompts = prompts(4);
    prompts[1].tokens = vec![70; 256];
    prompts[2].tokens.clear();
    let mut trainer = trainer(&config(Preset::Grpo), evenness());
    let report = trainer.step(&prompts).unwrap();
    assert_eq!((report.get("prompts/left_out"), report.rollouts.len()), (Some(2.0), 8));
    let all: Vec<_> = prompts[1..3].to_vec();
    let before = flat(trainer.model(), None);
    assert_eq!(trainer.step(&all).unwrap().get("updates"), Some(0.0));
    assert_eq!(flat(trainer.model(), None), before);
    assert!(matches!(trainer.step(&[]), Err(RlError::EmptyBatch)));
}

#[test]
fn truncated_completions_can_be_left_out() {
    let mut config = config(Preset::Grpo);
    config.truncated = TruncatedCompletions::Mask;
    let mut with = trainer(&config, evenness());
    let report = with.step(&prompts(4)).unwrap();
    let truncated = report.get("completions/clipped_ratio").unwrap() * 16.0;
    assert!(truncated > 0.0 && truncated < 16.0, "{truncated}");
    assert_eq!(report.get("completions/masked"), Some(truncated));
    config.rollout.stop.tokens.clear();
    let mut never_ends = trainer(&config, evenness());
    assert_eq!(never_ends.step(&prompts(4)).unwrap().get("updates"), Some(0.0));
}

#[test]
fn experience_that_does_not_fit_is_refused() {
    let mut trainer = trainer(&config(Preset::Grpo), evenness());
    let good = trainer.sample(&prompts(2)).unwrap().experience;
    let mut with = |change: fn(&mut Experience)| {
        let mut experience = good.clone();
        change(&mut experience[3]);
        let error = trainer.learn(&experience).unwrap_err();
        assert_eq!(flat(trainer.model(), None), flat(&load(), None));
        error.to_string()
    };
    let found = with(|one| one.advantages.push(0.0));
    assert!(found.starts_with("trajectory 3 has") && found.ends_with("advantages"), "{found}");
    assert!(with(|one| one.advantages[0] = f32::NAN).contains("not finite"));
    assert!(with(|one| one.old_log_probs = Some(vec![])).contains("0 old log-probabilities"));
    assert!(with(|one| one.trajectory.prompt.clear()).contains("empty prompt"));
    assert!(with(|one| one.trajectory.prompt = vec![70; 256]).contains("context 256"));
    let diverged = with(|one| {
        one.old_log_probs = Some(vec![-1e30; one.trajectory.actions()]);
        one.advantages.fill(-1e10);
    });
    assert!(diverged.contains("the loss is"), "{diverged}");
    let masked: Vec<Experience> =
        good.iter().map(|one| Experience { is_kept: false, ..one.clone() }).collect();
    assert!(matches!(trainer.learn(&masked), Err(RlError::NothingToLearn { trajectories: 8 })));
    assert!(matches!(trainer.learn(&[]), Err(RlError::EmptyBatch)));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let refused = |change: fn(&mut GroupConfig)| {
        let mut config = config(Preset::Grpo);
        change(&mut config);
        config.check().unwrap_err().to_string()
    };
    let kl = |config: &mut GroupConfig| {
        config.algorithm.objective.kl = Some(KlPenalty::k3(0.1.try_into().unwrap()));
    };
    assert!(refused(|config| config.reference = Some(PolicyReference::Frozen {})).contains("`reference`"));
    assert!(refused(|config| config.micro_batch_size = 17.try_into().unwrap()).contains("16 rollouts"));
    assert!(refused(|config| config.mini_batches = 5.try_into().unwrap()).contains("`mini_batches` = 5"));
    let lonely = refused(|config| {
        config.rollout.samples = 1.try_into().unwrap();
        config.micro_batch_size = 1.try_into().unwrap();
    });
    assert!(lonely.contains("`rollout.samples`"), "{lonely}");
    let alarms = "alarms = [{ when = { kind = 'kl_budget', nats = 1.0 } }]";
    assert!(
        toml::from_str::<GroupConfig>(alarms).unwrap().check().unwrap_err().to_string().contains("kl_budget")
    );
    let mut held = config(Preset::Grpo);
    kl(&mut held);
    let new =
        |config, reference| GroupTrainer::new(load(), reference, evenness(), None, config, 1).map(|_| ());
    assert_eq!(new(&held, None), Err(RlConfigError::MissingReference));
    assert_eq!(new(&config(Preset::Grpo), Some(load())), Err(RlConfigError::NeedlessReferenceModel));
}
