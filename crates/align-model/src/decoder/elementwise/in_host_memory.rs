//! The passes for f32 tensors that lie in host memory, on all threads.

use burn::tensor::{DType, Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::decoder::config::NormConfig;

/// Numbers that one task works on, about: enough to outweigh what starting it costs.
const TASK: usize = 1 << 14;

pub(super) fn holds<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && !x.is_autodiff() && x.device() == Device::flex()
}

/// RMS normalisation `x / √(mean(x²) + ε) · (weight + offset)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rms {
    epsilon: f64,
    offset: f32,
}

impl Rms {
    /// The RMS normalisation of a configuration, if it is one.
    pub(super) fn of(config: NormConfig) -> Option<Self> {
        match config {
            NormConfig::Rms { epsilon } => Some(Self { epsilon, offset: 0.0 }),
            NormConfig::RmsPlusOne { epsilon } => Some(Self { epsilon, offset: 1.0 }),
            NormConfig::Layer { .. } => None,
        }
    }

    /// `1 / √(mean(x²) + ε)`
    fn scale_of(self, x: &[f32]) -> f32 {
        let mean = sum(x, x, |a, b| a * b) / x.len() as f32;
        (f64::from(mean) + self.epsilon).sqrt().recip() as f32
    }

    fn weight(self, weight: Tensor<1>) -> Vec<f32> {
        let weight = weight.into_data();
        values(&weight).iter().map(|w| w + self.offset).collect()
    }
}

pub(super) fn rms_norm<const D: usize>(rms: Rms, x: Tensor<D>, weight: Tensor<1>) -> Tensor<D> {
    let (shape, device, weight) = (x.dims(), x.device(), rms.weight(weight));
    let (width, mut x) = (weight.len(), into_vec(x));
    x.par_chunks_mut(rows_at_once(width) * width).for_each(|rows| {
        for row in rows.chunks_exact_mut(width) {
            let scale = rms.scale_of(row);
            for (x, w) in row.iter_mut().zip(&weight) {
                *x = *x * scale * w;
            }
        }
    });
    Tensor::from_data(TensorData::new(x, shape), &device)
}

/// With `n = x·r`, `r = 1 / √(mean(x²) + ε)` and `g = ∂y ∘ w`:
///
/// ```text
/// ∂x = r · (g − n · mean(g ∘ n))        ∂w = Σ ∂y ∘ n
/// ```
pub(super) fn rms_norm_backward<const D: usize>(
    rms: Rms,
    x: Tensor<D>,
    weight: Tensor<1>,
    gradient: Tensor<D>,
) -> (Tensor<D>, Tensor<1>) {
    let (shape, device, weight) = (x.dims(), x.device(), rms.weight(weight));
    let (width, x, mut gradient) = (weight.len(), x.into_data(), into_vec(gradient));
    let rows = rows_at_once(width) * width;
    let of_weight = values(&x)
        .par_chunks(rows)
        .zip(gradient.par_chunks_mut(rows))
        .map(|(x, gradient)| {
            let mut of_weight = vec![0.0f32; width];
            for (x, gradient) in x.chunks_exact(width).zip(gradient.chunks_exact_mut(width)) {
                let scale = rms.scale_of(x);
                for (((g, x), w), of_weight) in gradient.iter_mut().zip(x).zip(&weight).zip(&mut of_weight) {
                    *of_weight += *g * (x * scale);
                    *g *= w;
                }
                let along = scale * scale * sum(gradient, x, |g, x| g * x) / width as f32;
                for (g, x) in gradient.iter_mut().zip(x) {
                    *g = scale * (*g - x * along);
                }
            }
            of_weight
        })
        // In the order of the rows, so that the sum is the same in every run.
        .collect::<Vec<_>>()
        .into_iter()
        .reduce(|mut sum, part| {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            sum
        })
        .unwrap_or_else(|| vec![0.0; width]);
    let of_weight = Tensor::from_data(TensorData::new(of_weight, [width]), &device);
    (Tensor::from_data(TensorData::new(gradient, shape), &device), of_weight)
}

pub(super) fn gated_silu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    let (shape, device) = (gate.dims(), gate.device());
    let (gate, mut up) = (gate.into_data(), into_vec(up));
    up.par_chunks_mut(TASK).zip(values(&gate).par_chunks(TASK)).for_each(|(up, gate)| {
        for (up, gate) in up.iter_mut().zip(gate) {
            *up *= gate * sigmoid(*gate);
        }
    });
    Tensor::from_data(TensorData::new(up, shape), &device)
}

/// `silu′(z) = σ(z) · (1 + z · (1 − σ(z)))`
pub(super) fn gated_silu_backward(gate: Tensor<2>, up: Tensor<2>, gradient: Tensor<2>) -> [Tensor<2>; 2] {
    let (shape, device) = (gate.dims(), gate.device());
    let (mut gate, mut up, gradient) = (into_vec(gate), into_vec(up), gradient.into_data());
    let tasks = gate.par_chunks_mut(TASK).zip(up.par_chunks_mut(TASK));
    tasks.zip(values(&gradient).par_chunks(TASK)).for_each(|((gate, up), gradient)| {
        for ((gate, up), gradient) in gate.iter_mut().zip(up).zip(gradient) {
            let (z, sigma) = (*gate, sigmoid(*gate));
            *gate = gradient * *up * sigma * (1.0 + z * (1.0 - sigma));
            *up = gradient * z * sigma;
        }
    });
    [gate, up].map(|values| Tensor::from_data(TensorData::new(values, shape), &device))
}

