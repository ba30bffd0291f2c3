//! Reward models on disk: directories that transformers loads as sequence or token classifiers, and adapters that PEFT
//! loads onto them.

use std::path::Path;

use align_model::{
    adapter::{AdapterError, SavedAdapter, save_classifier_adapter},
    decoder::Decoder,
    pretrained::{Checkpoint, Classifier, ClassifierKind, LoadError, SaveOptions},
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
        if let Some(difference) = difference(&classifier, (kind, labels)) {
            let reason = format!("{difference}: start from the language model instead");
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
    let classifier = classifier(model)?;
    checkpoint.save_classifier(&model.backbone, &classifier, directory, options)
}

/// Reads a reward model that is an adapter on a checkpoint, as [`save_reward_adapter`] writes it and PEFT one of a
/// sequence or token classifier. The head is the adapter's, or the checkpoint's where the adapter has none. The adapter can
/// be trained on; [`merge_adapter`](Decoder::merge_adapter) of the backbone works it into the weights.
///
/// # Errors
/// If neither of them has a head, the adapter does not fit the checkpoint, or one of them cannot be read.
pub fn load_reward_adapter(
    path: &Path,
    checkpoint: &Checkpoint,
    adapter: &SavedAdapter,
    device: &Device,
) -> Result<RewardModel<Decoder>, AdapterError> {
    let RewardModel { backbone, head } = match adapter_head(checkpoint, adapter, None, device)? {
        Some(head) => RewardModel::new(checkpoint.load_backbone(device)?, head),
        None => load_reward_model(path, checkpoint, device)?,
    };
    let backbone = adapter.apply(backbone, checkpoint.architecture().family())?;
    Ok(RewardModel { backbone, head })
}

/// The head that an adapter of a checkpoint holds, `None` if it holds none.
///
/// # Errors
/// If it is of another kind or has other labels than `wanted`, does not fit the checkpoint, or cannot be read.
pub fn adapter_head(
    checkpoint: &Checkpoint,
    adapter: &SavedAdapter,
    wanted: Option<(ClassifierKind, usize)>,
    device: &Device,
) -> Result<Option<ScoreHead>, AdapterError> {
    let Some(classifier) = adapter.classifier(checkpoint.architecture())? else { return Ok(None) };
    let wrong = |key: &str, reason| {
        let (path, key) = (adapter.config_path().into(), key.into());
        AdapterError::Config { path, key, reason }
    };
    if let Some(difference) = wanted.and_then(|wanted| difference(&classifier, wanted)) {
        return Err(wrong("task_type", difference));
    }
    let head = ScoreHead::from_classifier(classifier, device);
    head.map(Some).map_err(|reason| wrong("align_kit", reason))
}

/// Writes the adapter and the head of a reward model, so that PEFT loads them onto `base_model`, a directory or a name on
/// the Hub, as a sequence or token classifier with as many labels. What was there before is replaced, and only when the
/// new files are on the disk.
///
/// # Errors
/// If the backbone has no adapter, a parameter cannot be read from the device, or a file cannot be written.
pub fn save_reward_adapter(
    model: &RewardModel<Decoder>,
    directory: &Path,
    base_model: Option<&str>,
) -> Result<(), AdapterError> {
    save_classifier_adapter(&model.backbone, &classifier(model)?, directory, base_model)
}

/// The head of a reward model as it is stored.
fn classifier(model: &RewardModel<Decoder>) -> Result<Classifier, LoadError> {
    let classifier = model.head.to_classifier();
    classifier.map_err(|reason| LoadError::Device { parameter: "head".into(), reason })
}

/// How a head differs from the one that is wanted, if it does.
fn difference(classifier: &Classifier, (kind, labels): (ClassifierKind, usize)) -> Option<String> {
    let (found_kind, found) = (classifier.kind, classifier.labels());
    (found_kind != kind || found != labels).then(|| {
        format!(
            "the head is a {found_kind:?} classifier with {found} labels, wanted is a {kind:?} classifier with {labels}"
        )
    })
}
