//! What an update is made of.

use align_model::{
    number::{Positive, PositiveUnit},
    train::Step,
};
use align_rl::{
    Experience, KlEstimator, KlPenalty, Preset, RlReport,
    group::{Algorithm, DynamicSampling, RolloutTotals, TokenSelection},
    loss::Accumulation,
};

use crate::world::{config, evenness, flat, load, prompts, trainer};

const PRESETS: [Preset; 18] = [
    Preset::Grpo,
    Preset::DrGrpo,
    Preset::Dapo,
    Preset::Bnpo,
    Preset::Gspo,
    Preset::GspoToken,
    Preset::Cispo,
    Preset::Sapo,
    Preset::Vespo,
    Preset::Luspo,
    Preset::Gmpo,
    Preset::Rloo,
    Preset::ReinforcePlusPlus,
    Preset::ReinforcePlusPlusBaseline,
    Preset::ReMax,
    Preset::Opo,
    Preset::Gdpo,
    Preset::KlCov,
];

/// What a step of the untrained model learns from.
fn experience() -> Vec<Experience> {
    trainer(&config(Preset::Grpo), evenness()).sample(&prompts(4)).unwrap().experience
}

fn assert_close(actual: &[f32], expected: &[f32], what: &str) {
    assert_eq!(actual.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let worst = actual.iter().zip(expected).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(largest > 0.0 && worst <= 2e-5 * largest, "{what}: {worst} of {largest}");
}

#[test]
fn it_does_not_matter_how_an_update_is_cut_or_ordered() {
    let mut experience = experience();
    // As if the policy had moved since.
    for (index, one) in experience.iter_mut().enumerate() {
        let sampled = one.trajectory.sampling_log_probs.iter();
        one.old_log_probs = Some(sampled.map(|log_prob| log_prob + 0.1 * (index % 3) as f32 - 0.1).collect());
    }
    experience[5].is_kept = false;
    let mut reversed = experience.clone();
    reversed.reverse();
    let selections = [TokenSelection::All, TokenSelection::TopEntropy { share: PositiveUnit::new(0.5) }];
    let runs = [Preset::Grpo, Preset::Dapo, Preset::DrGrpo, Preset::Gspo]
        .into_iter()
        .zip(selections.into_iter().cycle());
    for (preset, selection) in runs {
        let gradients = |micro: usize, experience: &[Experience]| {
            let mut config = config(preset);
            config.micro_batch_size = micro.try_into().unwrap();
            config.algorithm.selection = selection;
            let penalty = KlPenalty { estimator: KlEstimator::K3, ..KlPenalty::k3(Positive::new(0.1)) };
            config.algorithm.objective.kl = Some(penalty);
            let trainer = trainer(&config, evenness());
            let (gradients, report) = trainer.gradients(experience, None).unwrap();
            (flat(trainer.model(), Some(&gradients)), report)
        };
        let (whole, report) = gradients(16, &experience);
        for (micro, experience) in [(1, &experience), (5, &experience), (3, &reversed)] {
            let (cut, of_cut) = gradients(micro, experience);
            assert_close(&cut, &whole, &format!("{preset:?} in passes of {micro}"));
            assert!((of_cut.loss() - report.loss()).abs() < 1e-5, "{preset:?}");
        }
    }
}

#[test]
fn ratios_on_what_was_just_sampled_are_exactly_one() {
    for preset in PRESETS {
        let mut trainer = trainer(&config(preset), evenness());
        let report = trainer.step(&prompts(4)).unwrap();
        assert_eq!((report.get("ratio/min"), report.get("ratio/max")), (Some(1.0), Some(1.0)), "{preset:?}");
        assert_eq!(report.get("clip_ratio/region_mean"), Some(0.0), "{preset:?}");
        assert!(report.get("sampling/sampling_logp_difference/max").unwrap() < 1e-3, "{preset:?}");
        assert_eq!(report.rollouts.len(), 16);
        // VESPO gives ratios of 1 the weight 1.
        let gamma = report.get("vespo/phi_seq_mean");
        assert_eq!(gamma, (preset == Preset::Vespo).then_some(1.0), "{preset:?}");
        assert_ne!(flat(trainer.model(), None), flat(&load(), None), "{preset:?} learnt nothing");
    }
}

#[test]
fn further_updates_are_measured_against_the_policy_that_sampled() {
    for (iterations, mini_batches) in [(2, 1), (1, 2), (2, 2)] {
        let mut config = config(Preset::Grpo);
        config.iterations = iterations.try_into().unwrap();
        config.mini_batches = mini_batches.try_into().unwrap();
        let mut trainer = trainer(&config, evenness());
        let report = trainer.step(&prompts(4)).unwrap();
        assert_eq!(report.get("updates"), Some((iterations * mini_batches) as f64));
        let ratios = ["ratio/min", "ratio/max"].map(|name| report.get(name).unwrap());
        assert!(ratios[0] < 0.999 && 1.001 < ratios[1], "{ratios:?}");
        // Log-probabilities before the first update are those of the sampler.
        assert!(report.get("sampling/sampling_logp_difference/max").unwrap() < 1e-3);
    }
}

#[test]
fn a_reward_rises_when_it_is_trained_on() {
    for preset in [Preset::Dapo, Preset::Rloo] {
        let mut config = config(preset);
        config.rollout.samples = 8.try_into().unwrap();
        if preset == Preset::Rloo {
            config.algorithm.reward_kl = Some(Positive::new(0.01));
        }
        let mut trainer = trainer(&config, evenness());
        let reports: Vec<RlReport> = (0..40).map(|_| trainer.step(&prompts(4)).unwrap()).collect();
        let mean = |reports: &[RlReport]| {
            reports.iter().map(|report| report.get("reward").unwrap()).sum::<f64>() / reports.len() as f64
        };
        let (before, after) = (mean(&reports[..4]), mean(&reports[36..]));
        assert!(after > before + 0.2, "{preset:?}: {before} to {after}");
        assert_eq!(preset == Preset::Rloo, reports[39].get("kl").is_some());
    }
}

#[test]
fn groups_without_signal_are_dropped_or_replaced() {
    let uneven = || {
        align_rl::Rewards::one(align_reward::function::each_fn(
            "uneven",
            |rollout: &align_reward::rollout::Rollout| {
                // The first prompt's completions are all equal.
                if rollout.prompt.text() == "prompt 0" {
                    1.0
                } else {
                    rollout.tokens.as_ref().unwrap()[0].into()
                }
            },
        ))
    };
    let run = |dynamic_sampling| {
        let mut config = config(Preset::Grpo);
        config.dynamic_sampling = dynamic_sampling;
        config.batch_size = 2.try_into().unwrap();
        let prompts = prompts(config.prompts_per_step().get() as u32);
        let round = trainer(&config, uneven()).sample(&prompts).unwrap();
        let groups: Vec<u64> = round.experience.iter().step_by(4).map(|one| one.trajectory.group).collect();
        (groups, round.dropped_groups, round.scored.samples.len())
    };
    assert_eq!(run(DynamicSampling::Off), (vec![0, 1], 0, 8));
    assert_eq!(run(DynamicSampling::Drop), (vec![1], 1, 8));
    let spare = 3.try_into().unwrap();
    assert_eq!(run(DynamicSampling::Replace { spare }), (vec![1, 2], 1, 12));
}

#[test]
fn exact_divergences_are_learnt_from() {
    let mut config = config(Preset::Grpo);
    let penalty = KlPenalty { estimator: KlEstimator::Exact, ..KlPenalty::k3(Positive::new(0.1)) };
    config.algorithm = Algorithm::preset(Preset::Grpo);
    config.algorithm.objective.kl = Some(penalty);
    let mut trainer = trainer(&config, evenness());
    let first = trainer.step(&prompts(4)).unwrap().get("kl").unwrap();
    let second = trainer.step(&prompts(4)).unwrap().get("kl").unwrap();
    assert!(first.abs() < 1e-6 && second > 1e-4, "{first} {second}");
}

#[test]
fn episodes_that_were_sampled_elsewhere_are_learnt_from() {
    let mut here = trainer(&config(Preset::Grpo), evenness());
    let mut there = trainer(&config(Preset::Grpo), evenness());
    let scored = there.sample(&prompts(4)).unwrap().scored;
    assert_eq!(there.step_with(scored).unwrap(), here.step(&prompts(4)).unwrap());
    assert_eq!(flat(there.model(), None), flat(here.model(), None));
}

#[test]
fn rewards_of_single_actions_are_learnt_from() {
    // All completions are worth the same, and their even tokens are not.
    let mut config = config(Preset::ReinforcePlusPlus);
    config.rollout.samples = 8.try_into().unwrap();
    let mut trainer =
        trainer(&config, align_rl::Rewards::one(align_reward::function::each_fn("none", |_: &_| 0.0)));
    let mut step = || {
        let mut scored = trainer.sample(&prompts(4)).unwrap().scored;
        let evenness = |token: &u32| f64::from(u8::from(token.is_multiple_of(2))) - 0.5;
        let of_one =
            |sample: &align_rl::rollout::Sampled| sample.trajectory.tokens.iter().map(evenness).collect();
        scored.action_rewards = scored.samples.iter().map(of_one).collect();
        let all: Vec<f64> = scored.action_rewards.concat();
        trainer.step_with(scored).unwrap();
        all.iter().sum::<f64>() / all.len() as f64
    };
    let shares: Vec<f64> = (0..30).map(|_| step()).collect();
    let mean = |shares: &[f64]| shares.iter().sum::<f64>() / shares.len() as f64;
    assert!(mean(&shares[26..]) > mean(&shares[..4]) + 0.1, "{shares:?}");
    let mut scored = trainer.sample(&prompts(1)).unwrap().scored;
    scored.action_rewards = vec![Vec::new()];
    assert!(matches!(trainer.step_with(scored), Err(align_rl::RlError::Misaligned { .. })));
}

#[test]
fn trl_averages_micro_batches() {
    let experience = experience();
    let gradients = |accumulation: Accumulation, experience: &[Experience], rollouts| {
        let mut config = config(Preset::Dapo);
        config.micro_batch_size = 8.try_into().unwrap();
        config.algorithm.accumulation = accumulation;
        let trainer = trainer(&config, evenness());
        let (gradients, report) = trainer.gradients(experience, rollouts).unwrap();
        (flat(trainer.model(), Some(&gradients)), report)
    };
    let halves = experience.split_at(8);
    let mean = |[a, b]: [&[f32]; 2], [of_a, of_b]: [f32; 2]| -> Vec<f32> {
        a.iter().zip(b).map(|(a, b)| of_a * a + of_b * b).collect()
    };
    let (first, of_first) = gradients(Accumulation::Exact, halves.0, None);
    let (second, of_second) = gradients(Accumulation::Exact, halves.1, None);
    let (means, report) = gradients(Accumulation::MicroBatchMean, &experience, None);
    assert_close(&means, &mean([&first, &second], [0.5, 0.5]), "the mean of means");
    let entropies = [&of_first, &of_second, &report].map(|report| report.get("entropy").unwrap());
    assert!((f64::midpoint(entropies[0], entropies[1]) - entropies[2]).abs() < 1e-6, "{entropies:?}");
    let whole = gradients(Accumulation::Exact, &experience, None).0;
    assert_close(&gradients(Accumulation::RolloutMean, &experience, None).0, &whole, "all at once");
    let tokens = experience.iter().map(Experience::targets).sum::<usize>();
    let rollouts = Some(RolloutTotals { tokens: 3 * tokens, updates: 2 });
    let thinned: Vec<f32> = whole.iter().map(|value| value / 1.5).collect();
    assert_close(&gradients(Accumulation::RolloutMean, &experience, rollouts).0, &thinned, "of rollouts");
}
