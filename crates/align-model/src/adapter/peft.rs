//! Adapters on disk, as PEFT writes and reads them: `adapter_config.json` and `adapter_model.safetensors`.

mod config;
mod head;
mod whole;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use super::{
    AdapterError,
    attach::Values,
    config::{AdapterKind, LoraConfig, Targets},
    lora::AdapterValues,
    modules::{AdaptableModule, PREFIX, modules},
    selection::{Selected, select},
    whole::{WholeParameter, head_module, read_whole, whole_parameters},
};
use crate::{
    decoder::{Decoder, Head},
    pretrained::{
        Classifier, Family, HostTensor, LoadError, SafetensorsWeights, SavedDtype, StagedFiles, WeightSource,
        read_json, read_parameters, write_tensors,
    },
};
use config::{StoredConfig, Written};
use whole::{matching_names, shortest_whole_names};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What versions of PEFT before 0.7 wrote.
const PICKLED: &str = "adapter_model.bin";

/// An adapter on disk, opened.
#[derive(Debug)]
pub struct SavedAdapter {
    config_path: PathBuf,
    weights_path: PathBuf,
    config: StoredConfig,
    weights: SafetensorsWeights,
}

impl SavedAdapter {
    /// Opens a directory that PEFT or [`save_adapter`] wrote. Weights are only mapped.
    ///
    /// # Errors
    /// If files are missing or malformed, or the adapter is of a kind that is not supported.
    pub fn open(directory: &Path) -> Result<Self, AdapterError> {
        let (config_path, weights_path) = (directory.join(CONFIG), directory.join(WEIGHTS));
        let missing = |reason: String| AdapterError::NotAnAdapter { path: directory.into(), reason };
        if !config_path.is_file() {
            return Err(missing(format!("no {CONFIG}: not the directory of a saved adapter")));
        }
        if !weights_path.is_file() {
            return Err(missing(if directory.join(PICKLED).is_file() {
                format!("{PICKLED} cannot be read: load it with PEFT and save it again as safetensors")
            } else {
                format!("no {WEIGHTS}: copy it into the same directory")
            }));
        }
        let config = StoredConfig::from_json(&config_path, &read_json(&config_path)?)?;
        let weights = SafetensorsWeights::open_file(&weights_path)?;
        Ok(Self { config_path, weights_path, config, weights })
    }

    /// The model that the adapter was trained on, as its author called it.
    #[must_use]
    pub fn base_model(&self) -> Option<&str> {
        self.config.base_model.as_deref()
    }

    /// Its configuration on the disk.
    #[must_use]
    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// Puts the adapter on a model. The model is frozen, as by
    /// [`with_adapter`](crate::decoder::Decoder::with_adapter); the adapter can be trained on.
    ///
    /// A classifier's head that the adapter holds belongs beside a decoder
    /// [without a head](crate::decoder::Decoder::without_head): [`classifier`](Self::classifier) reads it.
    ///
    /// # Errors
    /// If the adapter does not fit the model: names, shapes, too many or too few tensors.
    pub fn apply(&self, model: Decoder, family: Family) -> Result<Decoder, AdapterError> {
        let all = modules(&model, family);
        let (parameters, head) = (whole_parameters(&model, family), model.config().head);
        self.check_head(family, head)?;
        let whole = self.stored_whole(&parameters, (family, head))?;
        let stored = self.stored_modules(&all, &whole, (family, head))?;
        let mut config = self.lora_config(&all, &stored)?;
        config.modules_to_save = shortest_whole_names(&parameters, &whole);
        let selected = select(&config, &all)?;
        model.attach((family, config), &selected, self)
    }

