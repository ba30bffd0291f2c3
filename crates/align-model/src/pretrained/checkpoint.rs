//! A model on disk, opened: its configuration, its weights and what it says of itself.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;

use super::{
    LoadError, SafetensorsWeights, SaveOptions, WeightSource, config_json, family::Family,
    placed::CheckpointParameters, read_json, save,
};
use crate::{
    decoder::{Decoder, DecoderConfig, RandomParameters},
    tokenizer::Tokenizer,
};

/// A Hugging Face directory or a GGUF file.
pub struct Checkpoint {
    path: PathBuf,
    weights: Box<dyn WeightSource>,
    architecture: Architecture,
    generation: Option<Value>,
    tokenizer: TokenizerSource,
}

enum TokenizerSource {
    Directory,
    #[cfg(feature = "gguf")]
    Gguf(Box<tokenizers::Tokenizer>, Value),
}

/// What kind of decoder a checkpoint holds, in the words of its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    family: Family,
    config: DecoderConfig,
    json: Value,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("architecture", &self.architecture)
            .finish_non_exhaustive()
    }
}

impl Architecture {
    /// Reads a `config.json`. `path` is only for messages.
    ///
    /// # Errors
    /// If the architecture is not supported or the configuration makes no sense.
    pub fn from_json(path: &Path, json: Value) -> Result<Self, LoadError> {
        let (family, config) = config_json::decoder_config(path, &json)?;
        Ok(Self { family, config, json })
    }

    /// The family of checkpoints.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Sizes and choices.
    #[must_use]
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The configuration as it was read.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// A model with fresh weights, initialised as transformers does (`initializer_range`).
    #[must_use]
    pub fn random(&self, rng: &mut rand_chacha::ChaCha8Rng, device: &Device) -> Decoder {
        let standard_deviation = self.json["initializer_range"].as_f64().unwrap_or(0.02) as f32;
        let norm_weight = if self.family == Family::Gemma3 { 0.0 } else { 1.0 };
        let mut source = RandomParameters { rng, standard_deviation, norm_weight };
        let Ok(model) = Decoder::build(&self.config, &mut source, device);
        model
    }

    /// Writes a model as a Hugging Face directory: weights and `config.json`.
    ///
    /// # Errors
    /// If a parameter cannot be read from the device or a file cannot be written.
    pub fn save(&self, model: &Decoder, directory: &Path, options: SaveOptions) -> Result<(), LoadError> {
        let io = |source| LoadError::Io { action: "create", path: directory.into(), source };
        std::fs::create_dir_all(directory).map_err(io)?;
        save::save_decoder(model, self.family, &self.json, directory, options)
    }
}

impl Checkpoint {
    /// Opens a Hugging Face directory, or a GGUF file where the feature `gguf` is on. Weights are only mapped.
    ///
    /// # Errors
    /// If files are missing, malformed, or of an architecture that is not supported.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        if path.is_dir() {
            return Self::open_directory(path);
        }
        if !path.exists() {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(LoadError::Io { action: "read", path: path.into(), source });
        }
        Self::open_gguf(path)
    }

    fn open_directory(path: &Path) -> Result<Self, LoadError> {
        let config_path = path.join("config.json");
        let architecture = Architecture::from_json(&config_path, read_json(&config_path)?)?;
        let generation_path = path.join("generation_config.json");
        let generation = if generation_path.is_file() { Some(read_json(&generation_path)?) } else { None };
        let weights = Box::new(SafetensorsWeights::open_directory(path)?);
        Ok(Self {
            path: path.into(),
            weights,
            architecture,
            generation,
            tokenizer: TokenizerSource::Directory,
        })
    }

    #[cfg(feature = "gguf")]
    fn open_gguf(path: &Path) -> Result<Self, LoadError> {
        let file = super::gguf::GgufModel::open(path)?;
        let architecture = Architecture::from_json(path, file.config()?)?;
        let tokenizer = TokenizerSource::Gguf(Box::new(file.tokenizer()?), file.tokenizer_config()?);
        Ok(Self { path: path.into(), weights: Box::new(file), architecture, generation: None, tokenizer })
    }

    #[cfg(not(feature = "gguf"))]
    fn open_gguf(path: &Path) -> Result<Self, LoadError> {
        let reason = "expected a Hugging Face directory (GGUF files need the cargo feature `gguf`)".into();
        Err(LoadError::Malformed { path: path.into(), format: "model", reason })
    }

    /// What kind of model this is.
    #[must_use]
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Reads the weights onto a device, as f32.
    ///
    /// # Errors
    /// If a tensor is missing, left over, of another shape than the configuration implies, or of an unknown format.
    pub fn load(&self, device: &Device) -> Result<Decoder, LoadError> {
        let Architecture { family, config, .. } = &self.architecture;
        let mut parameters = CheckpointParameters::new(&self.path, self.weights.as_ref(), *family, config);
        let model = Decoder::build(config, &mut parameters, device)?;
        parameters.finish(config)?;
        Ok(model)
    }

    /// The tokenizer and chat templates that belong to the model.
    ///
    /// # Errors
    /// If they are missing or malformed.
    pub fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        let tokenizer = match &self.tokenizer {
            TokenizerSource::Directory => Tokenizer::from_directory(&self.path),
            #[cfg(feature = "gguf")]
            TokenizerSource::Gguf(tokenizer, config) => {
                Tokenizer::from_parts((**tokenizer).clone(), config.clone())
            }
        };
        tokenizer.map_err(|e| LoadError::Tokenizer { path: self.path.clone(), reason: e.to_string() })
    }

    /// The tokens at which the model's own settings end a generation: `eos_token_id` of `generation_config.json`, or of
    /// `config.json` where there is none.
    #[must_use]
    pub fn end_tokens(&self) -> Vec<u32> {
        let generation =
            self.generation.as_ref().map(|json| &json["eos_token_id"]).filter(|value| !value.is_null());
        let value = generation.unwrap_or(&self.architecture.json["eos_token_id"]);
        match value {
            Value::Array(ids) => ids.iter().filter_map(Value::as_u64).map(|id| id as u32).collect(),
            other => other.as_u64().map(|id| id as u32).into_iter().collect(),
        }
    }

    /// Writes a model that started from this checkpoint, with this checkpoint's tokenizer and generation settings, as a
    /// Hugging Face directory.
    ///
    /// # Errors
    /// If a parameter cannot be read from the device or a file cannot be written.
    pub fn save(&self, model: &Decoder, directory: &Path, options: SaveOptions) -> Result<(), LoadError> {
        self.architecture.save(model, directory, options)?;
        if let Some(generation) = &self.generation {
            super::write_json(&directory.join("generation_config.json"), generation)?;
        }
        let tokenizer = self.tokenizer()?;
        tokenizer
            .save(directory)
            .map_err(|e| LoadError::Tokenizer { path: directory.into(), reason: e.to_string() })
    }
}
