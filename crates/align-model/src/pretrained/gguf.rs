//! GGUF files: llama.cpp's single-file models, read as if they were Hugging Face directories.
//!
//! Weights come back dequantised, under their Hugging Face names and in the Hugging Face layout; the metadata is
//! translated to what `config.json`, `tokenizer.json` and `tokenizer_config.json` would hold.

mod architecture;
mod config;
mod header;
mod merges;
mod metadata;
mod pre_tokenizer;
mod rope;
mod tensor_type;
mod tokenizer;
mod vocabulary;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use candle_core::quantized::gguf_file::Content;
use tokenizers::Tokenizer;

use self::architecture::{Architecture, HeadCounts, Layout};
use self::header::{HeaderError, TensorEntry};
use self::metadata::Metadata;
use super::{HostTensor, LoadError, WeightSource};

/// How many values are dequantised at a time; a multiple of every block size.
const CHUNK_VALUES: usize = 1 << 18;

/// An open GGUF file: its metadata is in memory, its tensors are read one at a time.
#[derive(Debug)]
pub struct GgufModel {
    path: PathBuf,
    file: Mutex<File>,
    metadata: Metadata,
    architecture: Architecture,
    tensors: Vec<Tensor>,
    by_name: HashMap<String, usize>,
    /// Llama 3's table of frequency divisors, from which its rope scaling is recovered.
    rotary_divisors: Option<Vec<f32>>,
}

/// A tensor of the model, as it is stored and as it is to be read.
#[derive(Debug)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    stored: TensorEntry,
    layout: Layout,
}

impl GgufModel {
    /// Opens a file and checks its head: metadata, and every tensor's name, format, shape and place.
    ///
    /// # Errors
    /// If the file cannot be read, is truncated or inconsistent, or holds an architecture, a tensor or a number format
    /// that is not supported.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let io_error = |source| LoadError::Io { action: "read", path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io_error)?;
        let file_bytes = file.metadata().map_err(io_error)?.len();
        let head = header::read_header(BufReader::new(&mut file), file_bytes)
            .map_err(|error| header_error(path, error))?;
        let metadata = read_metadata(&mut file, path, head.bytes)?;
        let architecture = architecture_of(&metadata)?;
        let heads = head_counts(&metadata, architecture)?;
        let mut tensors = Vec::new();
        let mut divisors = None;
        for stored in head.tensors {
            if stored.name == "rope_freqs.weight" {
                divisors = Some(stored);
            } else if !architecture::is_rotary_table(&stored.name) {
                tensors.push(describe_tensor(path, architecture, heads, stored)?);
            }
        }
        let by_name =
            tensors.iter().enumerate().map(|(index, tensor)| (tensor.name.clone(), index)).collect();
        let mut model = Self {
            path: path.to_owned(),
            file: Mutex::new(file),
            metadata,
            architecture,
            tensors,
            by_name,
            rotary_divisors: None,
        };
        model.rotary_divisors = divisors.map(|stored| model.read_values(&stored)).transpose()?;
        Ok(model)
    }

    /// What the model's `config.json` would hold.
    ///
    /// # Errors
    /// If a key that the architecture needs is missing or has a value that makes no sense, or if the file asks for a
    /// rope scaling that cannot be expressed.
    pub fn config(&self) -> Result<serde_json::Value, LoadError> {
        config::hugging_face_config(self)
    }

    /// The model's tokenizer, as its `tokenizer.json` would build it.
    ///
    /// # Errors
    /// If the file holds no tokenizer, one of a kind or with a pre-tokenizer that is not supported, or one whose
    /// vocabulary, merges and special tokens contradict each other.
    pub fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        tokenizer::build(&self.metadata, self.architecture)
    }

    /// What the model's `tokenizer_config.json` would hold: special tokens, added tokens and chat template.
    ///
    /// # Errors
    /// If the file holds no vocabulary or a special token lies outside it.
    pub fn tokenizer_config(&self) -> Result<serde_json::Value, LoadError> {
        tokenizer::tokenizer_config(&self.metadata, self.architecture)
    }

    fn has_tensor(&self, stored_name: &str) -> bool {
        self.tensors.iter().any(|tensor| tensor.stored.name == stored_name)
    }

    /// Reads a tensor's values in the order in which they are stored.
    fn read_values(&self, stored: &TensorEntry) -> Result<Vec<f32>, LoadError> {
        let io_error = |source| LoadError::Io { action: "read", path: self.path.clone(), source };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(stored.start)).map_err(io_error)?;
        let chunk_bytes = CHUNK_VALUES / stored.tensor_type.values * stored.tensor_type.bytes;
        let mut values = Vec::with_capacity(stored.shape.iter().product());
        let mut raw = Vec::new();
        let mut rest = stored.bytes as usize;
        while rest > 0 {
            raw.resize(rest.min(chunk_bytes), 0);
            file.read_exact(&mut raw).map_err(io_error)?;
            rest -= raw.len();
            stored.tensor_type.append_values(&raw, &mut values).map_err(|error| {
                malformed(&self.path, format!("the tensor {} cannot be dequantised: {error}", stored.name))
            })?;
        }
        Ok(values)
    }
}

