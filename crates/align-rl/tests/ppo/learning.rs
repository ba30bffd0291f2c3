//! PPO raises simple rewards.

use std::num::NonZeroUsize;

use align_model::{
    number::{Positive, UnitInterval},
    train::Step as _,
};
use align_reward::function::RewardError;
use align_rl::{
    ActionReward, ActionRewardFn, KlControl, KlEstimator, PpoConfig, PpoModels, PpoTrainer, RlReport,
    critic::{Critic, value_head},
    ppo::{RewardKl, ValueObjective},
    rollout::Sampled,
    watch::{AlarmAction, AlarmConfig, Danger},
};

use burn::tensor::Device;

use super::world::{HIDDEN, config, models, parameters, prompts, rewards, scored_by, trainer};

fn cheap_kl() -> PpoConfig {
    let (estimator, coefficient) = (KlEstimator::K1, Positive::new(0.005));
    PpoConfig {
        kl: Some(RewardKl::PerToken { estimator, coefficient, control: KlControl::Fixed {} }),
        batch_size: 16.try_into().unwrap(),
        micro_batch_size: 16.try_into().unwrap(),
        ..config()
    }
}

/// The mean reward of the first and of the last so many steps.
fn first_and_last(reports: &[RlReport], count: usize, name: &str) -> (f64, f64) {
    let mean =
        |some: &[RlReport]| some.iter().map(|it| it.get(name).unwrap()).sum::<f64>() / some.len() as f64;
    (mean(&reports[..count]), mean(&reports[reports.len() - count..]))
}

fn run(trainer: &mut PpoTrainer<align_model::decoder::Decoder>, steps: usize) -> Vec<RlReport> {
    (0..steps).map(|_| trainer.step(&prompts(16)).unwrap()).collect()
}

#[test]
fn a_simple_reward_rises() {
    let mut trainer = trainer(&cheap_kl());
    let reports = run(&mut trainer, 40);
    let (first, last) = first_and_last(&reports, 3, "reward");
    assert!(last > first + 0.25, "{first} to {last}");
    let (worst, best) = first_and_last(&reports, 3, "loss/value_avg");
    assert!(best < worst, "the critic learns as well: {worst} to {best}");
    assert!(reports.last().unwrap().get("objective/kl").unwrap() > 0.0);
    assert_eq!(reports[0].rollouts.len(), 16);
    assert!(reports[0].rollouts.iter().all(|row| row.reward.is_some() && row.advantage.is_some()));
}

#[test]
fn a_shared_critic_learns_as_well() {
    let config = PpoConfig {
        value: ValueObjective { coefficient: Positive::new(0.1), ..ValueObjective::default() },
        ..cheap_kl()
    };
    let critic = Critic::Shared(value_head(HIDDEN, &Device::flex()));
    let models = PpoModels { critic, ..models(&config) };
    let mut trainer = PpoTrainer::new(models, rewards(), None, &config, 100).unwrap();
    let reports = run(&mut trainer, 30);
    let (first, last) = first_and_last(&reports, 3, "reward");
    assert!(last > first + 0.2, "{first} to {last}");
    let (worst, best) = first_and_last(&reports, 3, "loss/value_avg");
    assert!(best < worst, "{worst} to {best}");
}

#[test]
fn trls_conventions_learn_as_well() {
    let ours = cheap_kl();
    let config = PpoConfig {
        rollout: ours.rollout,
        update: ours.update,
        critic_update: ours.critic_update,
        kl: ours.kl,
        batch_size: ours.batch_size,
        micro_batch_size: ours.micro_batch_size,
        ..PpoConfig::trl()
    };
    let reports = run(&mut trainer(&config), 30);
    let (first, last) = first_and_last(&reports, 3, "objective/scores");
    assert!(last > first + 0.15, "{first} to {last}");
}

/// Pays each low token where it stands.
#[derive(Debug)]
struct EachLowToken;

impl ActionRewardFn for EachLowToken {
    fn name(&self) -> &'static str {
        "each_low_token"
    }

    fn score(&mut self, samples: &[Sampled]) -> Result<Vec<Vec<ActionReward>>, RewardError> {
        let of_one = |sample: &Sampled| {
            let tokens = sample.trajectory.tokens.iter().enumerate();
            tokens
                .map(|(action, &token)| ActionReward { action, value: f64::from(u8::from(token < 12)) / 6.0 })
                .collect()
        };
        Ok(samples.iter().map(of_one).collect())
    }
}

#[test]
fn rewards_of_tokens_teach_without_a_score() {
    let config = PpoConfig { gamma: UnitInterval::new(0.5), ..cheap_kl() };
    let nothing = scored_by(|_| align_reward::score::Score::Value(0.0));
    let rewards = nothing.with_action_rewards(EachLowToken);
    let mut trainer = PpoTrainer::new(models(&config), rewards, None, &config, 100).unwrap();
    let reports = run(&mut trainer, 30);
    let (first, last) = first_and_last(&reports, 3, "objective/scores");
    assert!(last > first + 0.2, "{first} to {last}");
}

#[test]
fn a_coefficient_follows_its_target() {
    let control = KlControl::Adaptive { target: Positive::new(1e-4), horizon: 64.try_into().unwrap() };
    let (estimator, coefficient) = (KlEstimator::K1, Positive::new(0.01));
    let config = PpoConfig { kl: Some(RewardKl::PerToken { estimator, coefficient, control }), ..cheap_kl() };
    let reports = run(&mut trainer(&config), 4);
    let last = reports.last().unwrap().get("objective/kl_coef").unwrap();
    assert!(last > 0.01, "{last}");
}

/// The parts of a step, put together by hand, are the step.
#[test]
fn a_loop_of_ones_own_is_the_step() {
    let mut config = cheap_kl();
    (config.epochs, config.mini_batches) = (NonZeroUsize::MIN, NonZeroUsize::MIN);
    let (mut whole, mut parts) = (trainer(&config), trainer(&config));
    let report = whole.step(&prompts(16)).unwrap();
    let rollouts = parts.sample(&prompts(16)).unwrap();
    let experience = parts.experience(&rollouts).unwrap();
    let learnt = parts.learn(&experience).unwrap();
    assert_eq!(learnt.get("loss/value_avg"), report.get("loss/value_avg"));
    assert_eq!(parameters(parts.model()), parameters(whole.model()));
}

#[test]
fn a_spent_budget_ends_the_run() {
    let config = PpoConfig {
        alarms: vec![AlarmConfig {
            when: Danger::KlBudget { nats: Positive::new(1e-6) },
            patience: std::num::NonZeroU32::MIN,
            action: AlarmAction::Stop,
        }],
        ..cheap_kl()
    };
    let reports = run(&mut trainer(&config), 3);
    assert!(reports[0].alarms.is_empty(), "the policy is still its reference");
    assert_eq!(reports[2].alarms[0].action, AlarmAction::Stop);
}

#[test]
fn a_limit_ends_the_updates_of_a_step() {
    let config = PpoConfig {
        epochs: 8.try_into().unwrap(),
        epoch_kl_limit: Some(Positive::new(1e-4)),
        rollout: config().rollout,
        ..cheap_kl()
    };
    let report = trainer(&config).step(&prompts(16)).unwrap();
    let updates = report.get("updates").unwrap();
    assert!((1.0..16.0).contains(&updates), "{updates}");
    assert_eq!(report.get("updates/stopped"), Some(1.0));
}
