//! Between a checkpoint's tensors and the decoder's parameters, both ways.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use super::{
    HostTensor, LoadError, WeightSource,
    family::{Family, Placement},
};
use crate::decoder::{DecoderConfig, Head, ParameterSource};

/// Buffers that old checkpoints carry and no model reads.
const BUFFERS: [&str; 6] = [
    "rotary_emb.inv_freq",
    "attn.bias",
    "attn.masked_bias",
    "attention.bias",
    "attention.masked_bias",
    "position_ids",
];

/// Reads a decoder's parameters from a checkpoint.
pub(super) struct CheckpointParameters<'a> {
    path: &'a Path,
    weights: &'a dyn WeightSource,
    family: Family,
    head_dim: usize,
    used: HashSet<String>,
    /// The fused tensor read last: query, key and value come out of the same one.
    fused: Option<(String, HostTensor)>,
}

impl<'a> CheckpointParameters<'a> {
    pub(super) fn new(
        path: &'a Path,
        weights: &'a dyn WeightSource,
        family: Family,
        config: &DecoderConfig,
    ) -> Self {
        Self { path, weights, family, head_dim: config.head_dim, used: HashSet::new(), fused: None }
    }

    /// The name under which the files hold a tensor: checkpoints of bare models leave the prefix out.
    fn resolve(&self, name: &str) -> Option<String> {
        let bare = name.strip_prefix(self.family.prefix());
        [Some(name), bare]
            .into_iter()
            .flatten()
            .find(|name| self.weights.shape(name).is_some())
            .map(str::to_string)
    }

    /// Whether the files hold a head of its own, one that differs from the embedding matrix.
    pub(super) fn has_own_head(&self) -> Result<bool, LoadError> {
        let stored = |path| self.resolve(self.family.placement(path).name());
        match (stored("head.weight"), stored("embedding")) {
            (Some(head), Some(embedding)) => {
                // Shapes first: nothing is read of a head that cannot be the embedding's copy.
                Ok(self.weights.shape(&head) != self.weights.shape(&embedding)
                    || self.weights.read(&head)?.values != self.weights.read(&embedding)?.values)
            }
            _ => Ok(false),
        }
    }

    fn read(&mut self, name: &str, expected: &[usize]) -> Result<HostTensor, LoadError> {
        let missing = || LoadError::MissingTensor { path: self.path.into(), tensor: name.into() };
        let stored = self.resolve(name).ok_or_else(missing)?;
        if let Some((fused, tensor)) = &self.fused
            && *fused == stored
        {
            return Ok(tensor.clone());
        }
        let found = self.weights.shape(&stored).ok_or_else(missing)?;
        if found != expected {
            let expected = expected.to_vec();
            return Err(LoadError::Shape { path: self.path.into(), tensor: stored, found, expected });
        }
        let tensor = self.weights.read(&stored)?;
        self.used.insert(stored);
        Ok(tensor)
    }

    /// Marks a tensor as read that is no parameter of the decoder.
    pub(super) fn mark_used(&mut self, name: &str) {
        self.used.insert(name.into());
    }

    fn read_fused(&mut self, name: &str, expected: &[usize]) -> Result<HostTensor, LoadError> {
        let tensor = self.read(name, expected)?;
        self.fused = self.resolve(name).map(|stored| (stored, tensor.clone()));
        Ok(tensor)
    }

    /// Fails if the files hold weights that nothing asked for: the configuration is then not this model's.
    pub(super) fn finish(self, config: &DecoderConfig) -> Result<(), LoadError> {
        let head = self.family.placement("head.weight");
        let is_unread_head = |name: &str| config.head != Head::Untied && name == head.name();
        let is_buffer = |name: &str| {
            let ends = |buffer: &str| {
                name.strip_suffix(buffer).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            BUFFERS.iter().any(|buffer| ends(buffer))
        };
        let unexpected =
            |name: &String| !self.used.contains(name) && !is_unread_head(name) && !is_buffer(name);
        match self.weights.names().into_iter().find(unexpected) {
            Some(tensor) => Err(LoadError::UnexpectedTensor { path: self.path.into(), tensor }),
            None => Ok(()),
        }
    }
}

impl ParameterSource for CheckpointParameters<'_> {
    type Error = LoadError;

