//! Reward models on disk: directories that transformers loads as sequence or token classifiers.

use std::path::Path;

use align_model::{
    decoder::Decoder,
    pretrained::{Checkpoint, ClassifierKind, LoadError, SaveOptions},
};
use burn::tensor::Device;
use rand_chacha::ChaCha8Rng;

use super::{RewardModel, ScoreHead};

/// Reads a reward model: a checkpoint whose decoder has a classifier's head.
///
/// # Errors
/// If the checkpoint holds no such head (a language model becomes a reward model through [`reward_model_from`]), or it
/// cannot be read.
pub fn load_reward_model(
    path: &Path,
    checkpoint: &Checkpoint,
    device: &Device,
) -> Result<RewardModel<Decoder>, LoadError> {
    let wrong = |key: &str, reason: String| LoadError::Config { path: path.into(), key: key.into(), reason };
    let classifier = checkpoint.classifier()?.ok_or_else(|| {
        let reason = "not a sequence or token classifier: a language model has to be trained into one first";
        wrong("architectures", reason.into())
    })?;
    let head = ScoreHead::from_classifier(classifier, device).map_err(|reason| wrong("align_kit", reason))?;
    Ok(RewardModel::new(checkpoint.load_backbone(device)?, head))
}

/// A reward model that starts from a checkpoint: its own head if it is a classifier of this kind with so many labels,
/// else a fresh one, drawn as transformers draws it.
///
/// # Errors
/// If the checkpoint cannot be read, or is a classifier of another kind or with other labels.
pub fn reward_model_from(
    path: &Path,
    checkpoint: &Checkpoint,
    (kind, labels): (ClassifierKind, usize),
    rng: &mut ChaCha8Rng,
    device: &Device,
) -> Result<RewardModel<Decoder>, LoadError> {
    if let Some(classifier) = checkpoint.classifier()? {
        if classifier.kind != kind || classifier.labels() != labels {
            let reason = format!(
                "the head is a {:?} classifier with {} labels, wanted is a {kind:?} classifier with {labels}: start from \
                 the language model instead",
                classifier.kind,
                classifier.labels()
            );
            return Err(LoadError::Config { path: path.into(), key: "architectures".into(), reason });
        }
        return load_reward_model(path, checkpoint, device);
    }
    let architecture = checkpoint.architecture();
    let width = architecture.json()["initializer_range"].as_f64().unwrap_or(0.02) as f32;
    let hidden = architecture.config().hidden_size;
    let head = ScoreHead::random(kind, [labels, hidden], width, rng, device);
    Ok(RewardModel::new(checkpoint.load_backbone(device)?, head))
}

/// Writes a reward model that started from `checkpoint`, with its tokenizer, as a directory that transformers loads:
/// `AutoModelForSequenceClassification` or `AutoModelForTokenClassification`. A model that was there before is replaced,
/// and only when the new weights are on the disk.
///
/// # Errors
/// If the model has an adapter that is not merged, a parameter cannot be read from the device, or a file cannot be
/// written.
///
/// # Panics
/// If the model is not of the checkpoint's architecture.
pub fn save_reward_model(
    model: &RewardModel<Decoder>,
    checkpoint: &Checkpoint,
    directory: &Path,
    options: SaveOptions,
) -> Result<(), LoadError> {
    let classifier = model
        .head
        .to_classifier()
        .map_err(|reason| LoadError::Device { parameter: "head".into(), reason })?;
    checkpoint.save_classifier(&model.backbone, &classifier, directory, options)
}
