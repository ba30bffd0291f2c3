//! Rotary position embedding in the Hugging Face convention: the second half of a head is rotated against the first.
//!
//! Source: Su et al. 2021, [arXiv:2104.09864](https://arxiv.org/abs/2104.09864); scaling as in transformers 5.23
//! `modeling_rope_utils.py`.

use std::f64::consts::PI;

use burn::tensor::{Device, Tensor, TensorData};

use super::elementwise;

/// Frequencies of one rotary variant.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// How many leading channels of a head are rotated; even.
    pub rotated: usize,
    /// How frequencies are changed for longer contexts.
    pub scaling: RopeScaling,
}

/// Changes to the frequencies that stretch the context.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// How many times longer the context becomes.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths are divided by `factor`, short ones kept, those between interpolated.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original / low` are divided.
        low_frequency_factor: f64,
        /// Wavelengths below `original / high` are kept.
        high_frequency_factor: f64,
        /// Context length before stretching.
        original_max_positions: f64,
    },
    /// `YaRN` ([arXiv:2309.00071](https://arxiv.org/abs/2309.00071)): a ramp over the channels between kept and divided
    /// frequencies, and cos and sin multiplied by `attention_factor`.
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Rotations within the original context above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which it is divided.
        beta_slow: f64,
        /// Context length before stretching.
        original_max_positions: f64,
        /// Factor on cos and sin.
        attention_factor: f64,
        /// Whether the ends of the ramp are rounded to whole channels.
        truncate: bool,
    },
}

impl RopeConfig {
    /// The angle by which each pair of channels turns per position. `rotated / 2` entries.
    #[must_use]
    pub fn frequencies(&self) -> Vec<f32> {
        let plain = (0..self.rotated / 2).map(|i| self.theta.powf(-((2 * i) as f64) / self.rotated as f64));
        match &self.scaling {
            RopeScaling::None => plain.map(|f| f as f32).collect(),
            RopeScaling::Linear { factor } => plain.map(|f| (f / factor) as f32).collect(),
            RopeScaling::Llama3 {
                factor,
                low_frequency_factor,
                high_frequency_factor,
                original_max_positions,
            } => {
                let keep = |frequency: f64| {
                    let rotations = original_max_positions * frequency / (2.0 * PI);
                    ((rotations - low_frequency_factor) / (high_frequency_factor - low_frequency_factor))
                        .clamp(0.0, 1.0)
                };
                plain.map(|f| ((1.0 - keep(f)) * f / factor + keep(f) * f) as f32).collect()
            }
            RopeScaling::Yarn { factor, .. } => {
                let (low, high) = self.yarn_ramp();
                let divide = |i: usize| ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                plain
                    .enumerate()
                    .map(|(i, f)| (divide(i) * f / factor + (1.0 - divide(i)) * f) as f32)
                    .collect()
            }
        }
    }

    /// First and last channel pair of `YaRN`'s ramp.
    fn yarn_ramp(&self) -> (f64, f64) {
        let RopeScaling::Yarn { beta_fast, beta_slow, original_max_positions, truncate, .. } = self.scaling
        else {
            return (0.0, 1.0);
        };
        let channel = |rotations: f64| {
            self.rotated as f64 * (original_max_positions / (rotations * 2.0 * PI)).ln()
                / (2.0 * self.theta.ln())
        };
        let (mut low, mut high) = (channel(beta_fast), channel(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(self.rotated as f64 - 1.0));
        // Equal ends would divide by zero; transformers widens them by the same amount.
        (low, if (low - high).abs() < f64::EPSILON { high + 0.001 } else { high })
    }

    fn attention_factor(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor as f32,
            _ => 1.0,
        }
    }
}

/// Cosines and sines of the positions of one batch, computed once and used by every layer.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// `[tokens, 1, rotated]`
    cos: Tensor<3>,
    /// `[tokens, 1, rotated]`
    sin: Tensor<3>,
}

impl Rotation {
    /// Tables for these positions. Both halves of a head share their angles.
    #[must_use]
    pub fn new(config: &RopeConfig, positions: &[u32], device: &Device) -> Self {
        let frequencies = config.frequencies();
        let (factor, width) = (config.attention_factor(), 2 * frequencies.len());
        let table = |function: fn(f32) -> f32| {
            let mut values = Vec::with_capacity(positions.len() * width);
            for &position in positions {
                let row = frequencies.iter().map(|f| function(f * position as f32) * factor);
                values.extend(row.clone().chain(row));
            }
            Tensor::from_data(TensorData::new(values, [positions.len(), 1, width]), device)
        };
        Self { cos: table(f32::cos), sin: table(f32::sin) }
    }

    /// Rotates queries or keys. `x` and the result: `[tokens, heads, head_dim]`.
    #[must_use]
    pub fn apply(&self, x: Tensor<3>) -> Tensor<3> {
        self.apply_scaled(x, 1.0)
    }

    /// As [`apply`](Self::apply), with a factor on everything.
    pub(super) fn apply_scaled(&self, x: Tensor<3>, scale: f64) -> Tensor<3> {
        elementwise::rotate(&x, [&self.cos, &self.sin], 1.0, scale)
            .unwrap_or_else(|| scaled(self.by_operations(x), scale))
    }

    /// The gradient of what [`apply_scaled`](Self::apply_scaled) was given: turning back.
    pub(super) fn backward(&self, gradient: Tensor<3>, scale: f64) -> Tensor<3> {
        elementwise::rotate(&gradient, [&self.cos, &self.sin], -1.0, scale).unwrap_or_else(|| {
            let back = Self { cos: self.cos.clone(), sin: -self.sin.clone() };
            scaled(back.by_operations(gradient), scale)
        })
    }

    fn by_operations(&self, x: Tensor<3>) -> Tensor<3> {
        let [.., width] = x.dims();
        let rotated = self.cos.dims()[2];
        if rotated == width {
            return self.rotate(x);
        }
        let kept = x.clone().narrow(2, rotated, width - rotated);
        Tensor::cat(vec![self.rotate(x.narrow(2, 0, rotated)), kept], 2)
    }

    fn rotate(&self, x: Tensor<3>) -> Tensor<3> {
        let half = x.dims()[2] / 2;
        let (first, second) = (x.clone().narrow(2, 0, half), x.clone().narrow(2, half, half));
        x * self.cos.clone() + Tensor::cat(vec![-second, first], 2) * self.sin.clone()
    }
}

fn scaled(x: Tensor<3>, scale: f64) -> Tensor<3> {
    if (scale - 1.0).abs() > 0.0 { x * scale } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_context_scaled_linearly_turns_a_quarter() {
        let plain = RopeConfig { theta: 1e4, rotated: 8, scaling: RopeScaling::None };
        let scaled = RopeConfig { scaling: RopeScaling::Linear { factor: 4.0 }, ..plain.clone() };
        for (a, b) in plain.frequencies().iter().zip(scaled.frequencies()) {
            assert!((a / 4.0 - b).abs() < 1e-9);
        }
    }

    #[test]
    fn halves_are_rotated_against_each_other() {
        let device = Device::flex();
        let config = RopeConfig { theta: 1e4, rotated: 4, scaling: RopeScaling::None };
        let rotation = Rotation::new(&config, &[1], &device);
        let x = Tensor::<3>::from_data([[[1.0f32, 0.0, 0.0, 0.0]]], &device);
        let y: Vec<f32> = rotation.apply(x).into_data().iter::<f32>().collect();
        let expected = [1f32.cos(), 0.0, 1f32.sin(), 0.0];
        assert!(y.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{y:?}");
    }
}