    /// The layers that the file has tensors for: those that the configuration means, if it says so in plain names.
    fn stored_modules<'a>(
        &self,
        all: &'a [AdaptableModule],
        whole: &[&WholeParameter],
        (family, head): (Family, Head),
    ) -> Result<Vec<&'a AdaptableModule>, AdapterError> {
        let names: BTreeSet<String> = self.weights.names().into_iter().collect();
        let possible = |module: &AdaptableModule| {
            let [a, b, magnitude] = module.tensor_names();
            match self.config.kind {
                AdapterKind::Lora => vec![a, b],
                AdapterKind::Dora => vec![a, b, with_weight(&magnitude), magnitude],
            }
        };
        let mut known: BTreeSet<String> = all.iter().flat_map(possible).collect();
        known.extend(matching_names(whole, (family, head)));
        known.extend(head::tensor_names(family));
        if let Some(surplus) = names.iter().find(|name| !known.contains(*name)) {
            return Err(self.unexpected(surplus));
        }
        let is_stored = |module: &&AdaptableModule| possible(module).iter().any(|name| names.contains(name));
        // What is trained whole has no adapter, whatever `target_modules` says.
        let is_whole = |module: &AdaptableModule| whole.iter().any(|whole| whole.module == module.name);
        for module in all.iter().filter(|module| !is_whole(module)) {
            let [a, ..] = module.tensor_names();
            match (self.config.means(module), is_stored(&module)) {
                (Some(true), false) => return Err(self.missing(&a)),
                (Some(false), true) => return Err(self.unexpected(&a)),
                _ => {}
            }
        }
        let stored: Vec<_> = all.iter().filter(is_stored).collect();
        // An empty file fits every model; it is no adapter.
        if stored.is_empty() { Err(AdapterError::NothingToAdapt) } else { Ok(stored) }
    }

    /// The configuration in our words.
    fn lora_config(
        &self,
        all: &[AdaptableModule],
        stored: &[&AdaptableModule],
    ) -> Result<LoraConfig, AdapterError> {
        let config = &self.config;
        let mut result = LoraConfig {
            kind: config.kind,
            rank: config.rank,
            alpha: config.alpha,
            scaling: config.scaling,
            dropout: config.dropout,
            targets: Targets::Modules(shortest_names(all, stored)),
            initialization: config.initialization,
            ..LoraConfig::default()
        };
        for module in stored {
            let rank = self.rank(module)?;
            if rank != result.rank {
                result.rank_pattern.insert(module.name.clone(), rank);
            }
            let alpha = config.alpha_of(&self.config_path, module)?;
            if alpha != result.alpha {
                result.alpha_pattern.insert(module.name.clone(), alpha);
            }
        }
        Ok(result)
    }

    /// The rank that the configuration gives a layer, or that of its tensors.
    fn rank(&self, module: &AdaptableModule) -> Result<NonZeroUsize, AdapterError> {
        if let Some(rank) = self.config.rank_of(module) {
            return Ok(rank);
        }
        let [a, ..] = module.tensor_names();
        let shape = self.weights.shape(&a).ok_or_else(|| self.missing(&a))?;
        let rank = shape.first().copied().and_then(NonZeroUsize::new);
        rank.ok_or_else(|| AdapterError::Shape {
            path: self.weights_path.clone(),
            tensor: a,
            found: shape,
            expected: vec![self.config.rank.get()],
        })
    }

    fn read(&self, tensor: &str, expected: &[usize]) -> Result<Vec<f32>, AdapterError> {
        let found = self.weights.shape(tensor).ok_or_else(|| self.missing(tensor))?;
        if found != expected {
            let (path, expected) = (self.weights_path.clone(), expected.to_vec());
            return Err(AdapterError::Shape { path, tensor: tensor.into(), found, expected });
        }
        Ok(self.weights.read(tensor)?.values)
    }

    fn missing(&self, tensor: &str) -> AdapterError {
        AdapterError::MissingTensor { path: self.weights_path.clone(), tensor: tensor.into() }
    }

    fn unexpected(&self, tensor: &str) -> AdapterError {
        AdapterError::UnexpectedTensor { path: self.weights_path.clone(), tensor: tensor.into() }
    }
}

impl Values for &SavedAdapter {
    fn of_adapter(
        &mut self,
        model: &Decoder,
        selected: &Selected<'_>,
    ) -> Result<(AdapterValues, Option<Vec<f32>>), AdapterError> {
        let [outputs, inputs] = selected.module.shape(model);
        let [a, b, magnitude] = selected.module.tensor_names();
        let rank = selected.rank;
        let values =
            AdapterValues { rank, a: self.read(&a, &[rank, inputs])?, b: self.read(&b, &[outputs, rank])? };
        let magnitude = match self.config.kind {
            AdapterKind::Lora => None,
            AdapterKind::Dora => {
                let longer = with_weight(&magnitude);
                let name = if self.weights.shape(&longer).is_some() { longer } else { magnitude };
                Some(self.read(&name, &[outputs])?)
            }
        };
        Ok((values, magnitude))
    }

