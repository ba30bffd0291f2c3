//! Grouped-query attention over sequences laid end to end, and over cached keys.

use burn::{
    module::Module,
    tensor::{Tensor, activation::softmax},
};

use super::{
    config::{AttentionBias, DecoderConfig, LayerConfig},
    linear::Linear,
    mask::{AttentionPlan, Block, Run, blocks},
    norm::Norm,
    parameters::{Builder, ParameterSource},
    pass::Pass,
    rope::Rotation,
};
use crate::adapter::LoraAdapter;

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
#[derive(Debug)]
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
        if let Some(rotation) = rotation {
            (query, key) = (rotation.apply(query), rotation.apply(key));
        }
        // Scaling the queries costs less than scaling the scores.
        Projected { query: query * layer.attention_scale, key, value }
    }

    /// Attention inside each sequence. Result `[tokens, heads · head_dim]`, for [`Self::output`].
    pub(super) fn attend(&self, projected: Projected, plan: &AttentionPlan) -> Tensor<2> {
        let mut parts: Vec<Tensor<2>> =
            plan.runs.iter().map(|&run| self.attend_run(&projected, run, plan)).collect();
        if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) }
    }

    /// Attention of sequences of one length. Result `[sequences · length, heads · head_dim]`.
    fn attend_run(&self, projected: &Projected, run: Run, plan: &AttentionPlan) -> Tensor<2> {
        let Run { start, sequences, length } = run;
        let take = |x: &Tensor<3>| -> Tensor<4> {
            let [tokens, heads, width] = x.dims();
            let count = sequences * length;
            let part = if count == tokens { x.clone() } else { x.clone().narrow(0, start, count) };
            part.reshape([sequences, length, heads, width]).swap_dims(1, 2)
        };
        let (query, key, value) = (take(&projected.query), take(&projected.key), take(&projected.value));
        let window = self.window();
        let mut outputs: Vec<Tensor<4>> = blocks(length, window)
            .map(|block| {
                let Block { queries: (first, end), keys: (oldest, _) } = block;
                let query = query.clone().narrow(2, first, end - first);
                let key = key.clone().narrow(2, oldest, end - oldest);
                let value = value.clone().narrow(2, oldest, end - oldest);
                self.mix(query, key, value, plan.mask(block, window))
            })
            .collect();
        let mixed = if outputs.len() == 1 { outputs.remove(0) } else { Tensor::cat(outputs, 2) };
        mixed.swap_dims(1, 2).reshape([sequences * length, self.shape.heads * self.shape.head_dim])
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
        let mixed = self.mix(query.unsqueeze_dim(2), key, value, mask);
        mixed.reshape([rows, heads * width])
    }

    /// `softmax(q·kᵀ + mask)·v`. `query`: `[n, heads, queries, head_dim]`; `key`, `value`: `[n, kv_heads, keys, head_dim]`.
    ///
    /// The query heads that share a key head are laid below each other, so keys and values are never copied.
    fn mix(&self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, mask: Option<Tensor<4>>) -> Tensor<4> {
        let HeadShape { heads, kv_heads, head_dim, .. } = self.shape;
        let ([n, _, queries, _], [_, _, keys, _]) = (query.dims(), key.dims());
        let stacked = heads / kv_heads * queries;
        let scores = query.reshape([n, kv_heads, stacked, head_dim]).matmul(key.swap_dims(2, 3));
        let scores = scores.reshape([n, heads, queries, keys]);
        let scores = match mask {
            Some(mask) => scores + mask,
            None => scores,
        };
        let weights = softmax(scores, 3).reshape([n, kv_heads, stacked, keys]);
        weights.matmul(value).reshape([n, heads, queries, head_dim])
    }
}
