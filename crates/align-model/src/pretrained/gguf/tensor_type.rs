//! The number formats of GGUF tensors and their conversion to f32.

use candle_core::Device;
use candle_core::quantized::{GgmlDType, ggml_file};

/// The formats that can be read, as errors list them.
pub(super) const SUPPORTED: &str =
    "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K";

/// A number format that can be read: blocks of `values` values in `bytes` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TensorType {
    dtype: GgmlDType,
    /// Values in one block.
    pub(super) values: usize,
    /// Bytes of one block.
    pub(super) bytes: usize,
}

impl TensorType {
    /// The format with ggml's number `code`, or that format's name if it cannot be read.
    pub(super) fn from_code(code: u32) -> Result<Self, String> {
        let dtype = match code {
            0 => GgmlDType::F32,
            1 => GgmlDType::F16,
            2 => GgmlDType::Q4_0,
            3 => GgmlDType::Q4_1,
            6 => GgmlDType::Q5_0,
            7 => GgmlDType::Q5_1,
            8 => GgmlDType::Q8_0,
            10 => GgmlDType::Q2K,
            11 => GgmlDType::Q3K,
            12 => GgmlDType::Q4K,
            13 => GgmlDType::Q5K,
            14 => GgmlDType::Q6K,
            30 => GgmlDType::BF16,
            other => return Err(unsupported_name(other)),
        };
        Ok(Self { dtype, values: dtype.block_size(), bytes: dtype.type_size() })
    }

    /// Converts whole blocks to f32 and appends the values.
    pub(super) fn append_values(self, raw: &[u8], values: &mut Vec<f32>) -> Result<(), candle_core::Error> {
        match self.dtype {
            GgmlDType::F32 => {
                values.extend(raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            }
            GgmlDType::F16 => {
                let halves = raw.as_chunks::<2>().0.iter();
                values.extend(halves.map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()));
            }
            GgmlDType::BF16 => {
                let halves = raw.as_chunks::<2>().0.iter();
                values.extend(halves.map(|bytes| half::bf16::from_le_bytes(*bytes).to_f32()));
            }
            dtype => {
                let count = raw.len() / self.bytes * self.values;
                let blocks = ggml_file::qtensor_from_ggml(dtype, raw, vec![count], &Device::Cpu)?;
                values.extend(blocks.dequantize(&Device::Cpu)?.to_vec1::<f32>()?);
            }
        }
        Ok(())
    }
}

fn unsupported_name(code: u32) -> String {
    let name = match code {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        other => return format!("ggml type {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests;
