//! Grouped-query attention over sequences laid end to end, and over cached keys.

mod dot_product;

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{DType, Tensor},
};

use super::{
    config::{AttentionBias, DecoderConfig, LayerConfig},
    linear::{Linear, WayBack},
    mask::AttentionPlan,
    norm::Norm,
    parameters::{Builder, ParameterSource},
    pass::Pass,
    rope::Rotation,
};
use crate::adapter::LoraAdapter;
use dot_product::DotProduct;

/// Self-attention of one block.
#[derive(Module, Debug)]
pub struct Attention {
    /// hidden → heads · `head_dim`
    pub query: Linear,
    /// hidden → `kv_heads` · `head_dim`
    pub key: Linear,
    /// hidden → `kv_heads` · `head_dim`
    pub value: Linear,
    /// heads · `head_dim` → hidden
    pub output: Linear,
    /// Normalises each query head, where the family does that.
    pub query_norm: Option<Norm>,
    /// Normalises each key head.
    pub key_norm: Option<Norm>,
    /// On query, key and value together, where checkpoints keep these as one matrix.
    pub adapter: Option<LoraAdapter>,
    #[module(skip)]
    shape: HeadShape,
}

#[derive(Debug, Clone)]
struct HeadShape {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    layer: LayerConfig,
}

/// Queries, keys and values, rotated: `[tokens, heads, head_dim]`, keys and values with `kv_heads`.
#[derive(Debug, Clone)]
pub(super) struct Projected {
    pub(super) query: Tensor<3>,
    pub(super) key: Tensor<3>,
    pub(super) value: Tensor<3>,
}

