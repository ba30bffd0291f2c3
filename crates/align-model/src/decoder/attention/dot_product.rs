//! Attention between its projections: softmax of scores, block by block of queries, and the way back by formula.
//!
//! The way back is written out because it needs less than what autodiff keeps of the way there: the weights, or nothing
//! but queries, keys and values.

use burn::tensor::{DType, Tensor, activation::softmax};

use super::{HeadShape, Projected};
use crate::decoder::{
    elementwise,
    mask::{AttentionPlan, Block, Run, Tokens},
};

/// Scaled dot-product attention of one layer over one batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct DotProduct<'a> {
    pub(super) shape: &'a HeadShape,
    pub(super) plan: &'a AttentionPlan,
}

/// Queries, keys and values of a run, or gradients of them: `[segments, heads, length, head_dim]`. Keys and values begin with
/// those of the prompt that is [before](Run::before) the run.
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
            let parts = Parts::of(projected, run, window);
            let outputs = run.blocks(window).map(|block| {
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
    ///
    /// A prompt's keys and values get the sum of what all its continuations give them and its own queries do.
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
        let (outward, window) = (outward.sum_dim(2), self.shape.layer.window);
        let (mut kept, mut parts) = (kept.into_iter(), Vec::with_capacity(self.plan.runs.len()));
        let mut of_prompts = Vec::new();
        for &run in &self.plan.runs {
            let (gradient, outward) = (take(&gradient, run.tokens), take(&outward, run.tokens));
            let of_run = self.run_backward(projected, run, [gradient, outward], &mut kept);
            let (own, of_prompt) = of_run.split(run.before(window));
            parts.push(own);
            of_prompts.extend(of_prompt);
        }
        let whole = |part: fn(&Parts) -> &Tensor<4>| {
            join(parts.iter().map(|parts| side_by_side(part(parts).clone())).collect(), 0)
        };
        let (query, mut key, mut value) = (whole(|p| &p.query), whole(|p| &p.key), whole(|p| &p.value));
        for (prompt, of_key, of_value) in of_prompts {
            key = add_tokens(key, prompt, of_key);
            value = add_tokens(value, prompt, of_value);
        }
        Projected { query, key, value }
    }

    fn run_backward(
        self,
        projected: &Projected,
        run: Run,
        [gradient, outward]: [Tensor<4>; 2],
        kept: &mut impl Iterator<Item = Tensor<4>>,
    ) -> Parts {
        let window = self.shape.layer.window;
        let parts = Parts::of(projected, run, window);
        let [n, _, length, _] = parts.key.dims();
        let mut queries = Vec::new();
        let mut sums: Option<(Tensor<4>, Tensor<4>)> = None;
        for block in run.blocks(window) {
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
    fn of(projected: &Projected, run: Run, window: Option<usize>) -> Self {
        let Projected { query, key, value } = projected;
        let before = run.before(window);
        let seen = |x: &Tensor<3>| {
            let own = take(x, run.tokens);
            let Some(before) = before else { return own };
            let [segments, heads, _, width] = own.dims();
            let prompt = take(x, before).expand([segments, heads, before.length, width]);
            Tensor::cat(vec![prompt, own], 2)
        };
        Self { query: take(query, run.tokens), key: seen(key), value: seen(value) }
    }

    /// Parts without the prompt before them, and the sums over all segments of what the prompt has.
    fn split(self, before: Option<Tokens>) -> (Self, Option<(Tokens, Tensor<3>, Tensor<3>)>) {
        let Some(before) = before else { return (self, None) };
        let Self { query, key, value } = self;
        let own = |x: &Tensor<4>| x.clone().narrow(2, before.length, x.dims()[2] - before.length);
        let of_prompt = |x: &Tensor<4>| side_by_side(x.clone().narrow(2, 0, before.length).sum_dim(0));
        let of_prompts = (before, of_prompt(&key), of_prompt(&value));
        (Self { query, key: own(&key), value: own(&value) }, Some(of_prompts))
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

/// Adds `part`, `[tokens, heads, width]`, to what the named tokens have.
fn add_tokens(sum: Tensor<3>, tokens: Tokens, part: Tensor<3>) -> Tensor<3> {
    let [count, heads, width] = part.dims();
    let part = sum.clone().narrow(0, tokens.start, count) + part;
    sum.slice_assign([tokens.start..tokens.start + count, 0..heads, 0..width], part)
}

/// Some tokens' part of `[tokens, heads, width]`, as `[segments, heads, length, width]`.
fn take(x: &Tensor<3>, tokens: Tokens) -> Tensor<4> {
    let Tokens { start, segments, length } = tokens;
    let ([all, heads, width], count) = (x.dims(), segments * length);
    let part = if count == all { x.clone() } else { x.clone().narrow(0, start, count) };
    part.reshape([segments, length, heads, width]).swap_dims(1, 2)
}

/// `[segments, heads, length, width]` → `[tokens, heads, width]`.
fn side_by_side(x: Tensor<4>) -> Tensor<3> {
    let [segments, heads, length, width] = x.dims();
    x.swap_dims(1, 2).reshape([segments * length, heads, width])
}

fn join<const D: usize>(mut parts: Vec<Tensor<D>>, dimension: usize) -> Tensor<D> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, dimension) }
}
