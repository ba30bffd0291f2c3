//! A linear layer in PyTorch's weight layout.

use burn::{
    module::{Module, Param},
    optim::GradientsParams,
    tensor::{DType, Tensor},
};

use super::{
    parameters::{Builder, ParameterSource},
    pass::Pass,
    product::with_transposed,
    weight::Weight,
};
use crate::{
    adapter::{AdaptedPart, AdapterGradients, LoraAdapter},
    causal_lm::{add_gradient, backward_through, leading_rows, plain},
};

/// Whether the gradient of what a layer or a block reads is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Needed,
    NotNeeded,
}

/// What a layer is told on the way back.
pub(super) struct WayBack<'a> {
    pub(super) pass: Pass,
    pub(super) input: Input,
    pub(super) gradients: &'a mut GradientsParams,
}

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

    /// The layer with the first of its outputs alone. It has no adapter.
    pub(super) fn with_outputs(self, outputs: usize) -> Self {
        assert!(self.adapter.is_none(), "a layer with an adapter keeps all of its outputs");
        Self {
            weight: Weight::Full(Param::from_tensor(leading_rows(self.weight.val(), outputs))),
            bias: self.bias.map(|bias| bias.map(|bias| leading_rows(bias, outputs))),
            adapter: None,
        }
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

    /// The gradient of `x`, if it is needed; those of the parameters are added. `x` and `gradient`, of the loss with
    /// respect to the result, are plain tensors.
    pub(super) fn backward(&self, x: &Tensor<2>, gradient: Tensor<2>, way: WayBack<'_>) -> Option<Tensor<2>> {
        if self.adapter.as_ref().is_some_and(|adapter| !adapter.is_low_rank_sum()) {
            let forward = |[x]: [Tensor<2>; 1]| [(self.forward(x, way.pass), gradient.clone())];
            let [of_x] = backward_through(self, [x.clone()], forward, way.gradients);
            return Some(of_x);
        }
        if let Some(bias) = self.bias.as_ref().filter(|bias| bias.is_require_grad()) {
            let of_bias = gradient.clone().cast(DType::F32).sum_dim(0).squeeze_dim(0);
            add_gradient(way.gradients, bias, of_bias);
        }
        if let Weight::Full(weight) = &self.weight
            && weight.is_require_grad()
        {
            let of_weight = gradient.clone().transpose().matmul(x.clone()).cast(DType::F32);
            add_gradient(way.gradients, weight, of_weight);
        }
        let of_input = self.adapter.as_ref().map(|adapter| {
            let AdapterGradients { a, b, x } = adapter.backward(x, &gradient, way.pass.dropout);
            for (parameter, gradient) in [(&adapter.a, a), (&adapter.b, b)] {
                if parameter.is_require_grad() {
                    add_gradient(way.gradients, parameter, gradient);
                }
            }
            x
        });
        if way.input == Input::NotNeeded {
            return None;
        }
        let of_x = gradient.clone().matmul(plain(self.weight.val()).cast(gradient.dtype()));
        Some(match of_input {
            Some(of_input) => of_x + of_input,
            None => of_x,
        })
    }

    /// The way back from [`forward_together`](Self::forward_together).
    pub(super) fn backward_together<const N: usize>(
        layers: [&Self; N],
        adapter: Option<&LoraAdapter>,
        x: &Tensor<2>,
        gradient: [Tensor<2>; N],
        way: WayBack<'_>,
    ) -> Option<Tensor<2>> {
        let WayBack { pass, input, gradients } = way;
        if adapter.is_none() {
            let each = layers.into_iter().zip(gradient);
            let of_x = each.map(|(layer, gradient)| {
                layer.backward(x, gradient, WayBack { pass, input, gradients: &mut *gradients })
            });
            return of_x.reduce(|sum, part| Some(sum? + part?)).flatten();
        }
        let module: (Vec<Self>, Option<LoraAdapter>) =
            (layers.iter().map(|layer| (*layer).clone()).collect(), adapter.cloned());
        let forward = |[x]: [Tensor<2>; 1]| {
            let outputs = Self::forward_together(layers, adapter, &x, pass);
            outputs.into_iter().zip(gradient.iter().cloned()).collect::<Vec<_>>()
        };
        let [of_x] = backward_through(&module, [x.clone()], forward, gradients);
        Some(of_x)
    }

    fn without_bias(&self, x: &Tensor<2>) -> AdaptedPart {
        let weight = self.weight.val().cast(x.dtype());
        AdaptedPart { output: with_transposed(x.clone(), weight.clone()), weight }
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
