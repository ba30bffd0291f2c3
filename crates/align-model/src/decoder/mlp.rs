//! The feed-forward block.

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{
        Tensor,
        activation::{gelu, gelu_approximate, relu, silu},
    },
};

use super::{
    config::{Activation, DecoderConfig, MlpKind},
    elementwise,
    linear::Linear,
    parameters::{Builder, ParameterSource},
    pass::Pass,
};

use crate::causal_lm::backward_through;

/// Feed-forward block, gated or plain.
#[derive(Module, Debug)]
pub struct Mlp {
    /// Of gated blocks alone: hidden → intermediate.
    pub gate: Option<Linear>,
    /// hidden → intermediate
    pub up: Linear,
    /// intermediate → hidden
    pub down: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    pub(super) fn build<S: ParameterSource>(
        builder: &mut Builder<'_, S>,
        config: &DecoderConfig,
    ) -> Result<Self, S::Error> {
        let (hidden, inner, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
        let gate = match config.mlp {
            MlpKind::Gated => Some(builder.within("gate", |b| Linear::build(b, [hidden, inner], bias))?),
            MlpKind::Plain => None,
        };
        Ok(Self {
            gate,
            up: builder.within("up", |b| Linear::build(b, [hidden, inner], bias))?,
            down: builder.within("down", |b| Linear::build(b, [inner, hidden], bias))?,
            activation: config.activation,
        })
    }

    /// `x` and the result: `[tokens, hidden]`.
    pub(super) fn forward(&self, x: Tensor<2>, pass: Pass) -> Tensor<2> {
        let (gate, up) = self.project(&x, pass);
        self.down.forward(self.mix(gate, up), pass)
    }

    /// Gate, where there is one, and up, `[tokens, intermediate]`.
    pub(super) fn project(&self, x: &Tensor<2>, pass: Pass) -> (Option<Tensor<2>>, Tensor<2>) {
        let gate = self.gate.as_ref().map(|gate| gate.forward(x.clone(), pass));
        (gate, self.up.forward(x.clone(), pass))
    }

    /// What [`down`](Self::down) reads.
    pub(super) fn mix(&self, gate: Option<Tensor<2>>, up: Tensor<2>) -> Tensor<2> {
        let Some(gate) = gate else { return self.activation.apply(up) };
        let mixed = match self.activation {
            Activation::Silu => elementwise::gated_silu(&gate, &up),
            _ => None,
        };
        mixed.unwrap_or_else(|| self.activation.apply(gate) * up)
    }

    /// The gradients of what [`mix`](Self::mix) was given.
    pub(super) fn mix_backward(
        &self,
        gate: Option<Tensor<2>>,
        up: Tensor<2>,
        gradient: Tensor<2>,
    ) -> (Option<Tensor<2>>, Tensor<2>) {
        // There are no parameters in it.
        let none = &mut GradientsParams::new();
        let Some(gate) = gate else {
            let [of_up] = backward_through(self, [up], |[up]| [(self.mix(None, up), gradient.clone())], none);
            return (None, of_up);
        };
        let given = match self.activation {
            Activation::Silu => elementwise::gated_silu_backward(gate, up, gradient),
            _ => Err([gate, up, gradient]),
        };
        let [of_gate, of_up] = given.unwrap_or_else(|[gate, up, gradient]| {
            let mix = |[gate, up]: [Tensor<2>; 2]| [(self.mix(Some(gate), up), gradient.clone())];
            backward_through(self, [gate, up], mix, none)
        });
        (Some(of_gate), of_up)
    }
}

impl Activation {
    fn apply(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Silu => silu(x),
            Self::Gelu => gelu(x),
            Self::GeluTanh => gelu_approximate(x),
            Self::Relu => relu(x),
        }
    }
}
