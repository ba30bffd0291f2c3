//! Each pass against the same in tensor operations and autodiff.

use burn::tensor::{
    Distribution,
    activation::{silu, softmax as plain_softmax},
};

use super::*;

fn random<const D: usize>(shape: [usize; D], scale: f64) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, scale), &Device::flex())
}

fn assert_close<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) {
    let largest = b.clone().abs().max().into_scalar::<f32>();
    let off = (a.clone() - b.clone()).abs().max().into_scalar::<f32>();
    assert!(off <= 2e-6 * largest.max(1.0), "off by {off} of {largest}");
}

fn leaf<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x.clone()).require_grad()
}

#[test]
fn rms_norm_and_its_gradients() {
    let (x, w, g) = (random([70, 300], 2.0), random([300], 1.0), random([70, 300], 1.0));
    let rms = Rms { epsilon: 1e-5, offset: 1.0 };
    let (tracked_x, tracked_w) = (leaf(&x), leaf(&w));
    let scale = (tracked_x.clone().square().mean_dim(1) + 1e-5).sqrt().recip();
    let y = tracked_x.clone() * scale * (tracked_w.clone() + 1.0).unsqueeze();
    assert_close(&rms_norm(rms, x.clone(), w.clone()), &y.clone().inner());
    let mut found = (y * Tensor::from_inner(g.clone())).sum().backward();
    let (of_x, of_w) = rms_norm_backward(rms, x, w, g);
    assert_close(&of_x, &tracked_x.grad_remove(&mut found).unwrap());
    assert_close(&of_w, &tracked_w.grad_remove(&mut found).unwrap());
}

#[test]
fn gated_silu_and_its_gradients() {
    let (gate, up, g) = (random([90, 211], 20.0), random([90, 211], 1.0), random([90, 211], 1.0));
    let (a, b) = (leaf(&gate), leaf(&up));
    let y = silu(a.clone()) * b.clone();
    assert_close(&gated_silu(gate.clone(), up.clone()), &y.clone().inner());
    let mut found = (y * Tensor::from_inner(g.clone())).sum().backward();
    let [of_gate, of_up] = gated_silu_backward(gate, up, g);
    assert_close(&of_gate, &a.grad_remove(&mut found).unwrap());
    assert_close(&of_up, &b.grad_remove(&mut found).unwrap());
}

#[test]
fn softmax_under_both_kinds_of_mask_and_its_gradient() {
    let (n, kv_heads, stacked, keys, queries) = (3, 2, 10, 37, 5);
    for mask_shape in [[1, 1, queries, keys], [n, 1, 1, keys]] {
        let scores = random([n, kv_heads, stacked, keys], 3.0);
        let hidden = random(mask_shape, 1.0).greater_elem(0.8).float() * -1e9;
        let apart = scores.clone().reshape([n, kv_heads * stacked / queries, queries, keys]);
        let expected = plain_softmax(apart + hidden.clone(), 3).reshape(scores.dims());
        let weights = softmax(scores.clone(), Some(hidden), queries);
        assert_close(&weights, &expected);
        let (gradient, along) = (random(scores.dims(), 1.0), random([n, kv_heads, stacked, 1], 1.0));
        let expected = weights.clone() * (gradient.clone() - along.clone());
        assert_close(&softmax_backward(weights, gradient, along), &expected);
    }
}

#[test]
fn turning_back_undoes_turning() {
    let (x, angle) = (random([9, 3, 16], 1.0), random([9, 1, 6], 1.0));
    let angle = Tensor::cat(vec![angle.clone(), angle], 2);
    let tables = || [angle.clone().cos(), angle.clone().sin()];
    let turned = rotate(x.clone(), tables(), 1.0, 2.0);
    assert_close(&rotate(turned, tables(), -1.0, 0.5), &x);
}

#[test]
fn the_exponential_is_right_at_both_ends_and_between() {
    for i in -9000..8800 {
        let x = i as f32 / 100.0;
        let (is, exact) = (exp(x), f64::from(x).exp());
        if x >= -87.0 {
            assert!((f64::from(is) - exact).abs() <= 2.5e-7 * exact, "{x}: {is} for {exact}");
        } else {
            assert!(is == 0.0);
        }
    }
    assert!(exp(f32::NAN).is_nan() && sigmoid(f32::NEG_INFINITY) < 1e-37 && exp(f32::NEG_INFINITY) == 0.0);
}
