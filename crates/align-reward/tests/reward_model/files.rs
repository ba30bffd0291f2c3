//! Reward models on disk.

use std::path::{Path, PathBuf};

use align_model::{
    decoder::Decoder,
    pretrained::{Architecture, Checkpoint, ClassifierKind, SaveOptions, SavedDtype},
};
use align_reward::model::{RewardModel, ScoreHead, load_reward_model, reward_model_from, save_reward_model};
use burn::{module::Module as _, tensor::Device};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use serde_json::Value;

use crate::toy::{config_json, parameters, tokens};

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The checkpoints of all families that the repository holds.
fn checkpoints() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let entries = std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path());
    let is_model = |path: &PathBuf| {
        path.is_dir() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("arch_"))
    };
    entries.filter(is_model).collect()
}

fn fresh(path: &Path, kind: ClassifierKind, labels: usize) -> (Checkpoint, RewardModel<Decoder>) {
    let checkpoint = Checkpoint::open(path).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let model = reward_model_from(path, &checkpoint, (kind, labels), &mut rng, &Device::flex()).unwrap();
    (checkpoint, model)
}

#[test]
fn every_family_is_read_back_as_it_was_written() {
    let found = checkpoints();
    assert!(found.len() > 5, "{found:?}");
    for (index, path) in found.iter().enumerate() {
        for (kind, labels) in [(ClassifierKind::Sequence, 1 + index % 3), (ClassifierKind::Token, 2)] {
            let (checkpoint, model) = fresh(path, kind, labels);
            let directory = tempfile::tempdir().unwrap();
            save_reward_model(&model, &checkpoint, directory.path(), SaveOptions::default()).unwrap();
            let saved = Checkpoint::open(directory.path()).unwrap();
            let again = load_reward_model(directory.path(), &saved, &Device::flex()).unwrap();
            assert_eq!(parameters(&model), parameters(&again), "{}", path.display());
            let sequences = [tokens(5, 1), tokens(3, 2)];
            assert_eq!(
                model.score_sequences(&sequences, 2).unwrap(),
                again.score_sequences(&sequences, 2).unwrap()
            );
            let config = json(&directory.path().join("config.json"));
            let class = config["architectures"][0].as_str().unwrap();
            let suffix = if kind == ClassifierKind::Token {
                "ForTokenClassification"
            } else {
                "ForSequenceClassification"
            };
            assert!(class.ends_with(suffix), "{class}");
            assert_eq!(config["id2label"].as_object().unwrap().len(), labels);
            // Starting from it keeps its head.
            let mut rng = ChaCha8Rng::seed_from_u64(8);
            let kept = reward_model_from(directory.path(), &saved, (kind, labels), &mut rng, &Device::flex())
                .unwrap();
            assert_eq!(parameters(&kept.head), parameters(&model.head));
            let other = reward_model_from(directory.path(), &saved, (kind, 7), &mut rng, &Device::flex());
            assert!(other.unwrap_err().to_string().contains("wanted is"));
        }
    }
}

fn language_model(directory: &Path) -> Checkpoint {
    let architecture = Architecture::from_json(Path::new("config.json"), config_json()).unwrap();
    let model = architecture.random(&mut ChaCha8Rng::seed_from_u64(5), &Device::flex());
    architecture.save(&model, directory, SaveOptions::default()).unwrap();
    Checkpoint::open(directory).unwrap()
}

#[test]
fn a_language_model_is_no_reward_model() {
    let directory = tempfile::tempdir().unwrap();
    let checkpoint = language_model(directory.path());
    let error = load_reward_model(directory.path(), &checkpoint, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("not a sequence or token classifier"), "{error}");
}

#[test]
fn a_fresh_head_is_a_function_of_the_seed() {
    let directory = tempfile::tempdir().unwrap();
    let checkpoint = language_model(directory.path());
    let head = |seed| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let kind = (ClassifierKind::Sequence, 1);
        let model = reward_model_from(directory.path(), &checkpoint, kind, &mut rng, &Device::flex());
        parameters(&model.unwrap().head)
    };
    assert_eq!(head(1), head(1));
    assert_ne!(head(1), head(2));
}

#[test]
fn thresholds_and_precision_are_kept() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let checkpoint = language_model(source.path());
    let (_, mut model) = fresh(source.path(), ClassifierKind::Sequence, 1);
    model.head = model.head.with_grades(5);
    let options = SaveOptions { dtype: SavedDtype::Bfloat16, ..SaveOptions::default() };
    save_reward_model(&model, &checkpoint, target.path(), options).unwrap();
    assert_eq!(json(&target.path().join("config.json"))["dtype"], "bfloat16");
    let saved = Checkpoint::open(target.path()).unwrap();
    let again = load_reward_model(target.path(), &saved, &Device::flex()).unwrap();
    assert_eq!(again.head.grades(), Some(5));
    let thresholds =
        |head: &ScoreHead| head.thresholds().unwrap().into_data().iter::<f32>().collect::<Vec<_>>();
    assert_eq!(thresholds(&again.head), [-1.5, -0.5, 0.5, 1.5]);
}

#[test]
fn a_head_of_another_size_is_refused() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let checkpoint = language_model(source.path());
    let (_, model) = fresh(source.path(), ClassifierKind::Sequence, 2);
    save_reward_model(&model.valid(), &checkpoint, target.path(), SaveOptions::default()).unwrap();
    let path = target.path().join("config.json");
    let mut config = json(&path);
    config["id2label"] = serde_json::json!({ "0": "score" });
    std::fs::write(&path, config.to_string()).unwrap();
    let saved = Checkpoint::open(target.path()).unwrap();
    let error = load_reward_model(target.path(), &saved, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("score.weight has shape [2, 16]"), "{error}");
}
