//! Which checkpoints stay.

use std::fs;

use align_model::checkpoint::{CheckpointConfig, CheckpointStore, Direction, KeepBest};

use crate::workplace::{identity, keeping, names, place, state};

fn steps(store: &CheckpointStore) -> Vec<u64> {
    let known: Vec<u64> = store.manifests().map(|manifest| manifest.step).collect();
    let mut expected: Vec<String> = known.iter().map(|step| format!("checkpoint-{step:06}")).collect();
    expected.sort_unstable();
    assert_eq!(names(store.directory()), expected);
    known
}

fn best_by(metric: &str, direction: Direction, last: usize) -> CheckpointConfig {
    CheckpointConfig { keep_best: Some(KeepBest { metric: metric.into(), direction }), ..keeping(last) }
}

#[test]
fn the_newest_stay() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(directory.path(), identity(), keeping(2)).unwrap();
    for step in [5, 10, 999_999, 1_000_000] {
        store.save(place(step, &[]), &state(step)).unwrap();
    }
    assert_eq!(steps(&store), [999_999, 1_000_000]);
    let mut again = CheckpointStore::open(directory.path(), identity(), keeping(1)).unwrap();
    assert_eq!(again.newest().unwrap().unwrap().manifest.step, 1_000_000);
}

#[test]
fn the_best_stays_however_old_it_is() {
    for (direction, expected) in [(Direction::Minimize, [20, 50]), (Direction::Maximize, [30, 50])] {
        let directory = tempfile::tempdir().unwrap();
        let config = best_by("eval_loss", direction, 1);
        let mut store = CheckpointStore::open(directory.path(), identity(), config.clone()).unwrap();
        for (step, loss) in [(10, 2.0), (20, 1.0), (30, 3.0), (40, 1.0), (50, f64::NAN)] {
            store.save(place(step, &[("eval_loss", loss)]), &state(step)).unwrap();
        }
        assert_eq!(steps(&store), expected, "of equals the oldest, and NaN is never the best");
        assert_eq!(store.best().unwrap().step, expected[0]);
        // A process that starts later knows it too.
        let again = CheckpointStore::open(directory.path(), identity(), config).unwrap();
        assert_eq!(again.best().unwrap().step, expected[0]);
    }
}

#[test]
fn the_newest_stays_even_if_another_is_the_best() {
    let directory = tempfile::tempdir().unwrap();
    let mut store =
        CheckpointStore::open(directory.path(), identity(), best_by("loss", Direction::Minimize, 1)).unwrap();
    for step in [1, 2, 3] {
        store.save(place(step, &[("loss", step as f64)]), &state(step)).unwrap();
        assert_eq!(store.newest().unwrap().unwrap().manifest.step, step);
    }
    assert_eq!(steps(&store), [1, 3]);
}

#[test]
fn leftovers_of_a_killed_run_are_removed_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut store = CheckpointStore::open(path, identity(), keeping(5)).unwrap();
    store.save(place(10, &[]), &state(10)).unwrap();
    for leftover in [".checkpoint-000020.partial", ".checkpoint-000005.removed"] {
        fs::create_dir(path.join(leftover)).unwrap();
        fs::write(path.join(leftover).join("state.json"), "{").unwrap();
    }
    fs::write(path.join("notes.txt"), "mine").unwrap();
    fs::create_dir(path.join("checkpoint-of-mine")).unwrap();
    let mut store = CheckpointStore::open(path, identity(), keeping(5)).unwrap();
    assert_eq!(names(path), ["checkpoint-000010", "checkpoint-of-mine", "notes.txt"]);
    assert_eq!(store.newest().unwrap().unwrap().manifest.step, 10);
    store.clear().unwrap();
    assert_eq!(names(path), ["checkpoint-of-mine", "notes.txt"]);
    assert!(store.newest().unwrap().is_none());
}

#[test]
#[should_panic(expected = "is newer than step 10")]
fn a_run_must_not_overtake_another() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(directory.path(), identity(), keeping(5)).unwrap();
    store.save(place(20, &[]), &state(20)).unwrap();
    let _ = store.save(place(10, &[]), &state(10));
}
