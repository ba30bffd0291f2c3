//! Runs that no longer get better.

use align_model::{
    checkpoint::Direction,
    number::NonNegative,
    train::{
        EarlyStopping, EarlyStoppingConfig, Ending, Evaluation, EvaluationConfig, FitError, Hook, StopSignal,
        TrainingLoop,
    },
};

use crate::toy::{Adder, Sum, store};

fn config(patience: u64, minimum: f64) -> EarlyStoppingConfig {
    EarlyStoppingConfig {
        patience: patience.try_into().unwrap(),
        minimum_improvement: NonNegative::new(minimum),
        ..EarlyStoppingConfig::default()
    }
}

/// The step after which a run with these evaluation losses, one a step, ends.
fn ends_after(losses: &[f64], config: EarlyStoppingConfig) -> (u64, Ending) {
    let every = EvaluationConfig { every: 1.try_into().unwrap(), at_start: false };
    let mut evaluation = Evaluation::new(every, |adder: &Adder| Ok([("loss", losses[adder.seen.len() - 1])]));
    let mut stopping = EarlyStopping::new(config);
    let run = TrainingLoop::new(losses.len() as u64);
    let outcome =
        run.run::<u64>(&mut Adder::default(), 1..100u64, &mut [&mut evaluation, &mut stopping]).unwrap();
    (outcome.step, outcome.ending)
}

#[test]
fn patience_is_counted_from_the_best() {
    let losses = [3.0, 2.0, 2.5, 1.9, 2.0, 2.0, 1.0, 1.0];
    assert_eq!(ends_after(&losses, config(1, 0.0)), (3, Ending::StoppedByHook));
    assert_eq!(ends_after(&losses, config(2, 0.0)), (6, Ending::StoppedByHook));
    assert_eq!(ends_after(&losses, config(3, 0.0)), (8, Ending::Completed));
    assert_eq!(
        ends_after(&losses, config(2, 0.5)),
        (4, Ending::StoppedByHook),
        "1.9 is not enough better than 2"
    );
    assert_eq!(ends_after(&[1.0, f64::NAN, f64::NAN, 0.5], config(2, 0.0)), (3, Ending::StoppedByHook));
    let higher = EarlyStoppingConfig { direction: Direction::Maximize, ..config(2, 0.0) };
    assert_eq!(ends_after(&losses, higher), (3, Ending::StoppedByHook));
}

#[test]
fn a_misspelt_metric_is_an_error() {
    let misspelt = |metric: &str| {
        let every = EvaluationConfig { every: 3.try_into().unwrap(), at_start: false };
        let mut evaluation = Evaluation::new(every, |_: &Adder| Ok([("loss", 1.0)]));
        let mut stopping =
            EarlyStopping::new(EarlyStoppingConfig { metric: metric.into(), ..config(1, 0.0) });
        let run = TrainingLoop::new(5);
        run.run::<u64>(&mut Adder::default(), 1..100u64, &mut [&mut evaluation, &mut stopping]).unwrap_err()
    };
    let FitError::Hook { step: 3, source } = misspelt("eval_los") else { panic!("at the first evaluation") };
    assert!(source.to_string().contains("`metric` = \"eval_los\""), "{source}");
    assert!(matches!(misspelt("accuracy"), FitError::Hook { step: 5, .. }));
}

#[test]
fn patience_is_remembered_and_an_end_is_final() {
    let directory = tempfile::tempdir().unwrap();
    let losses = [1.0, 2.0, 2.0, 2.0, 2.0];
    let mut made = Vec::new();
    // Every process makes one step.
    for _ in 0..5 {
        let mut checkpoints = store(directory.path(), 1);
        let mut adder = Adder::default();
        let every = EvaluationConfig { every: 1.try_into().unwrap(), at_start: false };
        let mut evaluation =
            Evaluation::new(every, |adder: &Adder| Ok([("loss", losses[adder.seen.len() - 1])]));
        let mut stopping = EarlyStopping::new(config(3, 0.0));
        let hooks: &mut [&mut dyn Hook<_, Sum>] = &mut [&mut evaluation, &mut stopping];
        let signal = StopSignal::new();
        signal.request();
        let mut run = TrainingLoop::new(100).stopping_at(signal).with_checkpoints(&mut checkpoints);
        run.resume(&mut adder, hooks).unwrap();
        let outcome = run.run::<u64>(&mut adder, 1..100u64, hooks).unwrap();
        made.push((outcome.step, outcome.ending));
    }
    let expected = [
        (1, Ending::StopRequested),
        (2, Ending::StopRequested),
        (3, Ending::StopRequested),
        (4, Ending::StoppedByHook),
        (4, Ending::FinishedBefore),
    ];
    assert_eq!(made, expected);
}
