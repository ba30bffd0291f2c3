//! What can go wrong between a file and a model.

use std::path::PathBuf;

use crate::tokenizer::TokenizerError;

/// A model directory or file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The operating system refused a file.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried: `read`, `write`, `map`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what its name promises: truncated, hostile or of another format.
    #[error("{}: not a valid {format} file: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// `safetensors`, `GGUF`, `JSON` …
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The file stores a number format that cannot be read here.
    #[error("{}: tensor {tensor} is stored as {dtype}, which is not supported (supported: {supported}): convert it first", .path.display())]
    UnsupportedDtype {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// What it is stored as.
        dtype: String,
        /// What could be read.
        supported: &'static str,
    },
    /// A tensor that the configuration asks for is not in the files.
    #[error("{}: tensor {tensor} is missing: the weights are incomplete, or config.json describes another model", .path.display())]
    MissingTensor {
        /// The directory or file.
        path: PathBuf,
        /// The tensor's Hugging Face name.
        tensor: String,
    },
    /// A file holds a tensor that its architecture has no place for, so that leaving it out would change the model.
    #[error("{}: tensor {tensor} does not belong to the architecture {architecture}", .path.display())]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// The file's architecture.
        architecture: &'static str,
    },
    /// A tensor has another shape than the configuration implies.
    #[error("{}: tensor {tensor} has shape {found:?}, config.json implies {expected:?}", .path.display())]
    Shape {
        /// The directory or file.
        path: PathBuf,
        /// The tensor's Hugging Face name.
        tensor: String,
        /// What the file holds.
        found: Vec<usize>,
        /// What the configuration implies.
        expected: Vec<usize>,
    },
    /// The files hold a tensor that the model which `config.json` describes does not have.
    #[error("{}: tensor {tensor} does not belong to the model that config.json describes: correct config.json, or remove the tensor", .path.display())]
    UnexpectedTensor {
        /// The directory or file.
        path: PathBuf,
        /// The tensor's name in the files.
        tensor: String,
    },
    /// A directory holds no weights that can be read.
    #[error("{}: no model.safetensors and no model.safetensors.index.json; other formats have to be converted first (transformers: model.save_pretrained)", .path.display())]
    NoWeights {
        /// The directory.
        path: PathBuf,
    },
    /// The tensor library could not hand a parameter back.
    #[error("cannot read parameter {parameter} from the device: {reason}")]
    Device {
        /// The parameter's path in the module.
        parameter: String,
        /// What the device reported.
        reason: String,
    },
    /// `config.json` names an architecture that the decoder does not have.
    #[error("{}: model_type `{model_type}` is not supported (supported: {supported})", .path.display())]
    UnknownArchitecture {
        /// The configuration file.
        path: PathBuf,
        /// What it names.
        model_type: String,
        /// What could be read.
        supported: &'static str,
    },
    /// `config.json` lacks a key or has a value that makes no sense.
    #[error("{}: {key}: {reason}", .path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A directory has no `config.json`.
    #[error("{}: no config.json: not the directory of a Hugging Face model", .path.display())]
    NoConfig {
        /// The directory.
        path: PathBuf,
    },
    /// The index lists a file that is not there.
    #[error("{}: the shard {shard} is missing: copy it into the same directory", .path.display())]
    MissingShard {
        /// The index.
        path: PathBuf,
        /// The missing file's name.
        shard: String,
    },
    /// A weight is too large for the number format it is to be saved in.
    #[error("tensor {tensor} holds {value}, which {dtype} cannot: save as bfloat16 or float32")]
    Overflow {
        /// The tensor's Hugging Face name.
        tensor: String,
        /// The first such weight.
        value: f32,
        /// The number format.
        dtype: &'static str,
    },
    /// A model is to be saved whole while it has an adapter.
    #[error(
        "the model has an adapter: save that by itself, or save what `merge_adapter` or `without_adapter` returns"
    )]
    HasAdapter,
    /// A model is to be saved whose weights are kept in a few bits.
    #[error("the weights are quantized: save what `dequantize_base` returns, or what they were loaded from")]
    QuantizedBase,
    /// The tokenizer that a model file carries could not be read.
    #[error("{}: {reason}", .path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The tokenizer that lies in the model's directory could not be read or written.
    #[error(transparent)]
    TokenizerFiles {
        /// Which file, what is wrong with it and what to do.
        source: TokenizerError,
    },
}
