//! Whatever happens to a file is noticed, and the one before is taken.

use std::{error::Error, fs, path::Path};

use align_model::checkpoint::{CheckpointError, CheckpointStore};

use crate::workplace::{assert_is_state, identity, keeping, open, place, state, with_steps};

const FILES: [&str; 3] = ["state.safetensors", "state.json", "manifest.json"];

#[test]
fn what_was_saved_is_loaded_bit_for_bit() {
    let directory = tempfile::tempdir().unwrap();
    with_steps(directory.path(), &[10, 20]);
    let mut store = open(directory.path());
    let newest = store.newest().unwrap().unwrap();
    assert_eq!(newest.manifest.step, 20);
    assert!(newest.passed_over.is_empty());
    assert!((newest.manifest.metrics["loss"] - 0.05).abs() < 1e-12);
    assert_is_state(store.load(20).unwrap(), 20);
    assert_is_state(store.load(10).unwrap(), 10);
}

#[test]
fn the_tensors_are_an_ordinary_safetensors_file() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_steps(directory.path(), &[10]);
    let bytes = fs::read(store.path(10).join("state.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 3);
    let weight = tensors.tensor("trainer/weight").unwrap();
    assert_eq!((weight.shape(), &weight.data()[..4]), (&[2, 3][..], &10f32.to_le_bytes()[..]));
    assert_eq!(bytes.len() - (8 + bytes[0] as usize + 256 * bytes[1] as usize), 28);
}

#[test]
fn an_empty_directory_has_no_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(&directory.path().join("not/yet/there"));
    assert!(store.newest().unwrap().is_none());
    assert!(store.load(1).is_err());
}

/// Damages the newest of two checkpoints and expects to be told of `file`.
#[track_caller]
fn is_passed_over(file: &str, damage: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().unwrap();
    let path = with_steps(directory.path(), &[10, 20]).path(20);
    damage(&path.join(file));
    let mut store = open(directory.path());
    let newest = store.newest().unwrap().unwrap();
    assert_eq!(newest.manifest.step, 10);
    assert_eq!(newest.passed_over.len(), 1);
    let said = newest.passed_over[0].to_string();
    assert!(said.contains(file) && said.contains("checkpoint-000020"), "{said}");
    assert_is_state(store.load(10).unwrap(), 10);
    assert!(store.load(20).is_err());
    // The run makes those steps again and replaces what is damaged.
    store.save(place(20, &[]), &state(20)).unwrap();
    assert!(store.damaged().is_empty());
    assert_is_state(open(directory.path()).load(20).unwrap(), 20);
}

#[test]
fn a_file_cut_at_any_place_is_noticed() {
    for file in FILES {
        for kept in [0, 1, 7, 8, 40] {
            is_passed_over(file, |path| {
                let bytes = fs::read(path).unwrap();
                fs::write(path, &bytes[..kept.min(bytes.len() - 1)]).unwrap();
            });
        }
    }
}

#[test]
fn any_changed_byte_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = with_steps(directory.path(), &[10, 20]).path(20);
    for file in FILES {
        let file = path.join(file);
        let bytes = fs::read(&file).unwrap();
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 0x20;
            fs::write(&file, &changed).unwrap();
            let step = open(directory.path()).newest().unwrap().unwrap().manifest.step;
            assert_eq!(step, 10, "{} byte {place}", file.display());
        }
        fs::write(&file, &bytes).unwrap();
    }
}

#[test]
fn a_missing_file_is_noticed() {
    for file in FILES {
        is_passed_over(file, |path| fs::remove_file(path).unwrap());
    }
}

#[test]
fn a_longer_file_is_noticed() {
    is_passed_over("state.safetensors", |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, [bytes, vec![0]].concat()).unwrap();
    });
}

#[test]
fn if_none_is_intact_the_error_names_all() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_steps(directory.path(), &[10, 20]);
    for step in [10, 20] {
        fs::write(store.path(step).join("state.json"), "{").unwrap();
    }
    let error = open(directory.path()).newest().unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, CheckpointError::NoneIntact { damaged, .. } if damaged.len() == 2));
    assert!(said.contains("checkpoint-000010") && said.contains("checkpoint-000020"), "{said}");
    assert!(said.contains("has 1 bytes and was written with"), "{said}");
}

#[test]
fn an_unknown_format_is_named_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = with_steps(directory.path(), &[10]).path(10).join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap().replace("\"format\": 1", "\"format\": 7");
    fs::write(&manifest, text).unwrap();
    let store = open(directory.path());
    assert!(matches!(*store.damaged()[0].reason, CheckpointError::Format { found: 7, known: 1, .. }));
}

#[test]
fn errors_of_the_system_keep_their_cause() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = CheckpointStore::open(file.path(), identity(), keeping(1)).unwrap_err();
    assert!(error.to_string().contains(&file.path().display().to_string()));
    assert!(error.source().is_some());
}
