//! The low-rank adapter of one layer.

use burn::{
    module::{Module, Param},
    tensor::{DType, Device, Tensor, TensorData},
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{config::AdapterInitialization, dropout::dropout};
use crate::{
    causal_lm::DropoutSeed,
    decoder::{ParameterSource, RandomParameters},
};

/// `B·A`, trained in place of a weight of `[out, in]`.
#[derive(Module, Debug)]
pub struct LoraAdapter {
    /// `[rank, in]`
    pub a: Param<Tensor<2>>,
    /// `[out, rank]`
    pub b: Param<Tensor<2>>,
    /// Of `DoRA` alone: the length of each row of the weight. `[out]`
    pub magnitude: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(super) settings: AdapterSettings,
}

/// What an adapter is told beside its matrices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct AdapterSettings {
    /// Factor on `B·A`.
    pub(super) scale: f64,
    /// Share of the inputs that a training pass leaves out.
    pub(super) dropout: f64,
    /// Tells this adapter's dropout masks from those of others.
    pub(super) stream: u64,
    /// Which outputs belong together.
    pub(super) layout: OutputLayout,
}

/// How the rows of an adapter's `B` belong to the layers it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputLayout {
    /// One layer.
    Single,
    /// Query, key and value, one after the other (GPT-2).
    Thirds,
    /// Query, key and value of each head in turn (GPT-NeoX).
    HeadThirds {
        /// Rows of a head.
        head_dim: usize,
    },
}

impl OutputLayout {
    /// Cuts rows into those of each layer. `rows`: `[out, columns]`.
    fn parts(self, rows: Tensor<2>) -> Vec<Tensor<2>> {
        let [count, columns] = rows.dims();
        match self {
            Self::Single => vec![rows],
            Self::Thirds => rows.chunk(3, 0),
            Self::HeadThirds { head_dim } => {
                let heads = count / (3 * head_dim);
                let grouped = rows.reshape([heads, 3, head_dim, columns]);
                let part = |which| grouped.clone().narrow(1, which, 1).reshape([count / 3, columns]);
                (0..3).map(part).collect()
            }
        }
    }

    /// Puts the rows of each layer, a number each, into the adapter's order. Result `[out]`.
    fn join(self, mut parts: Vec<Tensor<1>>) -> Tensor<1> {
        match self {
            Self::Single | Self::Thirds if parts.len() == 1 => parts.remove(0),
            Self::Single | Self::Thirds => Tensor::cat(parts, 0),
            Self::HeadThirds { head_dim } => {
                let rows = parts[0].dims()[0];
                let heads = parts.into_iter().map(|part| part.reshape([rows / head_dim, 1, head_dim]));
                Tensor::<3>::cat(heads.collect(), 1).reshape([3 * rows])
            }
        }
    }
}

/// A layer under an adapter, computed without it and without its bias.
#[derive(Debug)]
pub(crate) struct AdaptedPart {
    /// `x·Wᵀ`, `[tokens, out]`
    pub(crate) output: Tensor<2>,
    /// `W`, `[out, in]`
    pub(crate) weight: Tensor<2>,
}

/// Gradients of an adapter's matrices and of its input.
#[derive(Debug)]
pub(crate) struct AdapterGradients {
    /// `[rank, in]`
    pub(crate) a: Tensor<2>,
    /// `[out, rank]`
    pub(crate) b: Tensor<2>,
    /// `[tokens, in]`
    pub(crate) x: Tensor<2>,
}

/// The values of an adapter that is to be made.
#[derive(Debug)]
pub(super) struct AdapterValues {
    pub(super) rank: usize,
    /// `[rank, in]`
    pub(super) a: Vec<f32>,
    /// `[out, rank]`
    pub(super) b: Vec<f32>,
}

impl AdapterValues {
    /// A fresh adapter, which changes nothing.
    pub(super) fn fresh(
        [output, input]: [usize; 2],
        rank: usize,
        initialization: AdapterInitialization,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let b = vec![0.0; output * rank];
        let a = match initialization {
            AdapterInitialization::KaimingUniform => {
                let bound = (input as f32).sqrt().recip();
                let mut uniform = || (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32;
                (0..rank * input).map(|_| bound * (2.0 * uniform() - 1.0)).collect()
            }
            AdapterInitialization::Gaussian => {
                let standard_deviation = (rank as f32).recip();
                let mut source = RandomParameters { rng, standard_deviation, norm_weight: 1.0 };
                let Ok(a) = source.parameter("a", &[rank, input]);
                a
            }
        };
        Self { rank, a, b }
    }
}

impl LoraAdapter {
    /// An adapter without magnitude.
    pub(super) fn new(
        values: AdapterValues,
        [output, input]: [usize; 2],
        settings: AdapterSettings,
        device: &Device,
    ) -> Self {
        let AdapterValues { rank, a, b } = values;
        Self {
            a: Param::from_data(TensorData::new(a, [rank, input]), device),
            b: Param::from_data(TensorData::new(b, [output, rank]), device),
            magnitude: None,
            settings,
        }
    }

    /// Rank of the added matrix.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.a.lazy_shape()[0]
    }

