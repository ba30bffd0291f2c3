//! Imitating the best of one's own completions.

use align_model::{generate::Decoding, number::PositiveUnit, train::Step};
use align_reward::{
    best_of_n::Keep,
    function::each_fn,
    rollout::{FinishReason, Rollout},
    score::Score,
};
use align_rl::{
    Rewards, RlConfigError,
    online::{
        OnlineError, RejectionSamplingConfig, RejectionSamplingTrainer, TruncatedDemonstrations,
        demonstrations,
    },
    rollout::{PromptExample, RolloutConfig, Sampled, sample_rollouts},
};
use proptest::prelude::*;

use crate::world::{assert_resumes, policy, prompt, prompts, rollout, smallness, update, weights};

fn config() -> RejectionSamplingConfig {
    RejectionSamplingConfig {
        rollout: rollout(4, 8),
        update: update(1e-3),
        ..RejectionSamplingConfig::default()
    }
}

fn trainer(config: &RejectionSamplingConfig) -> RejectionSamplingTrainer<align_model::decoder::Decoder> {
    RejectionSamplingTrainer::new(policy(), Rewards::one(each_fn("small", smallness)), None, config, 100)
        .unwrap()
}

fn samples(count: u32) -> Vec<Sampled> {
    sample_rollouts(&policy(), &prompts(count), &rollout(3, 4), 1, None).unwrap().samples
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn everything_is_kept_or_counted(
        scores in prop::collection::vec(prop_oneof![3 => (-3i32..3).prop_map(Some), 1 => Just(None)], 9),
        cut in prop::collection::vec(any::<bool>(), 9), keep in 0usize..3, leave_out in any::<bool>(),
    ) {
        static SAMPLES: std::sync::LazyLock<Vec<Sampled>> = std::sync::LazyLock::new(|| samples(3));
        let mut samples = SAMPLES.clone();
        for (sample, &cut) in samples.iter_mut().zip(&cut) {
            sample.trajectory.finish = if cut { FinishReason::Length } else { FinishReason::Stop };
        }
        let score = |score: Option<i32>| score.map_or_else(|| Score::unscored("x"), |score| Score::Value(score.into()));
        let scores: Vec<Score> = scores.into_iter().map(score).collect();
        let keep = [
            Keep::BestOfGroup { count: 1.try_into().unwrap() },
            Keep::AtLeast { score: 0.0 },
            Keep::BestFraction { fraction: PositiveUnit::new(0.4) },
        ][keep];
        let truncated =
            if leave_out { TruncatedDemonstrations::LeaveOut } else { TruncatedDemonstrations::Keep };
        let chosen = demonstrations(&samples, &scores, keep, truncated);
        prop_assert_eq!(chosen.kept.len() + chosen.rejected + chosen.truncated + chosen.unscored, 9);
        prop_assert_eq!(chosen.examples.len(), chosen.kept.len());
        for (example, &place) in chosen.examples.iter().zip(&chosen.kept) {
            prop_assert!(scores[place].value().is_some() && !(leave_out && cut[place]));
            let trajectory = &samples[place].trajectory;
            prop_assert_eq!(&example.tokens[..trajectory.prompt.len()], &trajectory.prompt[..]);
            prop_assert_eq!(&example.tokens[trajectory.prompt.len()..], &trajectory.tokens[..]);
            prop_assert_eq!(example.targets(), trajectory.tokens.len());
            if let Keep::BestOfGroup { .. } = keep {
                let of_group = place / 3 * 3..place / 3 * 3 + 3;
                let rivals = of_group.filter(|&rival| !(leave_out && cut[rival]));
                prop_assert!(rivals.filter_map(|rival| scores[rival].value()).all(|rival| Some(rival) <= scores[place].value()));
            }
        }
    }
}

