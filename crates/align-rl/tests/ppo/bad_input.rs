//! What goes wrong is an error or a counted row, and leaves the weights alone.

use align_model::{decoder::Decoder, generate::StopAt, number::Positive, train::Step as _};
use align_reward::{function::RewardError, model::RewardModel, score::Score};
use align_rl::{
    ActionReward, ActionRewardFn, KlPenalty, PpoConfig, PpoModels, PpoTrainer, Rewards, RlConfigError,
    RlError,
    loss::ScoreRange,
    ppo::{RewardKl, RewardShaping},
    rollout::Sampled,
};
use burn::tensor::Device;

use super::world::{
    CONTEXT, HIDDEN, config, critic, decoder, experience, models, parameters, prompts, rewards, scored_by,
    trainer,
};

fn scored(
    score: impl FnMut(&align_reward::rollout::Rollout) -> Score + Send + 'static,
) -> PpoTrainer<Decoder> {
    PpoTrainer::new(models(&config()), scored_by(score), None, &config(), 10).unwrap()
}

/// The error of a step that must leave both models alone.
fn refused(trainer: &mut PpoTrainer<Decoder>) -> RlError {
    let weights =
        |trainer: &PpoTrainer<Decoder>| [parameters(trainer.model()), parameters(&trainer.critic())];
    let before = weights(trainer);
    let error = trainer.step(&prompts(8)).unwrap_err();
    assert_eq!(weights(trainer), before);
    error
}

#[test]
fn rewards_that_fail() {
    let mut panics = scored(|_| panic!("oh"));
    assert!(matches!(refused(&mut panics), RlError::Reward(RewardError::Panicked { .. })));
    let mut silent = scored(|_| Score::unscored("nobody knows"));
    assert!(matches!(refused(&mut silent), RlError::NothingScored { rollouts: 8 }));
    let mut nan = scored(|_| Score::Value(f64::NAN));
    assert!(matches!(refused(&mut nan), RlError::NothingScored { .. }));
    let short = align_reward::function::batch_fn("short", |_| Ok(vec![Score::Value(1.0)]));
    let mut short = PpoTrainer::new(models(&config()), Rewards::one(short), None, &config(), 10).unwrap();
    assert!(matches!(refused(&mut short), RlError::Reward(RewardError::WrongCount { .. })));
    assert!(matches!(trainer(&config()).step(&[]), Err(RlError::EmptyBatch)));
}

#[test]
fn rollouts_without_a_score_are_counted_and_left_out() {
    let mut seen = 0;
    let mut some = scored(move |_| {
        seen += 1;
        if seen % 2 == 0 { Score::Value(f64::from(seen)) } else { Score::unscored("odd") }
    });
    let report = some.step(&prompts(8)).unwrap();
    assert_eq!(report.get("rewards/unscored"), Some(0.5));
    assert_eq!(report.rollouts.iter().filter(|row| row.advantage.is_some()).count(), 4);
}

#[test]
fn prompts_that_fill_the_context_are_counted() {
    let mut all = prompts(8);
    all[3].tokens = vec![5; CONTEXT];
    all[4].tokens.clear();
    all[5].tokens = vec![5; CONTEXT - 1];
    let report = trainer(&config()).step(&all).unwrap();
    assert_eq!(report.get("prompts/left_out"), Some(2.0));
    assert_eq!(report.rollouts.len(), 6);
}

#[test]
fn every_completion_may_be_cut_short_or_score_the_same() {
    let mut never_ends = config();
    never_ends.rollout.stop = StopAt::default();
    never_ends.rewards.missing_end_penalty = Some(Positive::new(1.0));
    let constant = scored_by(|_| Score::Value(3.0));
    let mut trainer = PpoTrainer::new(models(&never_ends), constant, None, &never_ends, 10).unwrap();
    let report = trainer.step(&prompts(8)).unwrap();
    assert_eq!(report.get("completions/clipped_ratio"), Some(1.0));
    assert!((report.get("objective/scores").unwrap() - 2.0).abs() < 1e-12);
    assert!(parameters(trainer.model()).iter().all(|weight| weight.is_finite()));
}

