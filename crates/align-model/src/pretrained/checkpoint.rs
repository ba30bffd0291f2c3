//! A model on disk, opened: its configuration, its weights and what it says of itself.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;

use super::{
    Classifier, LoadError, SafetensorsWeights, SaveOptions, WeightSource, config_json, family::Family,
    placed::CheckpointParameters, read_json, save::SavedModel,
};
use crate::{
    decoder::{Decoder, DecoderConfig, Head, RandomParameters},
    tokenizer::{Tokenizer, TokenizerError},
};

/// A Hugging Face directory or a GGUF file.
pub struct Checkpoint {
    path: PathBuf,
    source: Source,
    architecture: Architecture,
    generation: Option<Value>,
}

#[derive(Debug)]
enum Source {
    Directory(SafetensorsWeights),
    #[cfg(feature = "gguf")]
    Gguf(Box<super::gguf::GgufModel>),
}

impl Source {
    fn weights(&self) -> &dyn WeightSource {
        match self {
            Self::Directory(weights) => weights,
            #[cfg(feature = "gguf")]
            Self::Gguf(model) => model.as_ref(),
        }
    }
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

    /// Writes a model as a Hugging Face directory: weights and `config.json`. Weights that were there before are
    /// replaced, and only when the new ones are on the disk.
    ///
    /// # Errors
    /// If a parameter cannot be read from the device, does not fit the number format, or a file cannot be written.
    ///
    /// # Panics
    /// If the model is not of this architecture.
    pub fn save(&self, model: &Decoder, directory: &Path, options: SaveOptions) -> Result<(), LoadError> {
        self.saved(model).write(directory, options)
    }

    fn saved<'a>(&'a self, model: &'a Decoder) -> SavedModel<'a> {
        let config = DecoderConfig { head: model.config().head, ..self.config.clone() };
        assert!(
            *model.config() == config && [self.config.head, Head::Absent].contains(&config.head),
            "a model is saved under the configuration that it was built with"
        );
        SavedModel {
            model,
            family: self.family,
            config: &self.json,
            generation: None,
            tokenizer: None,
            classifier: None,
        }
    }

    /// As transformers does: a head that differs from the embedding matrix is not tied to it, whatever the
    /// configuration says.
    fn untie_own_head(&mut self, path: &Path, weights: &dyn WeightSource) -> Result<(), LoadError> {
        let tied = self.config.head == Head::Tied;
        if tied && CheckpointParameters::new(path, weights, self.family, &self.config).has_own_head()? {
            self.config.head = Head::Untied;
            self.json["tie_word_embeddings"] = false.into();
        }
        Ok(())
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
        if !config_path.exists() {
            return Err(LoadError::NoConfig { path: path.into() });
        }
        let mut architecture = Architecture::from_json(&config_path, read_json(&config_path)?)?;
        let generation_path = path.join("generation_config.json");
        let generation = if generation_path.is_file() { Some(read_json(&generation_path)?) } else { None };
        let weights = SafetensorsWeights::open_directory(path)?;
        architecture.untie_own_head(path, &weights)?;
        Ok(Self { path: path.into(), source: Source::Directory(weights), architecture, generation })
    }

    #[cfg(feature = "gguf")]
    fn open_gguf(path: &Path) -> Result<Self, LoadError> {
        let model = Box::new(super::gguf::GgufModel::open(path)?);
        let architecture = Architecture::from_json(path, model.config()?)?;
        Ok(Self { path: path.into(), source: Source::Gguf(model), architecture, generation: None })
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
        let mut parameters = CheckpointParameters::new(&self.path, self.source.weights(), *family, config);
        let model = Decoder::build(config, &mut parameters, device)?;
        parameters.finish(config)?;
        Ok(model)
    }

    /// Reads the weights of the decoder alone, without a head of any kind.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_backbone(&self, device: &Device) -> Result<Decoder, LoadError> {
        let Architecture { family, config, .. } = &self.architecture;
        let config = DecoderConfig { head: Head::Absent, ..config.clone() };
        let mut parameters = CheckpointParameters::new(&self.path, self.source.weights(), *family, &config);
        let model = Decoder::build(&config, &mut parameters, device)?;
        for name in Classifier::names(*family) {
            parameters.mark_used(name);
        }
        parameters.finish(&config)?;
        Ok(model)
    }

    /// The head that reads the hidden states of a sequence classifier or a token classifier; `None` if this is a
    /// language model.
    ///
    /// # Errors
    /// If the tensors cannot be read or do not fit the configuration.
    pub fn classifier(&self) -> Result<Option<Classifier>, LoadError> {
        Classifier::read(&self.path, self.source.weights(), &self.architecture)
    }

    /// Writes a decoder [without a head](Self::load_backbone) and the classifier that reads its hidden states, as
    /// transformers' `…ForSequenceClassification` or `…ForTokenClassification`; otherwise as [`save`](Self::save).
    ///
    /// # Errors
    /// As [`save`](Self::save).
    ///
    /// # Panics
    /// If the model is not of this architecture.
    pub fn save_classifier(
        &self,
        backbone: &Decoder,
        classifier: &Classifier,
        directory: &Path,
        options: SaveOptions,
    ) -> Result<(), LoadError> {
        let tokenizer = self.tokenizer_if_any()?;
        let saved = SavedModel {
            generation: None,
            tokenizer: tokenizer.as_ref(),
            classifier: Some(classifier),
            ..self.architecture.saved(backbone)
        };
        saved.write(directory, options)
    }

    fn tokenizer_if_any(&self) -> Result<Option<Tokenizer>, LoadError> {
        match self.tokenizer() {
            Err(LoadError::TokenizerFiles { source: TokenizerError::Missing { .. }, .. }) => Ok(None),
            tokenizer => Ok(Some(tokenizer?)),
        }
    }

    /// The tokenizer and chat templates that belong to the model.
    ///
    /// # Errors
    /// If they are missing or malformed.
    pub fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        match &self.source {
            Source::Directory(_) => {
                Tokenizer::from_directory(&self.path).map_err(|source| LoadError::TokenizerFiles { source })
            }
            #[cfg(feature = "gguf")]
            Source::Gguf(model) => {
                let tokenizer = Tokenizer::from_parts(model.tokenizer()?, model.tokenizer_config()?);
                let path = self.path.clone();
                tokenizer.map_err(|e| LoadError::Tokenizer { path, reason: e.to_string() })
            }
        }
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

    /// Writes a model that started from this checkpoint, with this checkpoint's generation settings and, unless it is a
    /// directory without one, its tokenizer, as a Hugging Face directory. A model that was there before is replaced,
    /// and only when the new weights are on the disk.
    ///
    /// # Errors
    /// If a parameter cannot be read from the device or does not fit the number format, the tokenizer is malformed, or a
    /// file cannot be written.
    ///
    /// # Panics
    /// If the model is not of this architecture.
    pub fn save(&self, model: &Decoder, directory: &Path, options: SaveOptions) -> Result<(), LoadError> {
        let tokenizer = self.tokenizer_if_any()?;
        let generation = self.generation.as_ref();
        let saved =
            SavedModel { generation, tokenizer: tokenizer.as_ref(), ..self.architecture.saved(model) };
        saved.write(directory, options)
    }
}
