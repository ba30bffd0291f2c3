//! Reward models on disk.

use std::path::{Path, PathBuf};

use align_model::{
    adapter::{LoraConfig, SavedAdapter, Targets, save_adapter},
    decoder::Decoder,
    pretrained::{Architecture, Checkpoint, ClassifierKind, SaveOptions, SavedDtype},
};
use align_reward::model::{
    RewardModel, ScoreHead, adapter_head, load_reward_adapter, load_reward_model, reward_model_from,
    save_reward_adapter, save_reward_model,
};
use burn::{
    module::{Module as _, Param},
    tensor::Device,
};
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

/// An adapter on every layer of a reward model, its matrices and its head away from where they begin.
fn adapted(path: &Path, kind: ClassifierKind, labels: usize) -> (Checkpoint, RewardModel<Decoder>) {
    let (checkpoint, RewardModel { backbone, head }) = fresh(path, kind, labels);
    let family = checkpoint.architecture().family();
    let config = LoraConfig { targets: Targets::AllLinear, ..LoraConfig::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut backbone = backbone.with_adapter(family, &config, &mut rng).unwrap();
    let last = backbone.layers.last_mut().unwrap();
    let adapter = last.attention.adapter.as_mut().or(last.attention.query.adapter.as_mut()).unwrap();
    adapter.b = Param::from_tensor(adapter.b.val() + 0.3);
    (checkpoint, RewardModel { backbone, head })
}

#[test]
fn adapters_are_read_back_with_their_heads() {
    for (index, path) in checkpoints().iter().enumerate() {
        for (kind, labels) in [(ClassifierKind::Sequence, 1 + index % 3), (ClassifierKind::Token, 2)] {
            let (checkpoint, model) = adapted(path, kind, labels);
            let directory = tempfile::tempdir().unwrap();
            save_reward_adapter(&model, directory.path(), Some("base")).unwrap();
            let saved = SavedAdapter::open(directory.path()).unwrap();
            let again = load_reward_adapter(path, &checkpoint, &saved, &Device::flex()).unwrap();
            let sequences = [tokens(5, 1), tokens(3, 2)];
            let scores = |model: &RewardModel<Decoder>| model.score_sequences(&sequences, 2).unwrap();
            assert_eq!(scores(&model), scores(&again), "{}", path.display());
            let merged = RewardModel { backbone: again.backbone.merge_adapter().unwrap(), head: again.head };
            for (merged, expected) in scores(&merged).concat().iter().zip(scores(&model).concat()) {
                assert!((merged - expected).abs() < 1e-4, "{merged} {expected}");
            }
            let config = json(&directory.path().join("adapter_config.json"));
            let (task, module) = match (kind, config["modules_to_save"][0].as_str().unwrap()) {
                (ClassifierKind::Sequence, module) => ("SEQ_CLS", module),
                (ClassifierKind::Token, module) => ("TOKEN_CLS", module),
            };
            assert_eq!(config["task_type"], task);
            assert!(
                module == "score" || (kind == ClassifierKind::Token && module == "classifier"),
                "{module}"
            );
            // A language model is not what it was made for.
            let language_model = checkpoint.load(&Device::flex()).unwrap();
            let refused = saved.apply(language_model, checkpoint.architecture().family()).unwrap_err();
            assert!(refused.to_string().contains(&format!("{module}.")), "{refused}");
            let wanted = adapter_head(&checkpoint, &saved, Some((kind, 7)), &Device::flex()).unwrap_err();
            assert!(wanted.to_string().contains("wanted is"), "{wanted}");
        }
    }
}

#[test]
fn an_adapter_without_a_head_has_that_of_the_reward_model_below() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let checkpoint = language_model(source.path());
    let (_, model) = adapted(source.path(), ClassifierKind::Sequence, 1);
    let adapter = tempfile::tempdir().unwrap();
    save_adapter(&model.backbone, adapter.path(), None).unwrap();
    let saved = SavedAdapter::open(adapter.path()).unwrap();
    let headless = load_reward_adapter(source.path(), &checkpoint, &saved, &Device::flex()).unwrap_err();
    assert!(headless.to_string().contains("not a sequence or token classifier"), "{headless}");
    let (_, below) = fresh(source.path(), ClassifierKind::Sequence, 1);
    save_reward_model(&below, &checkpoint, target.path(), SaveOptions::default()).unwrap();
    let checkpoint = Checkpoint::open(target.path()).unwrap();
    let read = load_reward_adapter(target.path(), &checkpoint, &saved, &Device::flex()).unwrap();
    assert_eq!(parameters(&read.head), parameters(&below.head));
}

#[test]
fn thresholds_are_kept_beside_an_adapter() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let checkpoint = language_model(source.path());
    let (_, mut model) = adapted(source.path(), ClassifierKind::Sequence, 1);
    model.head = model.head.with_grades(4);
    save_reward_adapter(&model, target.path(), None).unwrap();
    let saved = SavedAdapter::open(target.path()).unwrap();
    let again = load_reward_adapter(source.path(), &checkpoint, &saved, &Device::flex()).unwrap();
    assert_eq!(again.head.grades(), Some(4));
}
