//! Normalisation over the last dimension.

use burn::{
    module::{Module, Param},
    tensor::{DType, Tensor},
};

use super::{
    config::NormConfig,
    parameters::{Builder, ParameterSource},
};

/// RMS or layer normalisation, as [`NormConfig`] says.
#[derive(Module, Debug)]
pub struct Norm {
    /// `[width]`
    pub weight: Param<Tensor<1>>,
    /// `[width]`, of layer normalisation alone
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    config: NormConfig,
}

impl Norm {
    pub(super) fn build<S: ParameterSource>(
        builder: &mut Builder<'_, S>,
        config: NormConfig,
        width: usize,
    ) -> Result<Self, S::Error> {
        let weight = builder.parameter("weight", [width])?;
        let bias = match config {
            NormConfig::Layer { .. } => Some(builder.parameter("bias", [width])?),
            _ => None,
        };
        Ok(Self { weight, bias, config })
    }

    /// `x` and the result: `[…, width]`, in one data type; what lies between is f32.
    #[must_use]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let dtype = x.dtype();
        self.forward_wide(x).cast(dtype)
    }

    /// As [`forward`](Self::forward), with the result in f32.
    pub(super) fn forward_wide<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (x, weight) = (x.cast(DType::F32), self.weight.val().unsqueeze::<D>());
        match self.config {
            NormConfig::Rms { epsilon } => rms(x, epsilon) * weight,
            NormConfig::RmsPlusOne { epsilon } => rms(x, epsilon) * (weight + 1.0),
            NormConfig::Layer { epsilon } => {
                let centred = x.clone() - x.mean_dim(D - 1);
                let normed = rms(centred, epsilon) * weight;
                self.bias.as_ref().map_or(normed.clone(), |bias| normed + bias.val().unsqueeze())
            }
        }
    }
}

/// `x / √(mean(x²) + ε)` over the last dimension.
fn rms<const D: usize>(x: Tensor<D>, epsilon: f64) -> Tensor<D> {
    let mean_square = x.clone().square().mean_dim(D - 1);
    x * (mean_square + epsilon).sqrt().recip()
}
