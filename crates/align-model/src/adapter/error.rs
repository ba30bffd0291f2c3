//! What can go wrong with adapters.

use std::path::PathBuf;

use crate::pretrained::LoadError;

/// An adapter could not be made, read, written or merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// A name in the configuration means no layer of the model, or none that is adapted.
    #[error("{key}: `{name}` means no layer (there are {available})")]
    NoSuchLayer {
        /// The key of the configuration.
        key: &'static str,
        /// The name.
        name: String,
        /// The short names that there are.
        available: String,
    },
    /// The configuration names a block that the model does not have.
    #[error("layers_to_transform: block {block} does not exist: the model has {blocks}, counted from 0")]
    NoSuchBlock {
        /// The block.
        block: usize,
        /// How many there are.
        blocks: usize,
    },
    /// No layer remains after all exclusions.
    #[error("no layer is left to adapt: `exclude` and `layers_to_transform` leave out all of `targets`")]
    NothingToAdapt,
    /// Dropout before an adapter of the head.
    #[error(
        "targets: an adapter on the head `{name}` cannot have dropout: set `dropout` to 0, or leave the head out"
    )]
    DropoutOnHead {
        /// transformers' name of the head.
        name: String,
    },
    /// The model has adapters already.
    #[error("the model already has an adapter: merge it, or take it off first")]
    AlreadyAdapted,
    /// The model has no adapter.
    #[error("the model has no adapter")]
    NoAdapter,
    /// An adapter is to be worked into weights of a few bits.
    #[error("the base weights are quantized: call `dequantize_base` first, and merge into what that returns")]
    QuantizedBase,
    /// `adapter_config.json` asks for something else than this library does.
    #[error("{}: {key}: {reason}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// A directory holds no adapter.
    #[error("{}: {reason}", .path.display())]
    NotAnAdapter {
        /// The directory.
        path: PathBuf,
        /// What is missing and what to do.
        reason: String,
    },
    /// A tensor that `adapter_config.json` promises is not in the file.
    #[error("{}: tensor {tensor} is missing: the file is incomplete, or adapter_config.json or the base model is another one", .path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// PEFT's name of the tensor.
        tensor: String,
    },
    /// A tensor belongs to no layer that is adapted.
    #[error("{}: tensor {tensor} belongs to no adapted layer of this model: the adapter was made for another model, or trained more than adapters", .path.display())]
    UnexpectedTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// An adapter holds the head of a classifier, and is put on a language model.
    #[error("{}: tensor {tensor} belongs to the head of a classifier, and this is a language model: the adapter makes a reward model of it", .path.display())]
    ClassifierHead {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// An adapter parts a head from the embedding that is the same matrix.
    #[error("{}: tensor {tensor} parts the head from the embedding, which are one matrix in this model: train it with `ensure_weight_tying` set in PEFT", .path.display())]
    TiedHead {
        /// The file.
        path: PathBuf,
        /// PEFT's name of the tensor that is alone or differs from the other.
        tensor: String,
    },
    /// A module is to be adapted and to be trained whole.
    #[error("modules_to_save: `{name}` is also among `targets`: leave it out of one of them")]
    AdaptedAndWhole {
        /// transformers' name of the module.
        name: String,
    },
    /// A tensor does not fit the model.
    #[error("{}: tensor {tensor} has shape {found:?} where this model needs {expected:?}: the adapter was made for another model or with another rank", .path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What the file holds.
        found: Vec<usize>,
        /// What the model needs.
        expected: Vec<usize>,
    },
    /// A file could not be read or written, or a parameter not be read from its device.
    #[error(transparent)]
    Files(#[from] LoadError),
}
