//! A linear layer in PyTorch's weight layout.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use super::{
    parameters::{Builder, ParameterSource},
    pass::Pass,
};

/// `y = x·Wᵀ + b`.
///
/// The weight is `[out, in]` as in every Hugging Face checkpoint, so loading and saving copy bytes and gradients carry
/// the shapes that other tools expect.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    pub(super) fn build<S: ParameterSource>(
        builder: &mut Builder<'_, S>,
        [input, output]: [usize; 2],
        bias: bool,
    ) -> Result<Self, S::Error> {
        Ok(Self {
            weight: builder.parameter("weight", [output, input])?,
            bias: if bias { Some(builder.parameter("bias", [output])?) } else { None },
        })
    }

    /// `x`: `[tokens, in]`; result: `[tokens, out]`.
    pub(super) fn forward(&self, x: Tensor<2>, _pass: Pass) -> Tensor<2> {
        let weight = self.weight.val().cast(x.dtype());
        let y = x.matmul(weight.transpose());
        match &self.bias {
            Some(bias) => {
                let bias = bias.val().cast(y.dtype());
                y + bias.unsqueeze()
            }
            None => y,
        }
    }
}
