//! Writing a Hugging Face directory that transformers and vLLM load.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::Tensor,
};
use half::{bf16, f16};
use safetensors::{Dtype, tensor::TensorView};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{HostTensor, LoadError, family::Family, placed};
use crate::decoder::Decoder;

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

/// Writes weights and `config.json` into `directory`, which must exist.
///
/// Every file is written beside its place and then renamed, `config.json` last: a directory that has one is complete.
///
/// # Errors
/// If a parameter cannot be read from the device or a file cannot be written.
pub(super) fn save_decoder(
    model: &Decoder,
    family: Family,
    config_json: &Value,
    directory: &Path,
    options: SaveOptions,
) -> Result<(), LoadError> {
    let parameters = read_parameters(model)?;
    let tensors = placed::to_checkpoint(family, model.config(), parameters);
    write_weights(&tensors, directory, options)?;
    let mut config = config_json.clone();
    for key in ["dtype", "torch_dtype"] {
        config[key] = options.dtype.name().into();
    }
    super::write_json(&directory.join("config.json"), &config)
}

fn write_weights(
    tensors: &BTreeMap<String, HostTensor>,
    directory: &Path,
    options: SaveOptions,
) -> Result<(), LoadError> {
    let shards = split(tensors, options);
    let count = shards.len();
    let file_name = |index: usize| match count {
        1 => "model.safetensors".to_string(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
    };
    let mut weight_map = serde_json::Map::new();
    for (index, names) in shards.iter().enumerate() {
        write_shard(tensors, names, &directory.join(file_name(index)), options.dtype)?;
        weight_map.extend(names.iter().map(|name| ((*name).clone(), file_name(index).into())));
    }
    let index_path = directory.join("model.safetensors.index.json");
    if count > 1 {
        let values: usize = tensors.values().map(|tensor| tensor.values.len()).sum();
        let metadata = json!({ "total_size": values * options.dtype.size(), "total_parameters": values });
        super::write_json(&index_path, &json!({ "metadata": metadata, "weight_map": weight_map }))
    } else if index_path.exists() {
        // An index of an earlier, sharded save would win over the single file.
        std::fs::remove_file(&index_path).map_err(|source| LoadError::Io {
            action: "remove",
            path: index_path,
            source,
        })
    } else {
        Ok(())
    }
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

fn write_shard(
    tensors: &BTreeMap<String, HostTensor>,
    names: &[&String],
    path: &Path,
    dtype: SavedDtype,
) -> Result<(), LoadError> {
    let malformed = |e: safetensors::SafeTensorError| LoadError::Malformed {
        path: path.into(),
        format: "safetensors",
        reason: e.to_string(),
    };
    let encoded: Vec<Vec<u8>> = names.iter().map(|name| dtype.encode(&tensors[*name].values)).collect();
    let views = names
        .iter()
        .zip(&encoded)
        .map(|(name, bytes)| {
            Ok((name.as_str(), TensorView::new(dtype.stored(), tensors[*name].shape.clone(), bytes)?))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(malformed)?;
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    super::write_atomically(path, |temporary| {
        safetensors::serialize_to_file(views, Some(metadata), temporary).map_err(malformed)
    })
}

/// Every parameter of a module on the host, by its path.
fn read_parameters(model: &Decoder) -> Result<Vec<(String, HostTensor)>, LoadError> {
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
        let (parameter, tensor) = (self.path.join("."), param.val());
        let shape = tensor.dims().to_vec();
        let values = tensor.try_into_data().map_err(|e| e.to_string());
        match values.and_then(|data| data.try_into_vec::<f32>().map_err(|e| format!("{e:?}"))) {
            Ok(values) => read.push((parameter, HostTensor { shape, values })),
            Err(reason) => self.result = Err(LoadError::Device { parameter, reason }),
        }
    }
}
