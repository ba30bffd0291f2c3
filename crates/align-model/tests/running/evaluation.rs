//! Numbers that are measured now and then, and where they go.

use align_model::train::{
    Evaluation, EvaluationConfig, HookError, Metrics, Recorder, Recording, TrainingLoop,
};

use crate::toy::{Adder, store};

/// Keeps what it is told.
#[derive(Default)]
struct Kept(Vec<(u64, String, f64)>);

impl Recorder for Kept {
    fn begin(&mut self, step: u64) -> Result<(), HookError> {
        self.0.retain(|(of, _, _)| *of <= step);
        Ok(())
    }

    fn record(&mut self, step: u64, metrics: &Metrics) -> Result<(), HookError> {
        self.0.extend(metrics.iter().map(|(name, value)| (step, name.to_owned(), value)));
        Ok(())
    }
}

#[test]
fn every_recorder_gets_every_number_of_its_step() {
    let directory = tempfile::tempdir().unwrap();
    let mut checkpoints = store(directory.path(), 2);
    let every = EvaluationConfig { every: 2.try_into().unwrap(), at_start: true };
    let mut evaluation = Evaluation::new(every.clone(), |adder: &Adder| Ok([("sum", f64::from(adder.sum))]));
    let mut other =
        Evaluation::new(EvaluationConfig { at_start: false, ..every }, |_: &Adder| Ok([("x", 0.5)]))
            .prefixed("other_");
    let (mut one, mut two) = (Kept::default(), Kept::default());
    let mut recording = Recording::new(vec![&mut one, &mut two]);
    TrainingLoop::new(3)
        .with_checkpoints(&mut checkpoints)
        .run::<u64>(&mut Adder::default(), 1..9u64, &mut [&mut evaluation, &mut other, &mut recording])
        .unwrap();
    let said: Vec<(u64, &str, f64)> =
        one.0.iter().map(|(step, name, value)| (*step, &**name, *value)).collect();
    let expected = [
        (0, "eval_sum", 0.0),
        (1, "sum", 1.0),
        (2, "sum", 3.0),
        (2, "eval_sum", 3.0),
        (2, "other_x", 0.5),
        (3, "sum", 6.0),
        (3, "eval_sum", 6.0),
        (3, "other_x", 0.5),
    ];
    assert_eq!(said, expected);
    assert_eq!(one.0, two.0);
    let metrics = &checkpoints.newest().unwrap().unwrap().manifest.metrics;
    assert_eq!(metrics.keys().map(String::as_str).collect::<Vec<_>>(), ["eval_sum", "other_x", "sum"]);
}

#[test]
fn an_evaluation_that_fails_ends_the_run() {
    let every = EvaluationConfig { every: 2.try_into().unwrap(), at_start: false };
    let mut evaluation = Evaluation::new(every, |_: &Adder| -> Result<[(&str, f64); 0], HookError> {
        Err(HookError { hook: "evaluation", reason: "nothing to evaluate".into() })
    });
    let error =
        TrainingLoop::new(3).run::<u64>(&mut Adder::default(), 1..9u64, &mut [&mut evaluation]).unwrap_err();
    assert_eq!(error.to_string(), "after step 2");
}
