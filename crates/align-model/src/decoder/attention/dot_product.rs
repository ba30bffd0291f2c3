//! Attention between its projections: softmax of scores, block by block of queries, and the way back by formula.
//!
//! The way back is written out because it needs less than what autodiff keeps of the way there: the weights, or nothing
//! but queries, keys and values.

use burn::tensor::{DType, Tensor, activation::softmax};

use super::{HeadShape, Projected};
use crate::decoder::{
    elementwise,
    mask::{AttentionPlan, Block, Run, blocks},
};

/// Scaled dot-product attention of one layer over one batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct DotProduct<'a> {
    pub(super) shape: &'a HeadShape,
    pub(super) plan: &'a AttentionPlan,
}

/// Queries, keys and values of a run, or gradients of them: `[sequences, heads, length, head_dim]`.
struct Parts {
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
}

impl DotProduct<'_> {
    /// Result `[tokens, heads · head_dim]`. `see` is shown the attention weights of each block of queries.
    pub(super) fn forward(self, projected: &Projected, mut see: impl FnMut(Tensor<4>)) -> Tensor<2> {
        let window = self.shape.layer.window;
        let mut mixed = Vec::with_capacity(self.plan.runs.len());
        for &run in &self.plan.runs {
            let parts = Parts::of(projected, run);
            let outputs = blocks(run.length, window).map(|block| {
                let Parts { query, key, value } = parts.block(block);
                let [n, heads, queries, width] = query.dims();
                let weights = self.shape.weights(query, key, self.plan.mask(block, window));
                see(weights.clone());
                weights.matmul(value).reshape([n, heads, queries, width])
            });
            mixed.push(side_by_side(join(outputs.collect(), 2)));
        }
        let [tokens, heads, width] = projected.query.dims();
        join(mixed, 0).reshape([tokens, heads * width])
    }

    /// Gradients of queries, keys and values. `gradient`, of the loss with respect to `mixed`, and `mixed`, what
    /// [`forward`](Self::forward) returned, are `[tokens, heads · head_dim]`. `kept`: the weights that it showed, in that
    /// order; none where they are to be computed again.
    ///
    /// With weights `P = softmax(S)`, `S = Q·Kᵀ` and output `O = P·V`:
    ///
    /// ```text
    /// ∂V = Pᵀ·∂O        ∂S = P ∘ (∂O·Vᵀ − rowsum(∂O ∘ O))        ∂Q = ∂S·K        ∂K = ∂Sᵀ·Q
    /// ```
    pub(super) fn backward(
        self,
        projected: &Projected,
        mixed: Tensor<2>,
        gradient: Tensor<2>,
        kept: Vec<Tensor<4>>,
    ) -> Projected {
        let size = projected.query.dims();
        let gradient = gradient.reshape(size);
        let outward = gradient.clone().cast(DType::F32) * mixed.reshape(size).cast(DType::F32);
        let outward = outward.sum_dim(2);
        let (mut kept, mut parts) = (kept.into_iter(), Vec::with_capacity(self.plan.runs.len()));
        for &run in &self.plan.runs {
            let (gradient, outward) = (take(&gradient, run), take(&outward, run));
            parts.push(self.run_backward(Parts::of(projected, run), gradient, outward, &mut kept));
        }
        let whole = |part: fn(&Parts) -> &Tensor<4>| {
            join(parts.iter().map(|parts| side_by_side(part(parts).clone())).collect(), 0)
        };
        Projected { query: whole(|p| &p.query), key: whole(|p| &p.key), value: whole(|p| &p.value) }
    }

    fn run_backward(
        self,
        parts: Parts,
        gradient: Tensor<4>,
        outward: Tensor<4>,
        kept: &mut impl Iterator<Item = Tensor<4>>,
    ) -> Parts {
        let ([n, _, length, _], window) = (parts.query.dims(), self.shape.layer.window);
        let mut queries = Vec::new();
        let mut sums: Option<(Tensor<4>, Tensor<4>)> = None;
        for block in blocks(length, window) {
            let Parts { query, key, value } = parts.block(block);
            let (first, end) = block.queries;
            let cut = |x: &Tensor<4>| self.shape.stack(x.clone().narrow(2, first, end - first));
            let weights = kept.next().unwrap_or_else(|| {
                self.shape.weights(query.clone(), key.clone(), self.plan.mask(block, window))
            });
            let (gradient, dtype) = (cut(&gradient), query.dtype());
            let of_value = weights.clone().swap_dims(2, 3).matmul(gradient.clone());
            let of_weights = gradient.matmul(value.swap_dims(2, 3)).cast(DType::F32);
            let of_scores =
                elementwise::softmax_backward(weights.cast(DType::F32), of_weights, cut(&outward));
            let of_scores =
                of_scores.unwrap_or_else(|[weights, of_weights, along]| weights * (of_weights - along));
            let of_scores = of_scores.cast(dtype);
            let of_key = of_scores.clone().swap_dims(2, 3).matmul(self.shape.stack(query));
            let of_query = of_scores.matmul(key);
            queries.push(of_query.reshape([n, self.shape.heads, end - first, self.shape.head_dim]));
            sums = Some(add_at(sums, block.keys, length, (of_key, of_value)));
        }
        let (key, value) = sums.unwrap_or((parts.key, parts.value));
        Parts { query: join(queries, 2), key, value }
    }
}