impl WeightSource for GgufModel {
    fn names(&self) -> Vec<String> {
        self.tensors.iter().map(|tensor| tensor.name.clone()).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.by_name.get(name).map(|&index| self.tensors[index].shape.clone())
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        let Some(&index) = self.by_name.get(name) else {
            return Err(LoadError::MissingTensor { path: self.path.clone(), tensor: name.to_owned() });
        };
        let tensor = &self.tensors[index];
        let values = self.read_values(&tensor.stored)?;
        let values = tensor.layout.restore(values, &tensor.stored.shape);
        Ok(HostTensor { shape: tensor.shape.clone(), values })
    }
}

/// Parses the metadata from a head that was checked before.
fn read_metadata(file: &mut File, path: &Path, head_bytes: u64) -> Result<Metadata, LoadError> {
    let io_error = |source| LoadError::Io { action: "read", path: path.to_owned(), source };
    let mut head = vec![0; head_bytes as usize];
    file.seek(SeekFrom::Start(0)).map_err(io_error)?;
    file.read_exact(&mut head).map_err(io_error)?;
    let content =
        Content::read(&mut Cursor::new(head)).map_err(|error| malformed(path, error.to_string()))?;
    Ok(Metadata::new(path, content.metadata))
}

fn architecture_of(metadata: &Metadata) -> Result<Architecture, LoadError> {
    let key = "general.architecture";
    let name = metadata.string(key)?.ok_or_else(|| metadata.invalid(key, "the key is missing"))?;
    Architecture::from_name(name).ok_or_else(|| LoadError::UnknownArchitecture {
        path: metadata.path().to_owned(),
        model_type: name.to_owned(),
        supported: architecture::SUPPORTED,
    })
}

fn head_counts(metadata: &Metadata, architecture: Architecture) -> Result<HeadCounts, LoadError> {
    let name = architecture.name();
    let query = metadata.required_integer(&format!("{name}.attention.head_count"))? as usize;
    let key_value = metadata.integer(&format!("{name}.attention.head_count_kv"))?;
    Ok(HeadCounts { query, key_value: key_value.map_or(query, |count| count as usize) })
}

fn describe_tensor(
    path: &Path,
    architecture: Architecture,
    heads: HeadCounts,
    stored: TensorEntry,
) -> Result<Tensor, LoadError> {
    let name = architecture.hugging_face_name(&stored.name).ok_or_else(|| LoadError::UnknownTensor {
        path: path.to_owned(),
        tensor: stored.name.clone(),
        architecture: architecture.name(),
    })?;
    let layout = architecture.layout(&stored.name, heads);
    let shape = layout
        .hugging_face_shape(&stored.shape)
        .map_err(|reason| malformed(path, format!("the tensor {} {reason}", stored.name)))?;
    Ok(Tensor { name, shape, stored, layout })
}

fn header_error(path: &Path, error: HeaderError) -> LoadError {
    match error {
        HeaderError::Io(source) => LoadError::Io { action: "read", path: path.to_owned(), source },
        HeaderError::Malformed(reason) => malformed(path, reason),
        HeaderError::UnsupportedType { tensor, dtype } => LoadError::UnsupportedDtype {
            path: path.to_owned(),
            tensor,
            dtype,
            supported: tensor_type::SUPPORTED,
        },
    }
}

fn malformed(path: &Path, reason: String) -> LoadError {
    LoadError::Malformed { path: path.to_owned(), format: "GGUF", reason }
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