impl Attention {
    pub(super) fn build<S: ParameterSource>(
        builder: &mut Builder<'_, S>,
        config: &DecoderConfig,
        layer: &LayerConfig,
    ) -> Result<Self, S::Error> {
        let (hidden, width) = (config.hidden_size, config.heads * config.head_dim);
        let kv_width = config.kv_heads * config.head_dim;
        let bias = config.attention_bias != AttentionBias::None;
        let output_bias = config.attention_bias == AttentionBias::All;
        let norm = |field: &str, builder: &mut Builder<'_, S>| {
            let build = |b: &mut Builder<'_, S>| Norm::build(b, config.norm, config.head_dim);
            if config.qk_norm { builder.within(field, build).map(Some) } else { Ok(None) }
        };
        Ok(Self {
            query_norm: norm("query_norm", builder)?,
            key_norm: norm("key_norm", builder)?,
            query: builder.within("query", |b| Linear::build(b, [hidden, width], bias))?,
            key: builder.within("key", |b| Linear::build(b, [hidden, kv_width], bias))?,
            value: builder.within("value", |b| Linear::build(b, [hidden, kv_width], bias))?,
            output: builder.within("output", |b| Linear::build(b, [width, hidden], output_bias))?,
            adapter: None,
            shape: HeadShape {
                heads: config.heads,
                kv_heads: config.kv_heads,
                head_dim: config.head_dim,
                layer: layer.clone(),
            },
        })
    }

    /// The rotary variant that this layer uses.
    pub(super) fn rope(&self) -> usize {
        self.shape.layer.rope
    }

    /// How far back this layer sees.
    pub(super) fn window(&self) -> Option<usize> {
        self.shape.layer.window
    }

    /// `x`: `[tokens, hidden]`.
    pub(super) fn project(&self, x: Tensor<2>, rotation: Option<&Rotation>, pass: Pass) -> Projected {
        self.turn(self.read(&x, pass), rotation)
    }

    /// Queries, keys and values as the linear layers make them. `x`: `[tokens, hidden]`.
    pub(super) fn read(&self, x: &Tensor<2>, pass: Pass) -> Projected {
        let HeadShape { heads, kv_heads, head_dim, .. } = self.shape;
        let [tokens, _] = x.dims();
        let [query, key, value] = Linear::forward_together(self.readers(), self.adapter.as_ref(), x, pass);
        Projected {
            query: query.reshape([tokens, heads, head_dim]),
            key: key.reshape([tokens, kv_heads, head_dim]),
            value: value.reshape([tokens, kv_heads, head_dim]),
        }
    }

    /// Normalises, rotates and scales what was [`read`](Self::read).
    pub(super) fn turn(&self, read: Projected, rotation: Option<&Rotation>) -> Projected {
        let Projected { mut query, mut key, value } = read;
        if let (Some(query_norm), Some(key_norm)) = (&self.query_norm, &self.key_norm) {
            (query, key) = (query_norm.forward(query), key_norm.forward(key));
        }
        // Scaling the queries costs less than scaling the scores.
        let (dtype, scale) = (query.dtype(), self.shape.layer.attention_scale);
        match rotation {
            Some(rotation) => Projected {
                query: rotation.apply_scaled(query.cast(DType::F32), scale).cast(dtype),
                key: rotation.apply(key.cast(DType::F32)).cast(dtype),
                value,
            },
            None => Projected { query: (query * scale).cast(dtype), key, value },
        }
    }

    /// The gradients of what was [`read`](Self::read); `before_norms` is that, where there are norms.
    pub(super) fn turn_backward(
        &self,
        before_norms: Option<Projected>,
        gradient: Projected,
        rotation: Option<&Rotation>,
        gradients: &mut GradientsParams,
    ) -> Projected {
        let Projected { mut query, mut key, value } = gradient;
        let (dtype, scale) = (query.dtype(), self.shape.layer.attention_scale);
        (query, key) = match rotation {
            Some(rotation) => (
                rotation.backward(query.cast(DType::F32), scale).cast(dtype),
                rotation.backward(key.cast(DType::F32), 1.0).cast(dtype),
            ),
            None => (query * scale, key),
        };
        if let (Some(query_norm), Some(key_norm), Some(before)) =
            (&self.query_norm, &self.key_norm, before_norms)
        {
            query = query_norm.backward(before.query, query, gradients);
            key = key_norm.backward(before.key, key, gradients);
        }
        Projected { query, key, value }
    }

    /// The gradient of `x` that was [`read`](Self::read), if it is needed.
    pub(super) fn read_backward(
        &self,
        x: &Tensor<2>,
        gradient: Projected,
        way: WayBack<'_>,
    ) -> Option<Tensor<2>> {
        let tokens = x.dims()[0];
        let flat = |gradient: Tensor<3>| {
            let [_, heads, width] = gradient.dims();
            gradient.reshape([tokens, heads * width])
        };
        let gradient = [flat(gradient.query), flat(gradient.key), flat(gradient.value)];
        Linear::backward_together(self.readers(), self.adapter.as_ref(), x, gradient, way)
    }

    /// Whether there are norms of single heads.
    pub(super) fn norms_heads(&self) -> bool {
        self.query_norm.is_some()
    }

    fn readers(&self) -> [&Linear; 3] {
        [&self.query, &self.key, &self.value]
    }

    /// Attention inside each sequence. Result `[tokens, heads · head_dim]`, for [`Self::output`].
    pub(super) fn attend(&self, projected: &Projected, plan: &AttentionPlan) -> Tensor<2> {
        DotProduct { shape: &self.shape, plan }.forward(projected, |_| {})
    }

    /// As [`attend`](Self::attend), keeping what [`attend_backward`](Self::attend_backward) would otherwise compute again.
    pub(super) fn attend_keeping(
        &self,
        projected: &Projected,
        plan: &AttentionPlan,
    ) -> (Tensor<2>, Vec<Tensor<4>>) {
        let mut kept = Vec::new();
        let mixed = DotProduct { shape: &self.shape, plan }.forward(projected, |weights| kept.push(weights));
        (mixed, kept)
    }

    /// The way back from `mixed`, [`attend`](Self::attend)'s result, with the loss's gradient with respect to it.
    pub(super) fn attend_backward(
        &self,
        projected: &Projected,
        plan: &AttentionPlan,
        [mixed, gradient]: [Tensor<2>; 2],
        kept: Vec<Tensor<4>>,
    ) -> Projected {
        DotProduct { shape: &self.shape, plan }.backward(projected, mixed, gradient, kept)
    }

    /// One new token a row against that row's cached keys, the new one included. `query`: `[rows, heads, head_dim]`;
    /// `key`, `value`: `[rows, kv_heads, columns, head_dim]`; result `[rows, heads · head_dim]`, for [`Self::output`].
    pub(super) fn attend_cached(
        &self,
        query: Tensor<3>,
        key: Tensor<4>,
        value: Tensor<4>,
        mask: Option<Tensor<4>>,
    ) -> Tensor<2> {
        let [rows, heads, width] = query.dims();
        let weights = self.shape.weights(query.unsqueeze_dim(2), key, mask);
        weights.matmul(value).reshape([rows, heads * width])
    }
}
