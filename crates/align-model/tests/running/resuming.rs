//! Ending anywhere and going on.

use std::fs;

use align_model::{
    checkpoint::CheckpointError,
    train::{
        Ending, Flow, GeneratedSample, Hook, HookError, JsonlRecorder, Outcome, Recorder, Recording, Resumed,
        SamplesConfig, SamplesDuringTraining, StepEvent, StopSignal, TrainingLoop, fit,
    },
};

use crate::toy::{Adder, Diary, Sum, steps, store};

/// Gives the stop signal in a step.
struct StopIn(u64, StopSignal);

impl<S, R> Hook<S, R> for StopIn {
    fn after_step(&mut self, event: &mut StepEvent<'_, R>, _: &S) -> Result<Flow, HookError> {
        if event.progress.step == self.0 {
            self.1.request();
        }
        Ok(Flow::Continue)
    }
}

fn outcome(step: u64, ending: Ending) -> Outcome {
    Outcome { step, ending, failed_checkpoints: 0 }
}

#[test]
fn a_run_that_is_stopped_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let mut straight = Adder::default();
    fit::<_, u64, _>(&mut straight, 1..=9u64, 9, &mut []).unwrap();

    let mut checkpoints = store(directory.path(), 3);
    let (mut adder, mut diary) = (Adder::default(), Diary::default());
    let signal = StopSignal::new();
    let run = TrainingLoop::new(9).stopping_at(signal.clone()).with_checkpoints(&mut checkpoints);
    let mut stop = StopIn(4, signal);
    let ended = run.run::<u64>(&mut adder, 1..=9u64, &mut [&mut stop, &mut diary]).unwrap();
    assert_eq!(ended, outcome(4, Ending::StopRequested));
    assert_eq!(steps(&checkpoints), [3, 4]);
    assert_eq!(diary.0[diary.0.len() - 3..], ["after 4", "checkpoint 4", "end 4 StopRequested"]);

    let mut checkpoints = store(directory.path(), 3);
    let (mut adder, mut diary) = (Adder::default(), Diary::default());
    let mut run = TrainingLoop::new(9).with_checkpoints(&mut checkpoints);
    let resumed = run.resume(&mut adder, &mut [&mut diary as &mut dyn Hook<_, Sum>]).unwrap();
    assert_eq!(resumed, Resumed { step: 4, finished: false, passed_over: vec![] });
    let ended = run.run::<u64>(&mut adder, 1..=9u64, &mut [&mut diary]).unwrap();
    assert_eq!(ended, outcome(9, Ending::Completed));
    assert_eq!(adder, straight);
    assert_eq!(diary.0[..3], ["begin 4", "before 5", "after 5"]);
    assert_eq!(steps(&checkpoints), [3, 4, 6, 9]);
}

#[test]
fn a_run_that_is_over_makes_no_step() {
    let directory = tempfile::tempdir().unwrap();
    for expected in [Ending::Completed, Ending::FinishedBefore] {
        let mut checkpoints = store(directory.path(), 2);
        let mut adder = Adder::default();
        let mut run = TrainingLoop::new(4).with_checkpoints(&mut checkpoints);
        let resumed = run.resume::<Sum>(&mut adder, &mut []).unwrap();
        assert_eq!(resumed.finished, expected == Ending::FinishedBefore);
        assert_eq!(run.run::<u64>(&mut adder, 1..=9u64, &mut []).unwrap(), outcome(4, expected));
        assert_eq!(adder.seen, [1, 2, 3, 4]);
    }
}

#[test]
fn a_run_whose_batches_end_is_saved_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut checkpoints = store(directory.path(), 2);
        let mut adder = Adder::default();
        let mut run = TrainingLoop::new(10).with_checkpoints(&mut checkpoints);
        run.resume::<Sum>(&mut adder, &mut []).unwrap();
        assert_eq!(run.run::<u64>(&mut adder, 1..=3u64, &mut []).unwrap().step, 3);
        assert_eq!(steps(&checkpoints), [2, 3]);
    }
}

#[test]
fn a_run_of_another_length_is_another_run() {
    let directory = tempfile::tempdir().unwrap();
    let mut checkpoints = store(directory.path(), 2);
    TrainingLoop::new(4)
        .with_checkpoints(&mut checkpoints)
        .run::<u64>(&mut Adder::default(), 1..=9u64, &mut [])
        .unwrap();
    let mut longer = TrainingLoop::<_, u64>::new(8).with_checkpoints(&mut checkpoints);
    let error = longer.resume::<Sum>(&mut Adder::default(), &mut []).unwrap_err();
    assert!(error.to_string().contains("the number of steps was 4 and is 8"), "{error}");
    assert!(matches!(error, CheckpointError::OtherRun { .. }));
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut checkpoints = store(directory.path(), 2);
    let first = TrainingLoop::new(6).with_checkpoints(&mut checkpoints);
    first.run::<u64>(&mut Adder::default(), 1..=9u64, &mut []).unwrap();
    fs::write(checkpoints.path(6).join("state.safetensors"), "no tensors").unwrap();

    let mut checkpoints = store(directory.path(), 2);
    let mut adder = Adder::default();
    let mut run = TrainingLoop::new(6).with_checkpoints(&mut checkpoints);
    let resumed = run.resume::<Sum>(&mut adder, &mut []).unwrap();
    assert_eq!((resumed.step, resumed.passed_over.len()), (4, 1));
    assert!(resumed.passed_over[0].contains("checkpoint-000006/state.safetensors has 10 bytes"));
    run.run::<u64>(&mut adder, 1..=9u64, &mut []).unwrap();
    assert_eq!(store(directory.path(), 2).newest().unwrap().unwrap().manifest.step, 6);
}

#[test]
fn files_have_one_line_a_step_however_often_the_run_was_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let (metrics, samples) = (directory.path().join("metrics.jsonl"), directory.path().join("samples.jsonl"));
    // Every run ends without a checkpoint of its last steps: 13 cannot be added.
    for ends in [[1, 2, 13, 0, 0, 0], [1, 2, 3, 4, 5, 13], [1, 2, 3, 4, 5, 6]] {
        let mut checkpoints = store(&directory.path().join("checkpoints"), 2);
        let mut adder = Adder::default();
        let mut recorder = JsonlRecorder::open(&metrics).unwrap();
        let mut recording = Recording::new(vec![&mut recorder as &mut dyn Recorder]);
        let every = SamplesConfig { every: 3.try_into().unwrap() };
        let mut writing = SamplesDuringTraining::open(every, &samples, |adder: &Adder| {
            Ok(vec![GeneratedSample { prompt: "sum".into(), completion: adder.sum.to_string() }])
        })
        .unwrap();
        let hooks: &mut [&mut dyn Hook<_, _>] = &mut [&mut writing, &mut recording];
        let mut run = TrainingLoop::new(6).with_checkpoints(&mut checkpoints);
        run.resume(&mut adder, hooks).unwrap();
        let _ = run.run::<u64>(&mut adder, ends, hooks);
    }
    let lines = (1..=6).map(|step| format!("{{\"step\":{step},\"sum\":{}.0}}\n", step * (step + 1) / 2));
    assert_eq!(fs::read_to_string(metrics).unwrap(), lines.collect::<String>());
    let sample = |step, sum| format!("{{\"step\":{step},\"prompt\":\"sum\",\"completion\":\"{sum}\"}}\n");
    let expected = [sample(0, 0), sample(3, 6), sample(6, 21)].concat();
    assert_eq!(fs::read_to_string(samples).unwrap(), expected);
}