    /// Factor on `B·A`.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.settings.scale
    }

    /// Which rows of `B` belong to which layer.
    #[must_use]
    pub fn layout(&self) -> OutputLayout {
        self.settings.layout
    }

    /// The layers' outputs with the adapter, still without their biases. `x`: `[tokens, in]`.
    ///
    /// ```text
    /// LoRA: x·Wᵀ + s·(x·Aᵀ)·Bᵀ
    /// DoRA: g · (x·Wᵀ + s·(x·Aᵀ)·Bᵀ), g = m/‖W + s·B·A‖, the norm without gradient
    /// ```
    ///
    /// With dropout, `DoRA` drops the same inputs of `W` where `g` differs from 1, as PEFT does:
    /// `x·Wᵀ + (g − 1)·(d·Wᵀ) + g·s·(d·Aᵀ)·Bᵀ` with `d = dropout(x)`.
    pub(crate) fn adapt(
        &self,
        x: &Tensor<2>,
        parts: Vec<AdaptedPart>,
        seed: Option<DropoutSeed>,
    ) -> Vec<Tensor<2>> {
        let AdapterSettings { scale, dropout: probability, stream, layout } = self.settings;
        let dropped =
            seed.filter(|_| probability > 0.0).map(|seed| dropout(x.clone(), probability, seed, stream));
        let input = dropped.as_ref().unwrap_or(x).clone();
        let low = input.matmul(self.a.val().cast(x.dtype()).transpose()) * scale; // [tokens, rank]
        let rows = layout.parts(self.b.val().cast(x.dtype()));
        let Some(magnitude) = &self.magnitude else {
            let adapted =
                |(part, b): (AdaptedPart, Tensor<2>)| part.output + low.clone().matmul(b.transpose());
            return parts.into_iter().zip(rows).map(adapted).collect();
        };
        let magnitudes = layout.parts(magnitude.val().cast(x.dtype()).unsqueeze_dim(1));
        let adapted = |((part, b), magnitude): ((AdaptedPart, Tensor<2>), Tensor<2>)| {
            let norm = row_norms(self.direction(part.weight.clone(), b.clone()));
            let gain = (magnitude / norm).transpose(); // [1, out]
            let delta = low.clone().matmul(b.transpose());
            match &dropped {
                None => (part.output + delta) * gain,
                Some(dropped) => {
                    let base = dropped.clone().matmul(part.weight.transpose());
                    part.output + base * (gain.clone() - 1.0) + delta * gain
                }
            }
        };
        parts.into_iter().zip(rows).zip(magnitudes).map(adapted).collect()
    }

    /// Whether it adds `s·B·A` to the weight of one layer and does nothing else.
    pub(crate) fn is_low_rank_sum(&self) -> bool {
        self.magnitude.is_none() && self.settings.layout == OutputLayout::Single
    }

    /// The way back from [`adapt`](Self::adapt), by formula. With `u = s·x·Aᵀ`, `y = … + u·Bᵀ`:
    ///
    /// ```text
    /// ∂B = ∂yᵀ·u        ∂u = s·∂y·B        ∂A = ∂uᵀ·x        ∂x = ∂u·A
    /// ```
    ///
    /// # Panics
    /// Unless the adapter [is a low-rank sum](Self::is_low_rank_sum).
    pub(crate) fn backward(
        &self,
        x: &Tensor<2>,
        gradient: &Tensor<2>,
        seed: Option<DropoutSeed>,
    ) -> AdapterGradients {
        assert!(self.is_low_rank_sum(), "the way back by formula is that of plain LoRA on one layer");
        let AdapterSettings { scale, dropout: probability, stream, .. } = self.settings;
        // The same entries are left out of `x` and of its gradient.
        let drop = |x: Tensor<2>| match seed.filter(|_| probability > 0.0) {
            Some(seed) => dropout(x, probability, seed, stream),
            None => x,
        };
        let [a, b] = [&self.a, &self.b].map(|matrix| matrix.val().without_autodiff().cast(x.dtype()));
        let input = drop(x.clone());
        let low = input.clone().matmul(a.clone().transpose()) * scale;
        let of_low = gradient.clone().matmul(b) * scale;
        AdapterGradients {
            a: of_low.clone().transpose().matmul(input).cast(DType::F32),
            b: gradient.clone().transpose().matmul(low).cast(DType::F32),
            x: drop(of_low.matmul(a)),
        }
    }

    /// The layers' weights with the adapter, without gradients.
    pub(super) fn merged(&self, weights: Vec<Tensor<2>>) -> Vec<Tensor<2>> {
        let layout = self.settings.layout;
        let directions: Vec<Tensor<2>> = weights
            .into_iter()
            .zip(layout.parts(self.b.val()))
            .map(|(weight, b)| self.direction(weight, b))
            .collect();
        let Some(magnitude) = &self.magnitude else { return directions };
        let magnitudes = layout.parts(magnitude.val().without_autodiff().unsqueeze_dim(1));
        let scaled = |(direction, magnitude): (Tensor<2>, Tensor<2>)| {
            direction.clone() * (magnitude / row_norms(direction))
        };
        directions.into_iter().zip(magnitudes).map(scaled).collect()
    }

    /// The magnitudes with which an adapter starts: those of the rows that it finds. `weights`: of each layer.
    pub(super) fn initial_magnitude(&self, weights: Vec<Tensor<2>>) -> Tensor<1> {
        let layout = self.settings.layout;
        let rows = weights.into_iter().zip(layout.parts(self.b.val()));
        layout.join(rows.map(|(weight, b)| row_norms(self.direction(weight, b)).squeeze_dim(1)).collect())
    }

    /// `W + s·B·A` without gradients, for the rows of one layer.
    fn direction(&self, weight: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
        let (weight, b) = (weight.without_autodiff(), b.without_autodiff());
        let a = self.a.val().without_autodiff().cast(b.dtype());
        weight + b.matmul(a) * self.settings.scale
    }
}

/// The length of every row, `[out, 1]`.
fn row_norms(weight: Tensor<2>) -> Tensor<2> {
    weight.powi_scalar(2).sum_dim(1).sqrt()
}
