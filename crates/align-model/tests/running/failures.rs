//! What happens when something goes wrong in the middle of a run.

use std::{error::Error as _, fmt, io, path::Path};

use align_model::{
    checkpoint::{
        CheckpointConfig, CheckpointError, Direction, KeepBest, OnSaveFailure, Storage, StoredFile,
    },
    train::{FitError, Flow, Hook, HookError, StepEvent, TrainingLoop},
};

use crate::toy::{Adder, Diary, Unlucky, steps, store, with_config};

/// A disk that takes nothing.
#[derive(Debug)]
struct Full;

impl Storage for Full {
    fn create(&self, _path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Err(io::ErrorKind::StorageFull.into())
    }
}

struct FailAfter(u64);

impl<S, R> Hook<S, R> for FailAfter {
    fn after_step(&mut self, event: &mut StepEvent<'_, R>, _: &S) -> Result<Flow, HookError> {
        if event.progress.step == self.0 {
            return Err(HookError { hook: "fragile", reason: "broke".into() });
        }
        Ok(Flow::Continue)
    }
}

#[test]
fn a_failed_step_names_its_batch_and_leaves_the_last_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let mut checkpoints = store(directory.path(), 2);
    let (mut adder, mut diary) = (Adder::default(), Diary::default());
    let run = TrainingLoop::new(9)
        .with_checkpoints(&mut checkpoints)
        .describing(|batch: &u64| format!("samples {batch}, {}", batch + 1));
    let error = run.run::<u64>(&mut adder, [1, 2, 3, 4, 13, 6], &mut [&mut diary]).unwrap_err();
    let said = "step 5 on samples 13, 14 failed; the checkpoint of step 4 stands";
    assert_eq!(error.to_string(), said);
    assert!(matches!(error, FitError::Step { step: 5, source: Unlucky, last_checkpoint: Some(4), .. }));
    assert_eq!(diary.0.last().unwrap(), &format!("failure 5: {said}: 13 cannot be added"));
    assert_eq!(steps(&checkpoints), [2, 4]);
    assert_eq!(checkpoints.newest().unwrap().unwrap().manifest.batches_taken, 4);
}

#[test]
fn a_batch_that_cannot_be_read_is_named_and_the_last_checkpoint_stands() {
    let directory = tempfile::tempdir().unwrap();
    let batches = || [Ok(1), Ok(2), Ok(3), Err(fmt::Error), Ok(5)];
    let mut diary = Diary::default();
    let mut checkpoints = store(directory.path(), 2);
    let run = TrainingLoop::new(9).with_checkpoints(&mut checkpoints);
    let error = run.try_run::<u64, _>(&mut Adder::default(), batches(), &mut [&mut diary]).unwrap_err();
    let said = "the batch of step 4 cannot be read; the checkpoint of step 2 stands";
    assert_eq!(error.to_string(), said);
    assert!(matches!(error, FitError::Batch { step: 4, last_checkpoint: Some(2), source: fmt::Error }));
    assert!(diary.0.last().unwrap().starts_with(&format!("failure 4: {said}: ")));
    assert_eq!(steps(&checkpoints), [2]);

    let mut checkpoints = store(directory.path(), 2);
    let mut run = TrainingLoop::new(9).with_checkpoints(&mut checkpoints);
    let mut adder = Adder::default();
    let hooks: &mut [&mut dyn Hook<Adder, _>] = &mut [&mut diary];
    assert_eq!(run.resume(&mut adder, hooks).unwrap().step, 2);
    let batches = [Ok(1), Err(fmt::Error)];
    let error = run.try_run::<u64, _>(&mut adder, batches, hooks).unwrap_err();
    assert!(matches!(error, FitError::Batch { step: 2, last_checkpoint: Some(2), .. }), "what was learnt");
}

#[test]
fn a_failed_hook_is_named() {
    let (mut adder, mut diary) = (Adder::default(), Diary::default());
    let run = TrainingLoop::new(9);
    let error = run.run::<u64>(&mut adder, 1..=9u64, &mut [&mut FailAfter(2), &mut diary]).unwrap_err();
    assert!(matches!(error, FitError::Hook { step: 2, .. }));
    assert_eq!(error.source().unwrap().to_string(), "fragile: broke");
    assert_eq!(diary.0.last().unwrap(), "failure 2: after step 2: fragile: broke");
}

#[test]
fn a_full_disk_ends_the_run_unless_it_may_go_on() {
    for (on_failure, expected) in [(OnSaveFailure::Stop, 2), (OnSaveFailure::Continue, 5)] {
        let directory = tempfile::tempdir().unwrap();
        let every = 2.try_into().unwrap();
        let config = CheckpointConfig { every, on_failure, ..CheckpointConfig::default() };
        let mut checkpoints = with_config(directory.path(), config).with_storage(Full);
        let (mut adder, mut diary) = (Adder::default(), Diary::default());
        let run = TrainingLoop::new(5).with_checkpoints(&mut checkpoints);
        let error = run.run::<u64>(&mut adder, 1..=9u64, &mut [&mut diary]).unwrap_err();
        // The last checkpoint must be made in either case.
        let FitError::Checkpoint { step, source, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*step, expected);
        assert!(matches!(**source, CheckpointError::Io { action: "write", .. }));
        assert_eq!(adder.seen.len() as u64, expected);
        assert!(diary.0.contains(&"no checkpoint".into()));
        assert!(diary.0.last().unwrap().starts_with(&format!("failure {expected}: ")));
        assert!(steps(&checkpoints).is_empty());
    }
}

#[test]
fn a_metric_that_nothing_measures_is_an_error_and_not_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let keep_best = Some(KeepBest { metric: "summ".into(), direction: Direction::Minimize });
    let every = 2.try_into().unwrap();
    let config = CheckpointConfig { every, keep_best, ..CheckpointConfig::default() };
    let mut checkpoints = with_config(directory.path(), config);
    let run = TrainingLoop::new(9).with_checkpoints(&mut checkpoints);
    let error = run.run::<u64>(&mut Adder::default(), 1..=9u64, &mut []).unwrap_err();
    let said = error.source().unwrap().to_string();
    assert!(said.contains("\"summ\"") && said.ends_with("had sum"), "{said}");
    assert_eq!(steps(&checkpoints), [2]);
}