pub(super) fn softmax(scores: Tensor<4>, mask: Option<Tensor<4>>, queries: usize) -> Tensor<4> {
    let (shape @ [_, kv_heads, stacked, keys], device) = (scores.dims(), scores.device());
    let mask = mask.map(|mask| (mask.dims(), mask.into_data()));
    let rows_of_sequence = kv_heads * stacked;
    let mask_row = |row: usize| {
        let ([sequences, _, rows, _], mask) = mask.as_ref()?;
        let sequence = if *sequences == 1 { 0 } else { row / rows_of_sequence };
        let first = (sequence * rows + if *rows == 1 { 0 } else { row % queries }) * keys;
        Some(&values(mask)[first..first + keys])
    };
    let mut scores = into_vec(scores);
    scores.par_chunks_mut(keys).with_min_len(rows_at_once(keys)).enumerate().for_each(|(index, row)| {
        if let Some(mask) = mask_row(index) {
            row.iter_mut().zip(mask).for_each(|(score, mask)| *score += mask);
        }
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for score in &mut *row {
            *score = exp(*score - largest);
        }
        let scale = sum(row, row, |a, _| a).recip();
        for weight in row {
            *weight *= scale;
        }
    });
    Tensor::from_data(TensorData::new(scores, shape), &device)
}

pub(super) fn softmax_backward(weights: Tensor<4>, gradient: Tensor<4>, along: Tensor<4>) -> Tensor<4> {
    let (shape @ [.., keys], device) = (weights.dims(), weights.device());
    let (weights, mut gradient, along) = (weights.into_data(), into_vec(gradient), along.into_data());
    let rows = gradient.par_chunks_mut(keys).with_min_len(rows_at_once(keys));
    rows.zip(values(&weights).par_chunks(keys)).zip(values(&along)).for_each(|((row, weights), along)| {
        for (gradient, weight) in row.iter_mut().zip(weights) {
            *gradient = weight * (*gradient - along);
        }
    });
    Tensor::from_data(TensorData::new(gradient, shape), &device)
}

pub(super) fn rotate(x: Tensor<3>, [cos, sin]: [Tensor<3>; 2], direction: f32, scale: f32) -> Tensor<3> {
    let (shape @ [_, heads, width], device, rotated) = (x.dims(), x.device(), cos.dims()[2]);
    let (mut x, cos, sin) = (into_vec(x), cos.into_data(), sin.into_data());
    let tokens = x.par_chunks_mut(heads * width).with_min_len(TASK / (heads * width) + 1);
    let tables = values(&cos).par_chunks(rotated).zip(values(&sin).par_chunks(rotated));
    tokens.zip(tables).for_each(|(token, (cos, sin))| {
        let angles = || cos.iter().zip(sin);
        for head in token.chunks_exact_mut(width) {
            let (turned, kept) = head.split_at_mut(rotated);
            let (first, second) = turned.split_at_mut(rotated / 2);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(angles()) {
                let sin = sin * direction;
                (*a, *b) = ((*a * cos - *b * sin) * scale, (*b * cos + *a * sin) * scale);
            }
            for x in kept {
                *x *= scale;
            }
        }
    });
    Tensor::from_data(TensorData::new(x, shape), &device)
}

/// `1 / (1 + exp(−x))`, from a polynomial: `f32::exp` is a call, and calls keep a loop from using wide registers.
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `exp(x)` to two units in the last place, by `2ⁿ · exp(r)` with `|r| ≤ ln 2 / 2`; Cephes' polynomial. 0 below the
/// range of normal numbers, held at its upper end, where a sigmoid has long been 0; NaN stays NaN.
fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding it rounds to a whole number.
    const ROUNDER: f32 = 12_582_912.0;
    let is_zero = x < -87.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if is_zero { 0.0 } else { (p * r * r + r + 1.0) * power }
}

/// `Σ f(a, b)` over pairs, in independent lanes.
fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    const LANES: usize = 32;
    let mut lanes = [0.0f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| f(*a, *b)).sum();
    for (a, b) in a.zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f(*a, *b);
        }
    }
    rest + lanes.iter().sum::<f32>()
}

fn rows_at_once(width: usize) -> usize {
    TASK / width.max(1) + 1
}

fn values(data: &TensorData) -> &[f32] {
    data.as_slice().unwrap_or_else(|error| unreachable!("it is f32 in host memory: {error}"))
}

/// Without a copy where the tensor is the one owner of its memory.
fn into_vec<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_into_vec().unwrap_or_else(|error| unreachable!("it is f32 in host memory: {error}"))
}

#[cfg(test)]
mod tests;
