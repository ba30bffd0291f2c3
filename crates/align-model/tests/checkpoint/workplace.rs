//! A directory with checkpoints of a run that is made of nothing.

use std::{fs, path::Path};

use align_model::checkpoint::{
    CheckpointConfig, CheckpointPlace, CheckpointStore, Fingerprint, RunIdentity, State, StateTensor,
};
use serde_json::json;

/// What belongs to a run.
pub(crate) fn identity() -> RunIdentity {
    let config = json!({ "sft": { "seed": 1, "duration": { "steps": 100 } } });
    RunIdentity::new(config, Fingerprint::of_bytes(b"data"), Fingerprint::of_bytes(b"model"))
}

/// A state that differs from step to step and has every kind of number that is easily lost.
pub(crate) fn state(step: u64) -> State {
    let mut state = State::new();
    let values = vec![step as f32, -0.0, 1e-40, f32::MAX, 0.1, f32::INFINITY];
    state.insert_tensor("trainer/weight", StateTensor::from_values(vec![2, 3], values));
    state.insert_tensor("trainer/scalar", StateTensor::from_values(vec![], vec![step as f32]));
    state.insert_tensor("empty", StateTensor::from_values(vec![0, 4], vec![]));
    state.insert("trainer/steps", &(u64::MAX - step)).unwrap();
    state.insert("best", &0.1f64).unwrap();
    state
}

/// Checks that a state is bit for bit that of a step.
pub(crate) fn assert_is_state(mut found: State, step: u64) {
    let mut expected = state(step);
    let names: Vec<String> = expected.tensor_names().map(ToOwned::to_owned).collect();
    for name in names {
        let (a, b) = (found.take_tensor(&name).unwrap(), expected.take_tensor(&name).unwrap());
        assert_eq!(a.shape(), b.shape());
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&a.read().unwrap()), bits(&b.read().unwrap()), "{name}");
    }
    assert_eq!(found.take::<u64>("trainer/steps").unwrap(), u64::MAX - step);
    assert_eq!(found.take::<f64>("best").unwrap().to_bits(), 0.1f64.to_bits());
    found.finish().unwrap();
}

pub(crate) fn place(step: u64, metrics: &[(&str, f64)]) -> CheckpointPlace {
    let metrics = metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    CheckpointPlace { step, total_steps: 100, batches_taken: step, finished: false, metrics }
}

pub(crate) fn keeping(last: usize) -> CheckpointConfig {
    CheckpointConfig { keep_last: last.try_into().unwrap(), ..CheckpointConfig::default() }
}

pub(crate) fn open(directory: &Path) -> CheckpointStore {
    CheckpointStore::open(directory, identity(), keeping(100)).unwrap()
}

/// A store with checkpoints of these steps.
pub(crate) fn with_steps(directory: &Path, steps: &[u64]) -> CheckpointStore {
    let mut store = open(directory);
    for &step in steps {
        store.save(place(step, &[("loss", 1.0 / step as f64)]), &state(step)).unwrap();
    }
    store
}

/// Names of everything in a directory, in order.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}
