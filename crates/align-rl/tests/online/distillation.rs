//! A student and its teacher.

use align_model::{
    decoder::Decoder,
    generate::{Decoding, Sampling},
    logprob::Divergence,
    number::{Positive, UnitInterval},
    train::Step,
};
use align_rl::{
    RlConfigError, RlReport,
    distill::{
        DistillationConfig, DistillationError, DistillationExample, DistillationObjective,
        DistillationTrainer, OffPolicyCompletions,
    },
    rollout::RolloutConfig,
};
use burn::module::Module;

use crate::world::{
    assert_resumes, assert_same_metrics, load, policy, prompt, prompts, rollout, update, weights,
};

fn share(value: f64) -> UnitInterval {
    UnitInterval::new(value)
}

fn with_data(count: u32) -> Vec<DistillationExample> {
    let completion = |i: u32| Some((0..4 + i % 3).map(|t| (t * 29 + i * 41) % 250 + 3).collect());
    let examples = prompts(count).into_iter().zip(0..);
    examples.map(|(prompt, i)| DistillationExample { prompt, completion: completion(i) }).collect()
}

fn objectives() -> [DistillationObjective; 4] {
    let of = |divergence| DistillationObjective::Divergence { divergence, temperature: Positive::new(1.0) };
    [
        of(Divergence::ForwardKl {}),
        of(Divergence::ReverseKl {}),
        of(Divergence::JensenShannon { beta: share(0.5) }),
        DistillationObjective::PolicyGradient { discount: share(0.0) },
    ]
}

fn config(objective: DistillationObjective) -> DistillationConfig {
    DistillationConfig { rollout: rollout(1, 8), update: update(1e-3), ..DistillationConfig::of(objective) }
}

fn trainer(config: &DistillationConfig) -> DistillationTrainer<Decoder> {
    DistillationTrainer::new(policy(), &load("arch_qwen3"), None, config, 100).unwrap()
}

/// The divergence that a run with every objective is judged by, on prompts and completions that it does not see.
fn distance(student: &Decoder) -> f64 {
    let by = config(objectives()[1]);
    trainer(&by).evaluate(student, &with_data(20)[12..]).unwrap().loss()
}

#[test]
fn a_student_comes_closer_to_its_teacher() {
    let start = distance(&policy());
    for (objective, remaining) in objectives().into_iter().zip([0.5, 0.5, 0.5, 0.9]) {
        let config = config(objective);
        let config = DistillationConfig { rollout: rollout(4, 8), ..config };
        let mut trainer = trainer(&config);
        for _ in 0..30 {
            trainer.step(with_data(8).as_slice()).unwrap();
        }
        let end = distance(trainer.model());
        assert!(end < remaining * start, "{objective:?}: {start} {end}");
    }
}

#[test]
fn a_student_that_is_its_teacher_has_nothing_to_learn() {
    for objective in objectives() {
        let mut trainer =
            DistillationTrainer::new(policy(), &policy(), None, &config(objective), 10).unwrap();
        let report = trainer.step(with_data(4).as_slice()).unwrap();
        assert!(report.loss().abs() < 1e-5 && report.get("grad_norm").unwrap() < 1e-4, "{objective:?}");
    }
}

#[test]
fn who_writes_is_decided_by_the_share() {
    let writes = |on_policy: f64| {
        let mut trainer =
            trainer(&DistillationConfig { on_policy: share(on_policy), ..config(objectives()[2]) });
        let steps = (0..12).map(|_| trainer.step(with_data(2).as_slice()).unwrap());
        steps.map(|report| (report.get("on_policy").unwrap(), report.rollouts.len())).collect::<Vec<_>>()
    };
    assert!(writes(0.0).iter().all(|step| *step == (0.0, 0)));
    assert!(writes(1.0).iter().all(|step| *step == (1.0, 2)));
    let mixed = writes(0.5);
    let own = mixed.iter().filter(|(is_own, _)| *is_own > 0.5).count();
    assert!((2..=10).contains(&own), "{own}");
    assert_eq!(mixed, writes(0.5));
}