    fn of_whole(&mut self, parameter: &WholeParameter) -> Result<Option<HostTensor>, AdapterError> {
        let name = self.stored_name(parameter).unwrap_or_else(|| parameter.tensor_name());
        let values = self.read(&name, &parameter.shape)?;
        Ok(Some(HostTensor { shape: parameter.shape.clone(), values }))
    }
}

/// Some versions of PEFT write the magnitude under this name.
fn with_weight(magnitude: &str) -> String {
    format!("{magnitude}.weight")
}

/// Writes a model's adapter so that PEFT loads it: `adapter_config.json` and `adapter_model.safetensors`. An adapter that
/// was there before is replaced, and only when the new one is on the disk.
///
/// `base_model`: what PEFT is to load the adapter onto, a directory or a name on the Hub.
///
/// # Errors
/// If the model has no adapter, or a file cannot be written.
pub fn save_adapter(model: &Decoder, directory: &Path, base_model: Option<&str>) -> Result<(), AdapterError> {
    save(model, None, directory, base_model)
}

/// As [`save_adapter`], of a decoder without a head and the classifier that reads its hidden states: what PEFT loads onto
/// `base_model` as transformers' `…ForSequenceClassification` or `…ForTokenClassification`, with as many labels.
///
/// # Errors
/// As [`save_adapter`].
pub fn save_classifier_adapter(
    model: &Decoder,
    classifier: &Classifier,
    directory: &Path,
    base_model: Option<&str>,
) -> Result<(), AdapterError> {
    save(model, Some(classifier), directory, base_model)
}

fn save(
    model: &Decoder,
    head: Option<&Classifier>,
    directory: &Path,
    base_model: Option<&str>,
) -> Result<(), AdapterError> {
    let attached = model.attached.as_ref().ok_or(AdapterError::NoAdapter)?;
    let all = modules(model, attached.family);
    let under_adapters = model.adapted_modules();
    let mut tensors = BTreeMap::new();
    for module in &under_adapters {
        let Some(adapter) = module.adapter(model) else { continue };
        // A, B and the magnitude, in the order of their names.
        let values = read_parameters(adapter)?.into_iter().map(|(_, tensor)| tensor);
        tensors.extend(module.tensor_names().into_iter().zip(values));
    }
    let head_tensors = head.map(|head| head.tensors(attached.family)).unwrap_or_default();
    tensors.extend(head_tensors.into_iter().map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor)));
    let mut whole_values = read_whole(model, &attached.originals)?;
    let is_tied = attached.originals.contains("embedding") && model.config().head == Head::Tied;
    for parameter in model.whole_parameters() {
        let Some(values) = whole_values.remove(&parameter.path) else { continue };
        if parameter.is_tied(model.config().head) {
            tensors.insert(format!("{PREFIX}{}.weight", head_module(attached.family)), values.clone());
        }
        tensors.insert(parameter.tensor_name(), values);
    }
    let (every, whole) = (whole_parameters(model, attached.family), model.whole_parameters());
    let mut saved_whole = shortest_whole_names(&every, &whole.iter().collect::<Vec<_>>());
    saved_whole.extend(is_tied.then(|| head_module(attached.family)));
    saved_whole.extend(head.map(|head| head.kind.module(attached.family).to_owned()));
    let targets = shortest_names(&all, &under_adapters.iter().collect::<Vec<_>>());
    let written = Written { targets, whole: saved_whole, is_tied, head, base_model };
    fs::create_dir_all(directory).map_err(|source| LoadError::Io {
        action: "create",
        path: directory.into(),
        source,
    })?;
    let mut files = StagedFiles::new(directory);
    files.stage(WEIGHTS, |part| write_tensors(&tensors, SavedDtype::Float32, part))?;
    files.stage_json(CONFIG, &config::to_json(attached, &written))?;
    Ok(files.commit()?)
}

/// The last parts of the names of some layers, if these mean no other layers; else the whole names.
fn shortest_names(all: &[AdaptableModule], some: &[&AdaptableModule]) -> BTreeSet<String> {
    let short: BTreeSet<String> = some.iter().map(|module| module.short_name().into()).collect();
    let meant = all.iter().filter(|module| short.contains(module.short_name())).count();
    if meant == some.len() { short } else { some.iter().map(|module| module.name.clone()).collect() }
}
