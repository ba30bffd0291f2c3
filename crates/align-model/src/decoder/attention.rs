//! Grouped-query attention over sequences laid end to end, and over cached keys.

mod dot_product;

use burn::{
    module::Module,
    tensor::{DType, Tensor},
};

use super::{
    config::{AttentionBias, DecoderConfig, LayerConfig},
    linear::Linear,
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

impl Projected {
    pub(super) fn map(self, change: impl Fn(Tensor<3>) -> Tensor<3>) -> Self {
        Self { query: change(self.query), key: change(self.key), value: change(self.value) }
    }

    /// Pairs of its parts and another's.
    pub(super) fn zip(self, other: Self) -> [(Tensor<3>, Tensor<3>); 3] {
        [(self.query, other.query), (self.key, other.key), (self.value, other.value)]
    }

    /// Whether any part has a graph.
    pub(super) fn is_tracked(&self) -> bool {
        self.query.is_tracked() || self.key.is_tracked() || self.value.is_tracked()
    }
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
        let HeadShape { heads, kv_heads, head_dim, ref layer } = self.shape;
        let [tokens, _] = x.dims();
        let layers = [&self.query, &self.key, &self.value];
        let [query, key, value] = Linear::forward_together(layers, self.adapter.as_ref(), &x, pass);
        let mut query = query.reshape([tokens, heads, head_dim]);
        let mut key = key.reshape([tokens, kv_heads, head_dim]);
        let value = value.reshape([tokens, kv_heads, head_dim]);
        if let (Some(query_norm), Some(key_norm)) = (&self.query_norm, &self.key_norm) {
            (query, key) = (query_norm.forward(query), key_norm.forward(key));
        }
        let dtype = query.dtype();
        if let Some(rotation) = rotation {
            (query, key) = (rotation.apply(query.cast(DType::F32)), rotation.apply(key.cast(DType::F32)));
        }
        // Scaling the queries costs less than scaling the scores.
        Projected { query: (query * layer.attention_scale).cast(dtype), key: key.cast(dtype), value }
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
