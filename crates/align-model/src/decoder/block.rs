//! One block of the decoder: attention and feed-forward around the residual stream.

mod open;

use burn::{module::Module, tensor::Tensor};

use super::{
    attention::{Attention, Projected},
    config::{DecoderConfig, LayerConfig, NormPlacement, Residual},
    linear::Linear,
    mlp::Mlp,
    norm::Norm,
    parameters::{Builder, ParameterSource},
    pass::Pass,
    rope::Rotation,
};

pub(super) use open::{OpenBlock, Surroundings, trains};

/// A decoder block.
#[derive(Module, Debug)]
pub struct Block {
    /// Before attention.
    pub attention_norm: Norm,
    /// Self-attention.
    pub attention: Attention,
    /// On attention's output, where the family has one.
    pub attention_post_norm: Option<Norm>,
    /// Before the feed-forward block.
    pub mlp_norm: Norm,
    /// Feed-forward.
    pub mlp: Mlp,
    /// On the feed-forward block's output, where the family has one.
    pub mlp_post_norm: Option<Norm>,
    #[module(skip)]
    residual: Residual,
}

impl Block {
    pub(super) fn build<S: ParameterSource>(
        builder: &mut Builder<'_, S>,
        config: &DecoderConfig,
        layer: &LayerConfig,
    ) -> Result<Self, S::Error> {
        let norm = |builder: &mut Builder<'_, S>, field: &str| {
            builder.within(field, |b| Norm::build(b, config.norm, config.hidden_size))
        };
        let sandwich = config.norm_placement == NormPlacement::Sandwich;
        Ok(Self {
            attention_norm: norm(builder, "attention_norm")?,
            attention: builder.within("attention", |b| Attention::build(b, config, layer))?,
            attention_post_norm: if sandwich { Some(norm(builder, "attention_post_norm")?) } else { None },
            mlp_norm: norm(builder, "mlp_norm")?,
            mlp: builder.within("mlp", |b| Mlp::build(b, config))?,
            mlp_post_norm: if sandwich { Some(norm(builder, "mlp_post_norm")?) } else { None },
            residual: config.residual,
        })
    }

    /// Every linear layer.
    pub(super) fn linear_layers(&self) -> Vec<&Linear> {
        let Attention { query, key, value, output, .. } = &self.attention;
        let Mlp { gate, up, down, .. } = &self.mlp;
        [query, key, value, output, up, down].into_iter().chain(gate).collect()
    }

    /// Every linear layer.
    pub(super) fn linear_layers_mut(&mut self) -> Vec<&mut Linear> {
        let Attention { query, key, value, output, .. } = &mut self.attention;
        let Mlp { gate, up, down, .. } = &mut self.mlp;
        [query, key, value, output, up, down].into_iter().chain(gate).collect()
    }

    /// `x` and the result: `[tokens, hidden]`. `attend` mixes projected values, with or without
    /// a cache.
    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        rotation: Option<&Rotation>,
        pass: Pass,
        attend: impl FnOnce(&Attention, Projected) -> Tensor<2>,
    ) -> Tensor<2> {
        let projected = self.attention.project(self.attention_norm.forward(x.clone()), rotation, pass);
        let mixed = attend(&self.attention, projected);
        let attended = self.attention.output.forward(mixed, pass);
        let attended = after(self.attention_post_norm.as_ref(), attended);
        match self.residual {
            Residual::Sequential => {
                let x = x + attended;
                x.clone()
                    + after(self.mlp_post_norm.as_ref(), self.mlp.forward(self.mlp_norm.forward(x), pass))
            }
            Residual::Parallel => x.clone() + attended + self.mlp.forward(self.mlp_norm.forward(x), pass),
        }
    }
}

fn after(norm: Option<&Norm>, x: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}
