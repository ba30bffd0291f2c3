//! Memory-mapped safetensors files.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::{HostTensor, LoadError, WeightSource};

const SUPPORTED: &str = "F32, F16, BF16, F64";

/// The weights of a Hugging Face directory, in one file or several.
#[derive(Debug)]
pub struct SafetensorsWeights {
    path: PathBuf,
    files: Vec<MappedFile>,
    /// The file that holds each tensor.
    location: HashMap<String, usize>,
    names: Vec<String>,
}

#[derive(Debug)]
struct MappedFile {
    path: PathBuf,
    map: Mmap,
    tensors: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: std::ops::Range<usize>,
}

impl SafetensorsWeights {
    /// Opens the weights of a directory: the shards that `model.safetensors.index.json` lists, or `model.safetensors`.
    ///
    /// # Errors
    /// If there are no weights, a file is truncated or malformed, or a shard lacks a tensor that the index promises.
    pub fn open_directory(directory: &Path) -> Result<Self, LoadError> {
        let index = directory.join("model.safetensors.index.json");
        let single = directory.join("model.safetensors");
        if index.is_file() {
            Self::open_sharded(directory, &index)
        } else if single.is_file() {
            Self::open_files(directory, vec![single])
        } else {
            Err(LoadError::NoWeights { path: directory.into() })
        }
    }

    /// Opens one file.
    ///
    /// # Errors
    /// If it is truncated or malformed.
    pub fn open_file(path: &Path) -> Result<Self, LoadError> {
        Self::open_files(path, vec![path.to_path_buf()])
    }

    fn open_sharded(directory: &Path, index: &Path) -> Result<Self, LoadError> {
        let malformed =
            |reason: String| LoadError::Malformed { path: index.into(), format: "safetensors index", reason };
        let json = super::read_json(index)?;
        let map = json["weight_map"].as_object().ok_or_else(|| malformed("no object `weight_map`".into()))?;
        let mut shards = Vec::new();
        for (tensor, shard) in map {
            let shard = shard.as_str().filter(|shard| is_file_name(shard)).ok_or_else(|| {
                malformed(format!("tensor {tensor}: {shard} is not the name of a file in the same directory"))
            })?;
            shards.push(shard);
        }
        shards.sort_unstable();
        shards.dedup();
        if let Some(shard) = shards.iter().find(|shard| !directory.join(shard).is_file()) {
            return Err(LoadError::MissingShard { path: index.into(), shard: (*shard).into() });
        }
        let weights =
            Self::open_files(directory, shards.iter().map(|shard| directory.join(shard)).collect())?;
        for (tensor, shard) in map {
            let found = weights.location.get(tensor).map(|&file| weights.files[file].path.as_path());
            if found != shard.as_str().map(|shard| directory.join(shard)).as_deref() {
                return Err(malformed(format!("{shard} does not hold tensor {tensor}")));
            }
        }
        Ok(weights)
    }

    fn open_files(path: &Path, paths: Vec<PathBuf>) -> Result<Self, LoadError> {
        let files = paths.into_iter().map(MappedFile::open).collect::<Result<Vec<_>, _>>()?;
        let mut location = HashMap::new();
        let mut names = Vec::new();
        for (index, file) in files.iter().enumerate() {
            for name in file.tensors.keys() {
                if location.insert(name.clone(), index).is_some() {
                    let reason = format!("tensor {name} is also in another file");
                    return Err(LoadError::Malformed {
                        path: file.path.clone(),
                        format: "safetensors",
                        reason,
                    });
                }
                names.push(name.clone());
            }
        }
        names.sort_unstable();
        Ok(Self { path: path.into(), files, location, names })
    }
}

/// Whether a name stays in its directory, on every system.
fn is_file_name(name: &str) -> bool {
    !name.contains(['/', '\\', ':', '\0']) && !matches!(name, "" | "." | "..")
}

impl MappedFile {
    #[allow(unsafe_code)]
    fn open(path: PathBuf) -> Result<Self, LoadError> {
        let io = |action| {
            let path = path.clone();
            move |source| LoadError::Io { action, path, source }
        };
        let file = File::open(&path).map_err(io("read"))?;
        // SAFETY: the map is only ever read as bytes. As with every program that maps model files, another process that
        // truncates the file meanwhile ends this one.
        let map = unsafe { Mmap::map(&file) }.map_err(io("map"))?;
        let malformed = |reason: String| LoadError::Malformed {
            path: path.clone(),
            format: "safetensors",
            reason: format!("{reason}: the file is damaged or incomplete, copy it again"),
        };
        let (header, _) = SafeTensors::read_metadata(&map).map_err(|e| malformed(e.to_string()))?;
        let parsed = SafeTensors::deserialize(&map).map_err(|e| malformed(e.to_string()))?;
        let base = map.as_ptr() as usize;
        let mut tensors = HashMap::new();
        for (name, view) in parsed.iter() {
            let start = view.data().as_ptr() as usize - base;
            if start < header {
                return Err(malformed(format!("tensor {name} overlaps the header")));
            }
            let bytes = start..start + view.data().len();
            tensors
                .insert(name.to_string(), Entry { dtype: view.dtype(), shape: view.shape().to_vec(), bytes });
        }
        Ok(Self { path, map, tensors })
    }

    fn read(&self, name: &str, entry: &Entry) -> Result<HostTensor, LoadError> {
        let bytes = &self.map[entry.bytes.clone()];
        let values = match entry.dtype {
            Dtype::F32 => chunks::<4>(bytes).map(f32::from_le_bytes).collect(),
            Dtype::F16 => chunks::<2>(bytes).map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => chunks::<2>(bytes).map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
            Dtype::F64 => chunks::<8>(bytes).map(|b| f64::from_le_bytes(b) as f32).collect(),
            other => {
                return Err(LoadError::UnsupportedDtype {
                    path: self.path.clone(),
                    tensor: name.into(),
                    dtype: format!("{other:?}"),
                    supported: SUPPORTED,
                });
            }
        };
        Ok(HostTensor { shape: entry.shape.clone(), values })
    }
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.as_chunks::<N>().0.iter().copied()
}

impl WeightSource for SafetensorsWeights {
    fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let file = &self.files[*self.location.get(name)?];
        Some(file.tensors[name].shape.clone())
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        let missing = || LoadError::MissingTensor { path: self.path.clone(), tensor: name.into() };
        let file = &self.files[*self.location.get(name).ok_or_else(missing)?];
        file.read(name, &file.tensors[name])
    }
}
