//! A linear layer in PyTorch's weight layout.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use super::{
    parameters::{Builder, ParameterSource},
    pass::Pass,
    weight::Weight,
};
use crate::adapter::{AdaptedPart, LoraAdapter};

/// `y = x·Wᵀ + b`, and what an adapter adds to it.
///
/// The weight is `[out, in]` as in every Hugging Face checkpoint, so loading and saving copy bytes and gradients carry
/// the shapes that other tools expect.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Weight,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// What is trained instead of the weight.
    pub adapter: Option<LoraAdapter>,
}

impl Linear {
    pub(super) fn build<S: ParameterSource>(
        builder: &mut Builder<'_, S>,
        [input, output]: [usize; 2],
        bias: bool,
    ) -> Result<Self, S::Error> {
        Ok(Self {
            weight: Weight::Full(builder.parameter("weight", [output, input])?),
            bias: if bias { Some(builder.parameter("bias", [output])?) } else { None },
            adapter: None,
        })
    }

    /// `x`: `[tokens, in]`; result: `[tokens, out]`.
    pub(super) fn forward(&self, x: Tensor<2>, pass: Pass) -> Tensor<2> {
        let part = self.without_bias(&x);
        let Some(adapter) = &self.adapter else { return self.with_bias(part.output) };
        let parts = adapter.adapt(&x, vec![part], pass.dropout);
        let [output] = parts.try_into().unwrap_or_else(|_| unreachable!("one part goes in, one comes out"));
        self.with_bias(output)
    }

    /// Layers that read the same `x`, `[tokens, in]`, under one adapter of all their outputs laid side by side. Results:
    /// `[tokens, out]` each.
    pub(super) fn forward_together<const N: usize>(
        layers: [&Self; N],
        adapter: Option<&LoraAdapter>,
        x: &Tensor<2>,
        pass: Pass,
    ) -> [Tensor<2>; N] {
        let Some(adapter) = adapter else { return layers.map(|layer| layer.forward(x.clone(), pass)) };
        let parts = layers.iter().map(|layer| layer.without_bias(x)).collect();
        let mut outputs = adapter.adapt(x, parts, pass.dropout).into_iter();
        layers.map(|layer| {
            let Some(output) = outputs.next() else { unreachable!("an adapter returns every part") };
            layer.with_bias(output)
        })
    }

    fn without_bias(&self, x: &Tensor<2>) -> AdaptedPart {
        let weight = self.weight.val().cast(x.dtype());
        AdaptedPart { output: x.clone().matmul(weight.clone().transpose()), weight }
    }

    fn with_bias(&self, y: Tensor<2>) -> Tensor<2> {
        match &self.bias {
            Some(bias) => {
                let bias = bias.val().cast(y.dtype()).unsqueeze();
                y + bias
            }
            None => y,
        }
    }
}