#[test]
fn a_teacher_may_write_what_the_data_does_not_have() {
    let without_data: Vec<DistillationExample> = prompts(3).into_iter().map(Into::into).collect();
    let config = DistillationConfig {
        on_policy: share(0.0),
        off_policy: OffPolicyCompletions::Teacher,
        ..config(objectives()[0])
    };
    let report = trainer(&config).step(without_data.as_slice()).unwrap();
    assert_eq!((report.get("on_policy"), report.rollouts.len()), (Some(0.0), 3));
    let config = DistillationConfig { off_policy: OffPolicyCompletions::Data, ..config };
    let error = trainer(&config).step(without_data.as_slice()).unwrap_err();
    assert!(matches!(error, DistillationError::MissingCompletion { index: 0 }), "{error}");
}

#[test]
fn a_step_is_the_same_however_it_is_cut() {
    for objective in objectives() {
        let run = |micro: usize| {
            let config = DistillationConfig {
                micro_batch_size: micro.try_into().unwrap(),
                rollout: rollout(2, 8),
                on_policy: share(1.0),
                ..config(objective)
            };
            trainer(&config).step(with_data(4).as_slice()).unwrap()
        };
        assert_same_metrics(&run(8), &run(1));
    }
}

#[test]
fn a_resumed_run_has_the_same_bits() {
    let batches: Vec<Vec<DistillationExample>> = (0..4).map(|i| with_data(3 + i)).collect();
    for objective in objectives() {
        assert_resumes(|| trainer(&config(objective)), &batches, |trainer| weights(trainer.model()));
    }
}

#[test]
fn a_model_is_measured_on_what_it_writes_and_the_margin_covers_the_truth() {
    let config = DistillationConfig { rollout: rollout(3, 8), ..config(objectives()[1]) };
    let trainer = trainer(&config);
    let own = |count: u32| trainer.evaluate_own(&policy(), &prompts(count)).unwrap();
    let (few, many) = (own(8), own(200));
    assert_eq!(few, own(8), "the same random numbers each time");
    let get = |report: &RlReport, name| report.get(name).unwrap();
    assert!(get(&many, "loss_margin") < 0.5 * get(&few, "loss_margin"));
    let apart = (many.loss() - few.loss()).abs();
    assert!(apart < 2.0 * (get(&many, "loss_margin") + get(&few, "loss_margin")), "{apart}");
    assert_eq!(get(&many, "completions/mean_length").to_bits(), 8f64.to_bits());
    let own = DistillationTrainer::new(policy(), &policy(), None, &config, 10).unwrap();
    let same = own.evaluate_own(&policy(), &prompts(4)).unwrap();
    assert!(same.loss().abs() < 1e-6 && get(&same, "loss_margin") < 1e-6);
    let error = trainer.evaluate_own(&policy(), &[]).unwrap_err();
    assert!(matches!(error, DistillationError::EmptyBatch), "{error}");
}

#[test]
fn written_completions_are_ranked_by_how_far_they_are_from_the_teacher() {
    for objective in objectives() {
        let config =
            DistillationConfig { on_policy: share(1.0), rollout: rollout(2, 8), ..config(objective) };
        let report = trainer(&config).step(with_data(4).as_slice()).unwrap();
        let divergences: Vec<f64> = report.rollouts.iter().map(|row| row.scores["divergence"]).collect();
        let rewards: Vec<f64> = report.rollouts.iter().map(|row| -row.reward.unwrap()).collect();
        assert_eq!((divergences.len(), &divergences), (8, &rewards));
        // All of them have eight tokens.
        let mean = divergences.iter().sum::<f64>() / 8.0;
        let expected = report.get("divergence").unwrap_or(report.loss());
        assert!((mean - expected).abs() < 1e-5, "{objective:?}: {mean} {expected}");
    }
}