impl Parts {
    fn of(projected: &Projected, run: Run) -> Self {
        let Projected { query, key, value } = projected;
        Self { query: take(query, run), key: take(key, run), value: take(value, run) }
    }

    /// The queries of a block and the keys and values that they see.
    fn block(&self, block: Block) -> Self {
        let cut = |x: &Tensor<4>, (first, end): (usize, usize)| x.clone().narrow(2, first, end - first);
        Self {
            query: cut(&self.query, block.queries),
            key: cut(&self.key, block.keys),
            value: cut(&self.value, block.keys),
        }
    }
}

impl HeadShape {
    /// The query heads that share a key head laid below each other, so that keys and values are never copied:
    /// `[n, heads, queries, …]` → `[n, kv_heads, heads / kv_heads · queries, …]`.
    pub(super) fn stack(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, heads, queries, width] = x.dims();
        x.reshape([n, self.kv_heads, heads / self.kv_heads * queries, width])
    }

    /// `softmax(q·kᵀ + mask)`, the softmax in f32. `query`: `[n, heads, queries, head_dim]`; `key`:
    /// `[n, kv_heads, keys, head_dim]`; result [stacked](Self::stack), `[n, kv_heads, …, keys]`.
    pub(super) fn weights(&self, query: Tensor<4>, key: Tensor<4>, mask: Option<Tensor<4>>) -> Tensor<4> {
        let ([n, heads, queries, _], keys, dtype) = (query.dims(), key.dims()[2], query.dtype());
        let scores = self.stack(query).matmul(key.swap_dims(2, 3)).cast(DType::F32);
        let scores = match elementwise::softmax(scores, mask.as_ref(), queries) {
            Ok(weights) => return weights.cast(dtype),
            Err(scores) => scores,
        };
        let scores = match mask {
            Some(mask) => scores.reshape([n, heads, queries, keys]) + mask,
            None => scores,
        };
        self.stack(softmax(scores.reshape([n, heads, queries, keys]), 3)).cast(dtype)
    }
}

/// Adds a block's gradients of keys and values to those of the whole run.
fn add_at(
    sums: Option<(Tensor<4>, Tensor<4>)>,
    (first, end): (usize, usize),
    length: usize,
    (key, value): (Tensor<4>, Tensor<4>),
) -> (Tensor<4>, Tensor<4>) {
    if first == 0 && end == length && sums.is_none() {
        return (key, value);
    }
    let [n, heads, _, width] = key.dims();
    let (keys, values) = sums.unwrap_or_else(|| {
        let zeros = || Tensor::zeros([n, heads, length, width], (&key.device(), key.dtype()));
        (zeros(), zeros())
    });
    let add = |sum: Tensor<4>, part: Tensor<4>| {
        let part = sum.clone().narrow(2, first, end - first) + part;
        sum.slice_assign([0..n, 0..heads, first..end, 0..width], part)
    };
    (add(keys, key), add(values, value))
}

/// A run's part of `[tokens, heads, width]`, as `[sequences, heads, length, width]`.
fn take(x: &Tensor<3>, run: Run) -> Tensor<4> {
    let Run { start, sequences, length } = run;
    let ([tokens, heads, width], count) = (x.dims(), sequences * length);
    let part = if count == tokens { x.clone() } else { x.clone().narrow(0, start, count) };
    part.reshape([sequences, length, heads, width]).swap_dims(1, 2)
}

/// `[sequences, heads, length, width]` → `[tokens, heads, width]`.
fn side_by_side(x: Tensor<4>) -> Tensor<3> {
    let [sequences, heads, length, width] = x.dims();
    x.swap_dims(1, 2).reshape([sequences * length, heads, width])
}

fn join<const D: usize>(mut parts: Vec<Tensor<D>>, dimension: usize) -> Tensor<D> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, dimension) }
}
