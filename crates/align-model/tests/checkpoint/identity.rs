//! A checkpoint is continued only by the run that it belongs to.

use align_model::checkpoint::{CheckpointError, CheckpointStore, Fingerprint, RunIdentity};
use serde_json::json;

use crate::workplace::{identity, keeping, with_steps};

#[track_caller]
fn refused(other: RunIdentity) -> String {
    let directory = tempfile::tempdir().unwrap();
    with_steps(directory.path(), &[10]);
    let error = CheckpointStore::open(directory.path(), other, keeping(2)).unwrap().newest().unwrap_err();
    assert!(matches!(error, CheckpointError::OtherRun { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn another_configuration_is_refused_by_its_keys() {
    let config = json!({ "sft": { "seed": 1, "duration": { "steps": 200 } } });
    let said = refused(RunIdentity { config, ..identity() });
    assert!(said.contains("sft.duration.steps was 100 and is 200"), "{said}");
    assert!(said.contains("checkpoint-000010"), "{said}");
}

#[test]
fn other_data_and_another_model_are_refused() {
    let said = refused(RunIdentity { data: Fingerprint::of_bytes(b"other"), ..identity() });
    assert!(said.contains("the data was ") && !said.contains("the model"), "{said}");
    let said = refused(RunIdentity { model: Fingerprint::of_bytes(b"other"), ..identity() });
    assert!(said.contains("the model was "), "{said}");
}
