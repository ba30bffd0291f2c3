//! Writing a Hugging Face directory that transformers and vLLM load.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    path::Path,
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::Tensor,
};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensorError, View};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Classifier, HostTensor, LoadError, family::Family, placed, staged::StagedFiles};
use crate::{
    decoder::{Decoder, Head},
    tokenizer::Tokenizer,
};

const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The number format of saved weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SavedDtype {
    /// What training computes in: nothing is lost.
    #[default]
    Float32,
    /// Half the size; 8 bits of mantissa.
    Bfloat16,
    /// Half the size; 11 bits of mantissa, overflows above 65504.
    Float16,
}

/// How to write weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaveOptions {
    /// Number format.
    pub dtype: SavedDtype,
    /// Largest size of a file in bytes; more weights than that are split into shards with an index.
    pub max_shard_bytes: usize,
}

impl Default for SaveOptions {
    /// f32 and transformers' 5 GB a shard.
    fn default() -> Self {
        Self { dtype: SavedDtype::Float32, max_shard_bytes: 5_000_000_000 }
    }
}

impl SavedDtype {
    fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
        }
    }

    fn stored(self) -> Dtype {
        match self {
            Self::Float32 => Dtype::F32,
            Self::Bfloat16 => Dtype::BF16,
            Self::Float16 => Dtype::F16,
        }
    }

    fn size(self) -> usize {
        if self == Self::Float32 { 4 } else { 2 }
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::Float32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Bfloat16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            Self::Float16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        }
    }
}

/// A model and all that its directory holds beside the weights.
#[derive(Debug)]
pub(super) struct SavedModel<'a> {
    pub(super) model: &'a Decoder,
    pub(super) family: Family,
    pub(super) config: &'a Value,
    pub(super) generation: Option<&'a Value>,
    pub(super) tokenizer: Option<&'a Tokenizer>,
    /// What reads the hidden states of a decoder without a head.
    pub(super) classifier: Option<&'a Classifier>,
}

impl SavedModel<'_> {
    /// Writes everything into `directory`, which is made if need be.
    ///
    /// The weights and configurations are written beside their places first; only when all of them are on the disk do
    /// they replace what was there, `config.json` last. Weights of an earlier save that the new ones do not overwrite
    /// are removed, so that no reader mixes the two.
    pub(super) fn write(&self, directory: &Path, options: SaveOptions) -> Result<(), LoadError> {
        if self.model.adapter_config().is_some() {
            return Err(LoadError::HasAdapter);
        }
        if self.model.is_quantized() {
            return Err(LoadError::QuantizedBase);
        }
        fs::create_dir_all(directory).map_err(|source| LoadError::Io {
            action: "create",
            path: directory.into(),
            source,
        })?;
        let parameters = read_parameters(self.model)?;
        let mut tensors = placed::to_checkpoint(self.family, self.model.config(), parameters);
        if let Some(classifier) = self.classifier {
            tensors.extend(classifier.tensors(self.family));
        }
        let mut weights = StagedFiles::new(directory);
        let weight_files = stage_weights(&tensors, &mut weights, options)?;
        let mut configs = StagedFiles::new(directory);
        if let Some(generation) = self.generation {
            configs.stage_json(GENERATION_CONFIG, generation)?;
        }
        configs.stage_json(CONFIG, &self.config_json(options.dtype))?;
        if let Some(tokenizer) = self.tokenizer {
            tokenizer.save(directory).map_err(|source| LoadError::TokenizerFiles { source })?;
        }
        weights.commit()?;
        remove_stale(directory, &weight_files)?;
        configs.commit()
    }

    /// The configuration with what saving decides.
    fn config_json(&self, dtype: SavedDtype) -> Value {
        let mut config = self.config.clone();
        for key in ["dtype", "torch_dtype"] {
            config[key] = dtype.name().into();
        }
        match self.model.config().head {
            // Says something of a head that is not there: left as it was.
            Head::Absent => {}
            head => config["tie_word_embeddings"] = (head == Head::Tied).into(),
        }
        if let Some(classifier) = self.classifier {
            classifier.describe(self.family, &mut config);
            let pad = self.tokenizer.and_then(Tokenizer::pad_id);
            if let (true, Some(pad)) = (config["pad_token_id"].is_null(), pad) {
                // transformers finds a padded sequence's last token by it.
                config["pad_token_id"] = pad.into();
            }
        }
        if !config["architectures"].is_array() {
            // vLLM finds its implementation by this name.
            config["architectures"] = json!([self.family.transformers_class()]);
        }
        config
    }
}

