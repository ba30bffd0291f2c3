//! A trainer that is quick to run and easy to check: it adds up what it is given.

use std::path::Path;

use align_model::{
    checkpoint::{
        CheckpointConfig, CheckpointStore, Fingerprint, Resumable, RunIdentity, State, StateError,
        StateTensor,
    },
    train::{Flow, Hook, HookError, Metrics, Outcome, Progress, Report, Step, StepEvent},
};
use serde_json::json;

/// Adds up batches.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Adder {
    pub(crate) sum: f32,
    pub(crate) seen: Vec<u64>,
}

#[derive(Debug)]
pub(crate) struct Sum(f64);

/// The batch was 13.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("13 cannot be added")]
pub(crate) struct Unlucky;

impl Report for Sum {
    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![("sum", self.0)]
    }
}

impl Step<u64> for Adder {
    type Report = Sum;
    type Error = Unlucky;

    fn step(&mut self, batch: &u64) -> Result<Sum, Unlucky> {
        if *batch == 13 {
            return Err(Unlucky);
        }
        self.sum += *batch as f32;
        self.seen.push(*batch);
        Ok(Sum(f64::from(self.sum)))
    }
}

impl Resumable for Adder {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        state.insert_tensor("sum", StateTensor::from_values(vec![1], vec![self.sum]));
        state.insert("seen", &self.seen)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.sum = state.take_tensor("sum")?.read().unwrap()[0];
        self.seen = state.take("seen")?;
        Ok(())
    }
}

/// Writes down what it is told.
#[derive(Debug, Default)]
pub(crate) struct Diary(pub(crate) Vec<String>);

impl<S, R> Hook<S, R> for Diary {
    fn name(&self) -> &'static str {
        "diary"
    }

    fn begin(&mut self, progress: Progress, _: &mut Metrics, _: &S) -> Result<(), HookError> {
        self.0.push(format!("begin {}", progress.step));
        Ok(())
    }

    fn before_step(&mut self, progress: Progress, _: &S) -> Result<(), HookError> {
        self.0.push(format!("before {}", progress.step));
        Ok(())
    }

    fn after_step(&mut self, event: &mut StepEvent<'_, R>, _: &S) -> Result<Flow, HookError> {
        self.0.push(format!("after {}", event.progress.step));
        Ok(Flow::Continue)
    }

    fn after_checkpoint(
        &mut self,
        made: Result<&align_model::checkpoint::Manifest, &align_model::checkpoint::CheckpointError>,
    ) {
        self.0.push(made.map_or("no checkpoint".into(), |manifest| format!("checkpoint {}", manifest.step)));
    }

    fn at_end(&mut self, outcome: &Outcome, _: &S) -> Result<(), HookError> {
        self.0.push(format!("end {} {:?}", outcome.step, outcome.ending));
        Ok(())
    }

    fn on_failure(&mut self, failure: &align_model::train::Failure<'_>, _: &S) {
        self.0.push(format!("failure {}: {}", failure.step, failure.reason));
    }
}

/// A store that keeps everything and makes a checkpoint every so many steps.
pub(crate) fn store(directory: &Path, every: u64) -> CheckpointStore {
    let config = CheckpointConfig {
        every: every.try_into().unwrap(),
        keep_last: 100.try_into().unwrap(),
        ..CheckpointConfig::default()
    };
    with_config(directory, config)
}

pub(crate) fn with_config(directory: &Path, config: CheckpointConfig) -> CheckpointStore {
    let (data, model) = (Fingerprint::of_bytes(b"data"), Fingerprint::of_bytes(b"model"));
    CheckpointStore::open(directory, RunIdentity::new(json!({ "seed": 1 }), data, model), config).unwrap()
}

pub(crate) fn steps(store: &CheckpointStore) -> Vec<u64> {
    store.manifests().map(|manifest| manifest.step).collect()
}
