//! Matrices in four or eight bits a number.

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};

/// The values that four bits stand for: the quantiles of a normal distribution, scaled to −1 … 1 (arXiv:2305.14314, E).
const NORMAL_FLOAT: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];
/// Numbers that share a scale.
const BLOCK: usize = 64;
/// What eight bits stand for: −127 … 127, stored from 1 to 255.
const CENTRE: i32 = 128;

/// How weights that are not trained are kept in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseWeights {
    /// As they were loaded.
    #[default]
    Full,
    /// Eight bits a number: 127 steps up and down from zero to the largest of 64 neighbours.
    Int8,
    /// Four bits a number, as in `QLoRA`: sixteen steps, dense where a normal distribution is, up to the largest of 64
    /// neighbours.
    NormalFloat4,
}

/// Bits a number and what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantizedFormat {
    /// See [`BaseWeights::Int8`].
    Int8,
    /// See [`BaseWeights::NormalFloat4`].
    NormalFloat4,
}

impl QuantizedFormat {
    fn bits(self) -> usize {
        match self {
            Self::Int8 => 8,
            Self::NormalFloat4 => 4,
        }
    }

    /// Codes in a word.
    fn per_word(self) -> usize {
        32 / self.bits()
    }

    /// The code nearest to a number between −1 and 1.
    fn encode(self, value: f32) -> u32 {
        match self {
            Self::Int8 => ((value * 127.0).round() as i32 + CENTRE) as u32,
            Self::NormalFloat4 => {
                let above = NORMAL_FLOAT.windows(2).filter(|pair| value > f32::midpoint(pair[0], pair[1]));
                above.count() as u32
            }
        }
    }

    /// What codes stand for, as numbers between −1 and 1. Both `[numbers]`.
    fn decode(self, codes: Tensor<1, Int>) -> Tensor<1> {
        match self {
            Self::Int8 => (codes.float() - f64::from(CENTRE)) / 127.0,
            Self::NormalFloat4 => Tensor::<1>::from_floats(NORMAL_FLOAT, &codes.device()).select(0, codes),
        }
    }
}

/// A matrix, row by row in blocks of 64 numbers: codes of a few bits each, and a scale a block.
#[derive(Module, Debug)]
pub struct QuantizedMatrix {
    /// As many codes in each word as fit, the first in its lowest bits. `[words]`
    codes: Tensor<1, Int>,
    /// The largest magnitude of each block. `[blocks, 1]`
    scales: Tensor<2>,
    #[module(skip)]
    shape: [usize; 2],
    #[module(skip)]
    format: QuantizedFormat,
}

impl QuantizedMatrix {
    /// Rounds a matrix. `values`: row-major, `shape[0] · shape[1]` numbers.
    pub(crate) fn new(values: &[f32], shape: [usize; 2], format: QuantizedFormat, device: &Device) -> Self {
        let (mut words, mut scales) = (Vec::new(), Vec::new());
        for block in values.chunks(BLOCK) {
            let scale = block.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let factor = if scale > 0.0 { scale.recip() } else { 0.0 };
            let mut codes = [0u32; BLOCK];
            for (code, value) in codes.iter_mut().zip(block) {
                *code = format.encode((value * factor).clamp(-1.0, 1.0));
            }
            words.extend(codes.chunks(format.per_word()).map(|codes| {
                let shifted = codes.iter().enumerate().map(|(place, code)| code << (place * format.bits()));
                shifted.fold(0, |word, code| word | code) as i32
            }));
            scales.push(scale);
        }
        let device = device.clone().without_autodiff();
        let (words_len, blocks) = (words.len(), scales.len());
        Self {
            codes: Tensor::from_data(TensorData::new(words, [words_len]), &device),
            scales: Tensor::from_data(TensorData::new(scales, [blocks, 1]), &device),
            shape,
            format,
        }
    }

    /// The rounded numbers, without a graph. `[out, in]`
    #[must_use]
    pub fn dequantize(&self) -> Tensor<2> {
        let (bits, per_word) = (self.format.bits(), self.format.per_word());
        let words = self.codes.clone().without_autodiff();
        let scales = self.scales.clone().without_autodiff();
        let ([blocks, _], count) = (scales.dims(), self.shape[0] * self.shape[1]);
        let places = (0..per_word).map(|place| {
            let shifted = words.clone().bitwise_right_shift_scalar((place * bits) as i32);
            shifted.bitwise_and_scalar((1i32 << bits) - 1).unsqueeze_dim::<2>(1)
        });
        let codes = Tensor::cat(places.collect(), 1).reshape([blocks * BLOCK]);
        let values = self.format.decode(codes).reshape([blocks, BLOCK]) * scales;
        values.reshape([blocks * BLOCK]).narrow(0, 0, count).reshape(self.shape)
    }

    /// Rows and columns.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Memory that codes and scales take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.codes.shape().num_elements() * size_of::<i32>()
            + self.scales.shape().num_elements() * size_of::<f32>()
    }
}