/// Stages the shards and their index, and returns the names of all files.
fn stage_weights(
    tensors: &BTreeMap<String, HostTensor>,
    files: &mut StagedFiles<'_>,
    options: SaveOptions,
) -> Result<Vec<String>, LoadError> {
    check_range(tensors, options.dtype)?;
    let shards = split(tensors, options);
    let count = shards.len();
    let file_name = |index: usize| match count {
        1 => SINGLE.to_string(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
    };
    let mut names: Vec<String> = (0..count).map(file_name).collect();
    let mut weight_map = serde_json::Map::new();
    for (shard, file) in shards.iter().zip(&names) {
        let views =
            shard.iter().map(|&name| (name, Encoded { tensor: &tensors[name], dtype: options.dtype }));
        files.stage(file, |part| write_shard(views, part))?;
        weight_map.extend(shard.iter().map(|&name| (name.clone(), file.as_str().into())));
    }
    if count > 1 {
        let values: usize = tensors.values().map(|tensor| tensor.values.len()).sum();
        let metadata = json!({ "total_size": values * options.dtype.size(), "total_parameters": values });
        files.stage_json(INDEX, &json!({ "metadata": metadata, "weight_map": weight_map }))?;
        names.push(INDEX.into());
    }
    Ok(names)
}

/// Fails if a number would become infinite.
fn check_range(tensors: &BTreeMap<String, HostTensor>, dtype: SavedDtype) -> Result<(), LoadError> {
    let overflows = |value: &f32| match dtype {
        SavedDtype::Float32 => false,
        SavedDtype::Bfloat16 => value.is_finite() && bf16::from_f32(*value).is_infinite(),
        SavedDtype::Float16 => value.is_finite() && f16::from_f32(*value).is_infinite(),
    };
    for (name, tensor) in tensors {
        if let Some(&value) = tensor.values.iter().find(|value| overflows(value)) {
            return Err(LoadError::Overflow { tensor: name.clone(), value, dtype: dtype.name() });
        }
    }
    Ok(())
}

/// Removes weights of an earlier save, the index first: it would win over a single file.
fn remove_stale(directory: &Path, kept: &[String]) -> Result<(), LoadError> {
    let failed = |action, path: &Path, source| LoadError::Io { action, path: path.into(), source };
    let mut stale = Vec::new();
    for entry in fs::read_dir(directory).map_err(|e| failed("read", directory, e))? {
        let entry = entry.map_err(|e| failed("read", directory, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if (name == INDEX || name == SINGLE || is_shard(&name)) && !kept.contains(&name) {
            stale.push(name);
        }
    }
    stale.sort_unstable_by_key(|name| (name != INDEX, name.clone()));
    for name in stale {
        let path = directory.join(name);
        fs::remove_file(&path).map_err(|e| failed("remove", &path, e))?;
    }
    Ok(())
}

/// Whether a file is called like a shard, `model-00001-of-00002.safetensors`.
fn is_shard(name: &str) -> bool {
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix("model-")
        .and_then(|rest| rest.strip_suffix(".safetensors"))
        .and_then(|rest| rest.split_once("-of-"))
        .is_some_and(|(index, count)| digits(index) && digits(count))
}

/// Fills shards in the order of names, none above the limit unless a single tensor is.
fn split(tensors: &BTreeMap<String, HostTensor>, options: SaveOptions) -> Vec<Vec<&String>> {
    let mut shards: Vec<Vec<&String>> = vec![Vec::new()];
    let mut used = 0;
    for (name, tensor) in tensors {
        let size = tensor.values.len() * options.dtype.size();
        if used > 0 && used + size > options.max_shard_bytes {
            shards.push(Vec::new());
            used = 0;
        }
        used += size;
        let last = shards.len() - 1;
        shards[last].push(name);
    }
    shards
}

/// A tensor that is encoded when its turn to be written comes: no second copy of a whole shard is ever made.
struct Encoded<'a> {
    tensor: &'a HostTensor,
    dtype: SavedDtype,
}

impl View for Encoded<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype.stored()
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.dtype.encode(&self.tensor.values).into()
    }

    fn data_len(&self) -> usize {
        self.tensor.values.len() * self.dtype.size()
    }
}

/// Writes tensors into one file.
pub(crate) fn write_tensors(
    tensors: &BTreeMap<String, HostTensor>,
    dtype: SavedDtype,
    path: &Path,
) -> io::Result<()> {
    write_shard(tensors.iter().map(|(name, tensor)| (name, Encoded { tensor, dtype })), path)
}

fn write_shard<'a>(tensors: impl Iterator<Item = (&'a String, Encoded<'a>)>, path: &Path) -> io::Result<()> {
    // The library's own temporary file is readable by its owner alone; saved models get the usual permissions.
    let permissions = File::create(path)?.metadata()?.permissions();
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(|error| match error {
        SafeTensorError::IoError(error) => error,
        other => io::Error::other(other),
    })?;
    fs::set_permissions(path, permissions)
}

/// Every parameter of a module on the host, by its path.
pub(crate) fn read_parameters<M: Module>(model: &M) -> Result<Vec<(String, HostTensor)>, LoadError> {
    let mut reader = ParameterReader { path: Vec::new(), result: Ok(Vec::new()) };
    model.visit(&mut reader);
    reader.result
}

struct ParameterReader {
    path: Vec<String>,
    result: Result<Vec<(String, HostTensor)>, LoadError>,
}

impl ModuleVisitor for ParameterReader {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Ok(read) = &mut self.result else { return };
        let parameter = self.path.join(".");
        match read_tensor(param.val()) {
            Ok(tensor) => read.push((parameter, tensor)),
            Err(reason) => self.result = Err(LoadError::Device { parameter, reason }),
        }
    }
}

/// A tensor on the host.
pub(crate) fn read_tensor<const D: usize>(tensor: Tensor<D>) -> Result<HostTensor, String> {
    let shape = tensor.dims().to_vec();
    let data = tensor.try_into_data().map_err(|e| e.to_string())?.convert::<f32>();
    let values = data.try_into_vec::<f32>().map_err(|e| format!("{e:?}"))?;
    Ok(HostTensor { shape, values })
}
