//! A process that is killed at any moment, inside a step or inside a save, loses nothing but time.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use align_model::{
    checkpoint::{CheckpointConfig, CheckpointStore, State},
    sft::{SftExample, SftLoss, evaluate},
    train::{
        EarlyStopping, EarlyStoppingConfig, Evaluation, EvaluationConfig, Hook, JsonlRecorder, Recording,
        TrainingLoop,
    },
};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    fine_tuning::{Trainer, batches, model, samples, trainer},
    toy::with_config,
};

const STEPS: u64 = 40;
/// Tells the child where to run; without it, it is no child.
const DIRECTORY: &str = "ALIGN_TEST_KILLED_DIRECTORY";

/// A run that makes a checkpoint after every step.
fn run(directory: &Path) {
    let mut checkpoints = open(directory);
    let mut trainer = trainer(model(), 2, STEPS);
    let every = EvaluationConfig { every: 4.try_into().unwrap(), at_start: true };
    let held_out = samples().split_off(8);
    let mut evaluation = Evaluation::new(every, move |trainer: &Trainer| {
        let report = evaluate(&trainer.result(), &held_out, SftLoss::default(), 2.try_into().unwrap());
        Ok(report.unwrap().metrics())
    });
    let patient =
        EarlyStoppingConfig { patience: 1000.try_into().unwrap(), ..EarlyStoppingConfig::default() };
    let mut stopping = EarlyStopping::new(patient);
    let mut recorder = JsonlRecorder::open(&directory.join("metrics.jsonl")).unwrap();
    let mut recording = Recording::new(vec![&mut recorder]);
    let hooks: &mut [&mut dyn Hook<_, _>] = &mut [&mut evaluation, &mut stopping, &mut recording];
    let mut run = TrainingLoop::new(STEPS).with_checkpoints(&mut checkpoints);
    run.resume(&mut trainer, hooks).unwrap();
    run.run::<[SftExample]>(&mut trainer, batches(5), hooks).unwrap();
}

fn open(directory: &Path) -> CheckpointStore {
    let config = CheckpointConfig { every: 1.try_into().unwrap(), ..CheckpointConfig::default() };
    with_config(&directory.join("checkpoints"), config)
}

/// Not a test of its own: what the process that is killed does.
#[test]
fn child() {
    let Some(directory) = env::var_os(DIRECTORY) else { return };
    println!("begins");
    run(Path::new(&directory));
}

/// Starts the child and waits until it has begun. Its output must be kept open for as long as it runs.
fn start(directory: &Path) -> (Child, impl Iterator<Item = String>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "killed::child", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("begins")));
    (child, lines)
}

/// The last checkpoint, bit for bit.
fn end(directory: &Path) -> (Vec<(String, Vec<u32>)>, String) {
    let mut store = open(directory);
    assert_eq!(store.newest().unwrap().unwrap().manifest.step, STEPS);
    let mut state: State = store.load(STEPS).unwrap();
    let names: Vec<String> = state.tensor_names().map(ToOwned::to_owned).collect();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    let tensors = names
        .into_iter()
        .map(|name| (name.clone(), bits(state.take_tensor(&name).unwrap().into_values().unwrap())))
        .collect();
    let values = fs::read_to_string(store.path(STEPS).join("state.json")).unwrap();
    (tensors, values)
}

#[test]
fn a_run_killed_again_and_again_ends_with_the_same_bits() {
    let (straight, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(straight.path());
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut kills, mut during_a_save, mut progress) = (0, 0, Vec::new());
    for _ in 0..25 {
        let (mut child, _output) = start(killed.path());
        thread::sleep(Duration::from_micros(u64::from(rng.next_u32()) % 250_000));
        child.kill().unwrap();
        kills += usize::from(!child.wait().unwrap().success());
        let checkpoints = killed.path().join("checkpoints");
        let Ok(entries) = fs::read_dir(&checkpoints) else { continue };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let (hidden, whole): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with('.'));
        during_a_save += hidden.len();
        progress.push(whole.into_iter().max());
        // Opening removes what is left; nothing that is called a checkpoint is damaged.
        let mut store = open(killed.path());
        assert!(store.damaged().is_empty(), "{:?}", store.damaged());
        let newest = store.newest().unwrap();
        assert!(newest.is_none_or(|newest| newest.passed_over.is_empty()));
    }
    println!("{kills} kills, {during_a_save} left half a checkpoint: {progress:?}");
    let (mut child, output) = start(killed.path());
    assert!(output.count() > 0);
    assert!(child.wait().unwrap().success());
    assert_eq!(end(killed.path()), end(straight.path()));
    let metrics = |directory: &Path| fs::read_to_string(directory.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics(killed.path()), metrics(straight.path()));
    assert_eq!(metrics(killed.path()).lines().count() as u64, STEPS + 1);
}
