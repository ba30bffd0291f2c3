//! The feed-forward block.

use burn::{
    module::Module,
    tensor::{
        Tensor,
        activation::{gelu, gelu_approximate, relu, silu},
    },
};

use super::{
    config::{Activation, DecoderConfig, MlpKind},
    linear::Linear,
    parameters::{Builder, ParameterSource},
    pass::Pass,
};

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
        let up = self.up.forward(x.clone(), pass);
        let inner = match &self.gate {
            Some(gate) => self.activation.apply(gate.forward(x, pass)) * up,
            None => self.activation.apply(up),
        };
        self.down.forward(inner, pass)
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
