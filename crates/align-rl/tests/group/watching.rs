//! A reward that can be hacked is noticed before harm is done.

use align_model::{
    number::{NonNegative, Positive},
    train::{Ending, Hook, TrainingLoop},
};
use align_reward::{function::each_fn, guard::OveroptimizationConfig, rollout::Rollout};
use align_rl::{
    GroupConfig, GroupTrainer, Preset, Rewards, RlReport,
    group::HeldOut,
    rollout::PromptExample,
    watch::{AlarmAction, AlarmConfig, Danger, GoldEvaluation, GoldWatch, StopOnAlarm},
};

use crate::world::{config, prompts, trainer};

type Trainer = GroupTrainer<align_model::decoder::Decoder>;

/// Pays for length and nothing else.
fn length(rollout: &Rollout) -> f64 {
    rollout.tokens.as_ref().unwrap().len() as f64
}

/// What it stands for: an answer that is worth less the longer it is.
fn quality(rollout: &Rollout) -> f64 {
    1.0 - length(rollout) / 64.0
}

fn hackable() -> GroupConfig {
    let mut config = config(Preset::Dapo);
    config.rollout.max_new_tokens = 32.try_into().unwrap();
    config.rollout.samples = 8.try_into().unwrap();
    config.alarms = vec![AlarmConfig {
        when: Danger::LengthDrift { factor: Positive::new(1.3) },
        patience: 2.try_into().unwrap(),
        action: AlarmAction::Stop,
    }];
    config
}

/// Mean of a reward on prompts that are not trained on, and its standard error.
fn held_out(trainer: &Trainer, reward: fn(&Rollout) -> f64) -> (f64, f64) {
    let prompts = prompts(20)[8..].to_vec();
    let config = hackable().rollout;
    let held_out = HeldOut { prompts: &prompts, rollout: &config, seed: 1, tokenizer: None };
    let mut rewards = Rewards::one(each_fn("held out", reward));
    let found = held_out.evaluate(trainer.model(), None, &mut rewards).unwrap().reward().unwrap();
    (found.mean, found.standard_error)
}

fn run(config: &GroupConfig, hooks: &mut [&mut dyn Hook<Trainer, RlReport>]) -> (Trainer, Ending, u64) {
    let mut trainer = trainer(config, Rewards::one(each_fn("length", length)));
    let batches = std::iter::repeat_with(|| prompts(4));
    let outcome = TrainingLoop::new(60).run::<[PromptExample]>(&mut trainer, batches, hooks).unwrap();
    (trainer, outcome.ending, outcome.step)
}

#[test]
fn an_alarm_stops_a_run_that_is_paid_for_length() {
    let config = hackable();
    let untrained = trainer(&config, Rewards::one(each_fn("length", length)));
    let ((before, _), (short, _)) = (held_out(&untrained, quality), held_out(&untrained, length));
    let mut seen = Vec::new();
    let mut alarms = StopOnAlarm::showing(|alarm: &align_rl::watch::Alarm| seen.push(alarm.to_string()));
    let (trainer, ending, step) = run(&config, &mut [&mut alarms]);
    let (after, _) = held_out(&trainer, quality);
    assert_eq!(ending, Ending::StoppedByHook, "nothing was noticed in {step} steps");
    assert!(seen[0].contains("completions/mean_length"), "{seen:?}");
    assert!(after > 0.9 * before, "noticed at step {step}, when quality had gone from {before} to {after}");
    let (long, _) = held_out(&trainer, length);
    assert!(long > short, "{short} to {long}");
}

#[test]
fn a_better_measure_stops_it_as_well() {
    let config = GroupConfig { alarms: Vec::new(), ..hackable() };
    let settings = OveroptimizationConfig { standard_errors: NonNegative::new(1.0), ..Default::default() };
    let mut watch = GoldWatch::new(1.try_into().unwrap(), settings, |trainer: &Trainer| {
        let ((proxy, _), (gold, gold_standard_error)) =
            (held_out(trainer, length), held_out(trainer, quality));
        Ok(GoldEvaluation { kl: 0.0, proxy, gold, gold_standard_error })
    });
    let (_, ending, step) = run(&config, &mut [&mut watch]);
    assert_eq!(ending, Ending::StoppedByHook, "nothing was noticed in {step} steps");
    let points = watch.monitor().points();
    let (first, last) = (points[0], points[points.len() - 1]);
    assert!(last.gold > 0.9 * first.gold && last.proxy > first.proxy, "{first:?} {last:?}");
}
