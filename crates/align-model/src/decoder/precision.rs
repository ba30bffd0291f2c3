//! The data type that a decoder computes in.

use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};

/// The data type of activations and of the matrix products of all layers.
///
/// Parameters, their gradients and the optimiser's state are f32 in any case: an update of bf16 weights would be lost
/// where it is smaller than the 256th part of the weight. Normalisation, softmax, rotary embedding and the head are
/// computed in f32 as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputeDtype {
    /// f32, as the parameters.
    #[default]
    Float32,
    /// bf16: half the memory for activations, and the fast products of recent graphics processors.
    Bfloat16,
}

/// A decoder cannot compute in a data type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ComputeDtypeError {
    /// The device lacks arithmetic in this type.
    #[error("device {device} does not compute in {dtype:?}: use `float32` there")]
    Unsupported {
        /// The type.
        dtype: ComputeDtype,
        /// The device, as burn names it.
        device: String,
    },
}

impl ComputeDtype {
    /// burn's name of the type.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Self::Float32 => DType::F32,
            Self::Bfloat16 => DType::BF16,
        }
    }

    /// Bytes a number.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Bfloat16 => 2,
        }
    }

    pub(super) fn check(self, device: &Device) -> Result<(), ComputeDtypeError> {
        if self == Self::Float32 || device.supports_dtype(self.dtype()) {
            return Ok(());
        }
        Err(ComputeDtypeError::Unsupported { dtype: self, device: format!("{device:?}") })
    }
}