    fn parameter(&mut self, path: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        match self.family.placement(path) {
            Placement::Whole(name) => Ok(self.read(&name, shape)?.values),
            Placement::Transposed(name) => {
                let stored = self.read(&name, &[shape[1], shape[0]])?;
                Ok(transpose(&stored.values, shape[1], shape[0]))
            }
            Placement::Third { name, part } => {
                let (out, input) = (shape[0], shape.get(1).copied());
                let stored =
                    self.read_fused(&name, &input.map_or(vec![3 * out], |input| vec![input, 3 * out]))?;
                let rows = input.unwrap_or(1);
                let columns: Vec<f32> = stored
                    .values
                    .chunks_exact(3 * out)
                    .flat_map(|row| &row[part * out..(part + 1) * out])
                    .copied()
                    .collect();
                Ok(transpose(&columns, rows, out))
            }
            Placement::HeadThird { name, part } => {
                let (out, width) = (shape[0], shape.get(1).copied());
                let stored =
                    self.read_fused(&name, &width.map_or(vec![3 * out], |width| vec![3 * out, width]))?;
                let group = self.head_dim * width.unwrap_or(1);
                Ok(stored.values.chunks_exact(group).skip(part).step_by(3).flatten().copied().collect())
            }
        }
    }
}

/// A `[rows, columns]` matrix as `[columns, rows]`.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut result = Vec::with_capacity(values.len());
    for column in 0..columns {
        result.extend((0..rows).map(|row| values[row * columns + column]));
    }
    result
}

/// Puts parameters back into the checkpoint's layout, under its names.
pub(super) fn to_checkpoint(
    family: Family,
    config: &DecoderConfig,
    parameters: impl IntoIterator<Item = (String, HostTensor)>,
) -> BTreeMap<String, HostTensor> {
    let mut done = BTreeMap::new();
    let mut parts: BTreeMap<String, Vec<HostTensor>> = BTreeMap::new();
    for (path, tensor) in parameters {
        let placement = family.placement(&path);
        let name = placement.name().to_string();
        match placement {
            Placement::Whole(_) => {
                done.insert(name, tensor);
            }
            Placement::Transposed(_) => {
                done.insert(name, transposed(&tensor));
            }
            // Query, key and value follow each other in the module.
            Placement::Third { .. } => {
                let thirds = parts.entry(name.clone()).or_default();
                thirds.push(transposed(&tensor));
                if thirds.len() == 3 {
                    done.insert(name, join_columns(thirds));
                }
            }
            Placement::HeadThird { .. } => {
                let thirds = parts.entry(name.clone()).or_default();
                thirds.push(tensor);
                if thirds.len() == 3 {
                    done.insert(name, interleave_heads(thirds, config.head_dim));
                }
            }
        }
    }
    done
}

fn transposed(tensor: &HostTensor) -> HostTensor {
    match tensor.shape[..] {
        [rows, columns] => {
            HostTensor { shape: vec![columns, rows], values: transpose(&tensor.values, rows, columns) }
        }
        _ => tensor.clone(),
    }
}

fn join_columns(parts: &[HostTensor]) -> HostTensor {
    let width = parts[0].shape[parts[0].shape.len() - 1];
    let mut shape = parts[0].shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = 3 * width;
    }
    let rows = parts[0].values.len() / width;
    let values = (0..rows)
        .flat_map(|row| parts.iter().flat_map(move |part| &part.values[row * width..(row + 1) * width]))
        .copied()
        .collect();
    HostTensor { shape, values }
}

fn interleave_heads(parts: &[HostTensor], head_dim: usize) -> HostTensor {
    let mut shape = parts[0].shape.clone();
    let group = head_dim * shape.get(1).copied().unwrap_or(1);
    shape[0] *= 3;
    let heads = parts[0].values.len() / group;
    let values = (0..heads)
        .flat_map(|head| parts.iter().flat_map(move |part| &part.values[head * group..(head + 1) * group]))
        .copied()
        .collect();
    HostTensor { shape, values }
}
