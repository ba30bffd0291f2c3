//! Models as they lie on disk: Hugging Face directories and GGUF files, read and written.

mod checkpoint;
mod classifier;
mod config_json;
mod config_keys;
mod error;
mod family;
#[cfg(feature = "gguf")]
pub mod gguf;
mod placed;
mod rope_json;
mod safetensors_file;
mod save;
mod staged;
mod weights;

use std::path::Path;

use serde_json::Value;

pub use checkpoint::{Architecture, Checkpoint};
pub(crate) use classifier::SETTINGS as CLASSIFIER_SETTINGS;
pub use classifier::{Classifier, ClassifierKind};
pub use error::LoadError;
pub use family::Family;
pub(crate) use family::Fusion;
pub use safetensors_file::SafetensorsWeights;
pub use save::{SaveOptions, SavedDtype};
pub(crate) use save::{read_parameters, read_tensor, write_tensors};
pub(crate) use staged::StagedFiles;
pub use weights::{HostTensor, WeightSource};

/// The checkpoint's name of the tensor that holds a parameter of the decoder, such as
/// `model.layers.0.self_attn.q_proj.weight` for `layers.0.attention.query.weight`; for a parameter of an adapter, PEFT's name.
#[must_use]
pub fn tensor_name(family: Family, parameter: &str) -> String {
    match crate::adapter::tensor_name(family, parameter) {
        Some(name) => name,
        None => family.placement(parameter).name().to_string(),
    }
}

pub(crate) fn read_json(path: &Path) -> Result<Value, LoadError> {
    let bytes =
        std::fs::read(path).map_err(|source| LoadError::Io { action: "read", path: path.into(), source })?;
    serde_json::from_slice(&bytes).map_err(|e| LoadError::Malformed {
        path: path.into(),
        format: "JSON",
        reason: e.to_string(),
    })
}