#[test]
fn a_critic_that_diverges_is_seen() {
    let mut broken = critic();
    let weight = vec![f32::NAN; HIDDEN];
    broken.head = align_reward::model::ScoreHead::from_values(
        align_model::pretrained::ClassifierKind::Token,
        [1, HIDDEN],
        weight,
        None,
        &Device::flex(),
    );
    let models = PpoModels { critic: broken.into(), ..models(&config()) };
    let mut trainer = PpoTrainer::new(models, rewards(), None, &config(), 10).unwrap();
    let before = parameters(trainer.model());
    assert!(matches!(trainer.step(&prompts(8)), Err(RlError::Value { .. })));
    assert_eq!(parameters(trainer.model()), before);
    // Losses that overflow are noticed before either model is touched.
    let mut trainer = super::world::trainer(&config());
    let mut all = experience(4, false);
    all[2].returns[0] = 1e30;
    assert!(matches!(trainer.learn(&all), Err(RlError::ValueLoss { .. })));
    assert_eq!(parameters(trainer.model()), before);
    all[2].returns[0] = f32::NAN;
    assert!(matches!(trainer.learn(&all), Err(RlError::NotANumber { index: 2, what: "returns" })));
    all[2].returns.pop();
    assert!(matches!(trainer.learn(&all), Err(RlError::Misaligned { index: 2, what: "returns", .. })));
}

#[derive(Debug)]
struct Misplaced(usize, f64);

impl ActionRewardFn for Misplaced {
    fn name(&self) -> &'static str {
        "misplaced"
    }

    fn score(&mut self, samples: &[Sampled]) -> Result<Vec<Vec<ActionReward>>, RewardError> {
        Ok(samples.iter().map(|_| vec![ActionReward { action: self.0, value: self.1 }]).collect())
    }
}

#[test]
fn rewards_of_actions_that_are_none() {
    for wrong in [Misplaced(99, 1.0), Misplaced(0, f64::NAN)] {
        let rewards = rewards().with_action_rewards(wrong);
        let mut trainer = PpoTrainer::new(models(&config()), rewards, None, &config(), 10).unwrap();
        assert!(matches!(refused(&mut trainer), RlError::Reward(RewardError::Failed { .. })));
    }
}

#[test]
fn settings_that_contradict_each_other() {
    let refused = |config: PpoConfig| config.check().unwrap_err().to_string();
    let mut twice = config();
    twice.kl = Some(RewardKl::default());
    twice.objective.kl = Some(KlPenalty::k3(Positive::new(0.1)));
    assert!(refused(twice.clone()).starts_with("`kl` and `objective.kl`"));
    twice.kl = None;
    assert!(twice.check().is_ok());
    assert_eq!(twice.reward_kl(), RewardKl::Off {});
    let needless = PpoConfig {
        kl: Some(RewardKl::Off {}),
        reference: Some(align_rl::PolicyReference::Frozen {}),
        ..config()
    };
    assert!(refused(needless).starts_with("`reference` has no meaning"));
    let empty = ScoreRange { low: 1.0, high: 1.0 };
    let clipped = RewardShaping { clip: Some(empty), ..RewardShaping::default() };
    assert!(refused(PpoConfig { rewards: clipped, ..config() }).starts_with("`rewards.clip`"));
    let many = PpoConfig { mini_batches: 9.try_into().unwrap(), ..config() };
    assert!(refused(many).starts_with("`mini_batches` is 9"));
    let two_labels = RewardModel::new(
        decoder(5).without_head(),
        align_reward::model::ScoreHead::from_values(
            align_model::pretrained::ClassifierKind::Token,
            [2, HIDDEN],
            vec![0.0; 2 * HIDDEN],
            None,
            &Device::flex(),
        ),
    );
    let models = PpoModels { critic: two_labels.into(), ..models(&config()) };
    let error = PpoTrainer::new(models, rewards(), None, &config(), 10).unwrap_err();
    assert_eq!(error, RlConfigError::CriticLabels { labels: 2 });
    let alone = PpoModels { reference: None, ..super::world::models(&config()) };
    let error = PpoTrainer::new(alone, rewards(), None, &config(), 10).unwrap_err();
    assert_eq!(error, RlConfigError::MissingReference);
}

#[test]
fn a_run_file_spells_it_out() {
    let text = r#"
        batch_size = 4
        kl = { kind = "per_token", estimator = "k3", control = { kind = "adaptive", target = 6.0, horizon = 10000 } }
        value = { clipping = { kind = "off" } }
        rewards = { placement = "after_last_action", clip = { low = -5.0, high = 5.0 }, whitening = "keep_mean" }
        advantage_whitening = "biased"
        order = "as_sampled"
    "#;
    let config: PpoConfig = toml::from_str(text).unwrap();
    let back: PpoConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(back, config);
    for preset in [PpoConfig::default(), PpoConfig::trl()] {
        assert!(preset.check().is_ok());
        let back: PpoConfig = toml::from_str(&toml::to_string(&preset).unwrap()).unwrap();
        assert_eq!(back, preset);
    }
    assert!(toml::from_str::<PpoConfig>("cliprange = 0.2").is_err());
}
