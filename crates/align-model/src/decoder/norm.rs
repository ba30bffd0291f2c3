//! Normalisation over the last dimension.

use burn::{
    module::{Module, Param},
    optim::GradientsParams,
    tensor::{DType, Tensor},
};

use super::{
    config::NormConfig,
    elementwise,
    parameters::{Builder, ParameterSource},
};

use crate::causal_lm::{add_gradient, backward_through, plain};

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

    /// The gradient of `x`; those of the parameters are added to `gradients`. `x` and `gradient`, of the loss with respect
    /// to the result: plain tensors.
    pub(super) fn backward<const D: usize>(
        &self,
        x: Tensor<D>,
        gradient: Tensor<D>,
        gradients: &mut GradientsParams,
    ) -> Tensor<D> {
        let weight = plain(self.weight.val());
        if let Some((of_x, of_weight)) = elementwise::norm_backward(self.config, &x, &weight, &gradient) {
            if self.weight.is_require_grad() {
                add_gradient(gradients, &self.weight, of_weight);
            }
            return of_x;
        }
        let forward = |x| match gradient.dtype() {
            DType::F32 => self.forward_wide(x),
            dtype => self.forward_wide(x).cast(dtype),
        };
        let [of_x] = backward_through(self, [x], |[x]| [(forward(x), gradient.clone())], gradients);
        of_x
    }

    /// As [`forward`](Self::forward), with the result in f32.
    pub(super) fn forward_wide<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if !x.is_autodiff()
            && let Some(normed) = elementwise::norm(self.config, &x, &self.weight.val())
        {
            return normed;
        }
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