#[test]
fn a_temperature_softens_both() {
    let at = |temperature: f64| {
        let objective = DistillationObjective::Divergence {
            divergence: Divergence::ForwardKl {},
            temperature: Positive::new(temperature),
        };
        trainer(&config(objective)).evaluate(&policy(), &with_data(4)).unwrap().loss()
    };
    assert!(at(4.0) < 0.5 * at(1.0), "{} {}", at(4.0), at(1.0));
}

#[test]
fn a_teacher_of_another_vocabulary_is_refused() {
    let error = DistillationTrainer::new(policy(), &load("tiny/model"), None, &config(objectives()[0]), 1);
    let error = error.unwrap_err();
    assert!(matches!(error, RlConfigError::Setting { key: "teacher", .. }), "{error}");
}

#[test]
fn a_teacher_is_asked_about_the_tokens_of_its_student() {
    let teacher = load("tiny/model").with_vocabulary(policy().config().vocab_size);
    let mut trainer =
        DistillationTrainer::new(policy(), &teacher, None, &config(objectives()[0]), 1).unwrap();
    assert!(trainer.step(with_data(4).as_slice()).unwrap().loss().is_finite());
}

#[test]
fn what_does_not_fit_either_context_is_refused() {
    let config = DistillationConfig { on_policy: share(0.0), ..config(objectives()[0]) };
    let long = |tokens: usize| DistillationExample {
        prompt: prompt(&vec![5; tokens]),
        completion: Some(vec![7; 4]),
    };
    // The teacher reads 128 tokens, the student 256.
    let mut trainer = DistillationTrainer::new(policy(), &load("arch_gpt_neox"), None, &config, 10).unwrap();
    let mut refused = |tokens| match trainer.step([long(tokens)].as_slice()) {
        Err(DistillationError::TooLong { whose, .. }) => Some(whose),
        Err(other) => panic!("{other}"),
        Ok(_) => None,
    };
    assert_eq!([124, 125, 253].map(&mut refused), [None, Some("teacher's"), Some("student's")]);
    let empty = DistillationExample { prompt: prompt(&[]), completion: Some(vec![1]) };
    let error = trainer.step([empty.clone()].as_slice()).unwrap_err();
    assert!(matches!(error, DistillationError::EmptyPrompt { index: 0 }), "{error}");
    let nothing: &[DistillationExample] = &[];
    assert!(matches!(trainer.step(nothing), Err(DistillationError::EmptyBatch)));
    let config = DistillationConfig { on_policy: share(1.0), ..config };
    let mut trainer = DistillationTrainer::new(policy(), &policy(), None, &config, 10).unwrap();
    let error = trainer.step([empty].as_slice()).unwrap_err();
    assert!(matches!(error, DistillationError::NothingWritten { prompts: 1, .. }), "{error}");
    assert_eq!(weights(trainer.model()), weights(&policy().train()));
}

#[test]
fn settings_that_contradict_each_other_are_named() {
    let refused = |config: DistillationConfig| match config.check() {
        Err(RlConfigError::Setting { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    let gradient = config(objectives()[3]);
    assert!(gradient.check().is_ok());
    assert_eq!(refused(DistillationConfig { on_policy: share(0.5), ..gradient.clone() }), "on_policy");
    let tempered = Decoding::Sample(Sampling { temperature: Positive::new(0.9), ..Sampling::default() });
    let rollout = RolloutConfig { decoding: tempered, ..gradient.rollout.clone() };
    assert_eq!(refused(DistillationConfig { rollout, ..gradient.clone() }), "rollout.decoding");
    let off_policy = OffPolicyCompletions::Teacher;
    assert_eq!(refused(DistillationConfig { off_policy, ..gradient }), "off_policy");
    let text =
        "objective = { kind = \"divergence\", divergence = { kind = \"reverse_kl\" } }\non_policy = 1.0";
    let read: DistillationConfig = toml::from_str(text).unwrap();
    assert_eq!(read.objective, objectives()[1]);
    assert_eq!(toml::from_str::<DistillationConfig>("").unwrap(), DistillationConfig::default());
    assert!(toml::from_str::<DistillationConfig>("lmbda = 1.0").is_err());
}