#[test]
fn imitating_the_best_raises_the_reward() {
    let config = RejectionSamplingConfig { rollout: rollout(8, 8), update: update(3e-3), ..config() };
    let mut trainer = trainer(&config);
    let mean = |reports: &[f64]| reports.iter().sum::<f64>() / reports.len() as f64;
    let rewards: Vec<f64> =
        (0..40).map(|_| trainer.step(prompts(8).as_slice()).unwrap().get("reward").unwrap()).collect();
    let (before, after) = (mean(&rewards[..3]), mean(&rewards[37..]));
    assert!(after > before + 0.2, "{before} {after}");
}

#[test]
fn a_step_reports_what_it_kept() {
    let report =
        trainer(&config()).step([prompt(&[3, 4]), prompt(&[]), prompt(&[9, 9, 9])].as_slice()).unwrap();
    let get = |name| report.get(name).unwrap();
    assert_eq!((get("demonstrations/kept"), get("demonstrations/rejected")), (2.0, 6.0));
    assert_eq!((get("prompts/left_out"), get("completions/clipped_ratio")), (1.0, 1.0));
    assert!(get("demonstrations/reward") >= get("reward") && get("rewards/small/mean") == get("reward"));
    assert_eq!(report.rollouts.len(), 8);
}

#[test]
fn a_step_that_keeps_nothing_leaves_the_weights_alone() {
    let none = [
        RejectionSamplingConfig { keep: Keep::AtLeast { score: 2.0 }, ..config() },
        RejectionSamplingConfig { truncated: TruncatedDemonstrations::LeaveOut, ..config() },
    ];
    for config in none {
        let mut trainer = trainer(&config);
        let report = trainer.step(prompts(2).as_slice()).unwrap();
        assert_eq!((report.get("loss"), report.get("demonstrations/kept")), (None, Some(0.0)));
        assert_eq!(weights(trainer.model()), weights(&policy()));
    }
}

#[test]
fn settings_that_contradict_each_other_are_named() {
    let refused = |config: RejectionSamplingConfig| match config.check() {
        Err(RlConfigError::Setting { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    assert!(config().check().is_ok());
    let keep = |keep| RejectionSamplingConfig { keep, ..config() };
    assert_eq!(refused(keep(Keep::BestOfGroup { count: 4.try_into().unwrap() })), "keep.count");
    assert_eq!(refused(keep(Keep::AtLeast { score: f64::NAN })), "keep.score");
    assert_eq!(refused(keep(Keep::BestFraction { fraction: PositiveUnit::new(1.0) })), "keep.fraction");
    let greedy = RolloutConfig { decoding: Decoding::Greedy, ..rollout(4, 8) };
    assert_eq!(refused(RejectionSamplingConfig { rollout: greedy, ..config() }), "rollout.decoding");
    let wide = RejectionSamplingConfig { micro_batch_size: 33.try_into().unwrap(), ..config() };
    let error = RlConfigError::MicroBatchTooLarge { micro: 33, batch: 32 };
    assert_eq!(wide.check(), Err(error));
}

#[test]
fn a_resumed_run_has_the_same_bits() {
    let batches: Vec<Vec<PromptExample>> = (0..4).map(|i| prompts(3 + i)).collect();
    assert_resumes(|| trainer(&config()), &batches, |trainer| weights(trainer.model()));
}

#[test]
fn rewards_that_say_nothing_are_an_error() {
    let silent = Rewards::one(each_fn("silent", |_: &Rollout| Err::<f64, _>("no answer".to_owned())));
    let mut trainer = RejectionSamplingTrainer::new(policy(), silent, None, &config(), 10).unwrap();
    let error = trainer.step(prompts(2).as_slice()).unwrap_err();
    assert!(matches!(&error, OnlineError::NothingScored { completions: 8, .. }), "{error}");
    let full = prompt(&vec![5; 256]);
    let error = trainer.step([full].as_slice()).unwrap_err();
    assert!(matches!(error, OnlineError::NothingWritten { .. }), "{error}");
    let nothing: &[PromptExample] = &[];
    assert!(matches!(trainer.step(nothing), Err(OnlineError::EmptyBatch)));
    assert_eq!(weights(trainer.model()), weights(&policy()));
}
