//! Element-wise parts of a block, forward and backward, that take one pass over memory where a chain of tensor operations
//! takes many.
//!
//! Each function returns `None` where it has no such pass: on other devices, in other data types, under autodiff. The
//! caller then does the same in tensor operations. A faster pass for another device belongs here.

#![allow(
    clippy::result_large_err,
    reason = "tensors go in and out by value everywhere; boxing them saves nothing"
)]

use burn::tensor::Tensor;

use super::config::NormConfig;

/// `norm(x)` in f32. `x`: `[…, width]`; `weight`: `[width]`.
pub(super) fn norm<const D: usize>(
    config: NormConfig,
    x: &Tensor<D>,
    weight: &Tensor<1>,
) -> Option<Tensor<D>> {
    #[cfg(feature = "flex")]
    if let Some(rms) = in_host_memory::Rms::of(config)
        && in_host_memory::holds(x)
        && in_host_memory::holds(weight)
    {
        return Some(in_host_memory::rms_norm(rms, x.clone(), weight.clone()));
    }
    let _ = (config, x, weight);
    None
}

/// Gradients of `x` and of the weight. `gradient`: of the loss with respect to [`norm`]'s result.
pub(super) fn norm_backward<const D: usize>(
    config: NormConfig,
    x: &Tensor<D>,
    weight: &Tensor<1>,
    gradient: &Tensor<D>,
) -> Option<(Tensor<D>, Tensor<1>)> {
    #[cfg(feature = "flex")]
    if let Some(rms) = in_host_memory::Rms::of(config)
        && in_host_memory::holds(x)
        && in_host_memory::holds(weight)
        && in_host_memory::holds(gradient)
    {
        return Some(in_host_memory::rms_norm_backward(rms, x.clone(), weight.clone(), gradient.clone()));
    }
    let _ = (config, x, weight, gradient);
    None
}

/// `silu(gate) ∘ up`
pub(super) fn gated_silu(gate: &Tensor<2>, up: &Tensor<2>) -> Option<Tensor<2>> {
    #[cfg(feature = "flex")]
    if in_host_memory::holds(gate) && in_host_memory::holds(up) {
        return Some(in_host_memory::gated_silu(gate.clone(), up.clone()));
    }
    let _ = (gate, up);
    None
}

/// Gradients of `gate` and `up`; tensors that are given back were not used.
pub(super) fn gated_silu_backward(
    gate: Tensor<2>,
    up: Tensor<2>,
    gradient: Tensor<2>,
) -> Result<[Tensor<2>; 2], [Tensor<2>; 3]> {
    #[cfg(feature = "flex")]
    if [&gate, &up, &gradient].into_iter().all(in_host_memory::holds) {
        return Ok(in_host_memory::gated_silu_backward(gate, up, gradient));
    }
    Err([gate, up, gradient])
}

/// `softmax(scores + mask)` over the last dimension. `scores`: `[n, kv_heads, heads / kv_heads · queries, keys]`; `mask`:
/// `[1 or n, 1, 1 or queries, keys]`. Scores that are given back were not used.
pub(super) fn softmax(
    scores: Tensor<4>,
    mask: Option<&Tensor<4>>,
    queries: usize,
) -> Result<Tensor<4>, Tensor<4>> {
    #[cfg(feature = "flex")]
    if in_host_memory::holds(&scores) && mask.is_none_or(in_host_memory::holds) {
        return Ok(in_host_memory::softmax(scores, mask.cloned(), queries));
    }
    let _ = (mask, queries);
    Err(scores)
}

/// `P ∘ (∂P − along)`, the gradient of the scores whose softmax is P. `along`: `[…, 1]`, one number a row. Tensors that are
/// given back were not used.
pub(super) fn softmax_backward(
    weights: Tensor<4>,
    gradient: Tensor<4>,
    along: Tensor<4>,
) -> Result<Tensor<4>, [Tensor<4>; 3]> {
    #[cfg(feature = "flex")]
    if [&weights, &gradient, &along].into_iter().all(in_host_memory::holds) {
        return Ok(in_host_memory::softmax_backward(weights, gradient, along));
    }
    Err([weights, gradient, along])
}

/// Turns the pairs `(i, i + rotated / 2)` of each head by the angles whose cosines and sines are given, backwards where
/// `direction` is −1, and scales everything. `x`: `[tokens, heads, head_dim]`; `cos`, `sin`: `[tokens, 1, rotated]`.
pub(super) fn rotate(
    x: &Tensor<3>,
    [cos, sin]: [&Tensor<3>; 2],
    direction: f32,
    scale: f64,
) -> Option<Tensor<3>> {
    #[cfg(feature = "flex")]
    if [x, cos, sin].into_iter().all(in_host_memory::holds) {
        let tables = [cos.clone(), sin.clone()];
        return Some(in_host_memory::rotate(x.clone(), tables, direction, scale as f32));
    }
    let _ = (x, cos, sin, direction, scale);
    None
}

#[cfg(feature = "flex")]
mod in_host_memory;
