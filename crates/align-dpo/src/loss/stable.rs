//! The logistic function, its logarithm and exponentials without overflow, with gradients that keep their relative precision.

use burn::tensor::Tensor;

/// Exponents above this count as this: their exponential would soon leave what f32 can hold.
pub(crate) const LARGEST_EXPONENT: f64 = 80.0;

/// `log σ(x) = −log(1 + e^−x)`.
///
/// With `k = max(−x, 0)` held constant this is `−k − log(e^−k + e^(−x−k))`: one of the two exponentials is 1, the other at
/// most 1. The gradient `e^(−x−k) / (e^−k + e^(−x−k))` is a quotient of those, so that a pair which is almost certain keeps
/// a gradient, and one at 0 has exactly ½.
pub(crate) fn log_sigmoid(x: Tensor<1>) -> Tensor<1> {
    let k = (-x.clone()).detach().clamp_min(0.0);
    let rest = ((-k.clone()).exp() - 1.0) + (-x - k.clone()).exp();
    -(k + rest.log1p())
}

/// `σ(x)`; `1 − σ(x)` is `sigmoid(−x)`.
pub(crate) fn sigmoid(x: Tensor<1>) -> Tensor<1> {
    log_sigmoid(x).exp()
}

/// `−(1 − ε)·log σ(x) − ε·log σ(−x)`: the cross-entropy of a label that is wrong with probability ε.
pub(crate) fn smoothed(x: Tensor<1>, epsilon: f64) -> Tensor<1> {
    let clean = -log_sigmoid(x.clone());
    if epsilon == 0.0 {
        return clean;
    }
    clean * (1.0 - epsilon) - log_sigmoid(-x) * epsilon
}

/// `log(1 − eˣ)` for `x < 0`, exact also where `eˣ` is almost 1.
///
/// `1 − eˣ = tanh(−x/2)·(1 + eˣ)` subtracts nothing. `x` counts as at most −10⁻⁷, where the logarithm is still finite.
pub(crate) fn log_one_minus_exp(x: Tensor<1>) -> Tensor<1> {
    let x = x.clamp_max(-1e-7);
    (x.clone() * -0.5).tanh().log() + x.exp().log1p()
}

/// `eˣ − 1`, exact also near 0; an exponent is cut off at 80, where the gradient ends.
///
/// The value is `tanh(x/2)·(eˣ + 1)`, which subtracts nothing; the gradient is that of `eˣ`.
pub(crate) fn exp_minus_one(x: Tensor<1>) -> Tensor<1> {
    let x = x.clamp_max(LARGEST_EXPONENT);
    let rough = x.clone().exp() - 1.0;
    let exact = (x.clone() * 0.5).tanh() * (x.exp() + 1.0);
    rough.clone() + (exact - rough).detach()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn values_and_gradients(f: fn(Tensor<1>) -> Tensor<1>, at: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let x = Tensor::<1>::from_floats(at, &Device::flex().autodiff()).require_grad();
        let y = f(x.clone());
        let gradients = y.clone().sum().backward();
        let read = |t: Tensor<1>| t.into_data().iter::<f64>().collect();
        (read(y.inner()), read(x.grad(&gradients).unwrap()))
    }

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() <= 3e-6 * expected.abs() + 1e-30, "{got} for {expected}");
    }

    #[test]
    fn the_logarithm_keeps_its_precision_everywhere() {
        let at = [-200.0, -30.0, -1.0, -1e-4, 0.0, 1e-4, 1.0, 10.0, 30.0, 80.0];
        let (values, gradients) = values_and_gradients(log_sigmoid, &at);
        for ((x, value), gradient) in at.into_iter().map(f64::from).zip(values).zip(gradients) {
            close(value, if x < 0.0 { x - x.exp().ln_1p() } else { -(-x).exp().ln_1p() });
            close(gradient, 1.0 / (1.0 + x.exp()));
        }
    }

    #[test]
    fn extreme_inputs_stay_finite() {
        for f in [log_sigmoid, sigmoid] {
            let (values, gradients) = values_and_gradients(f, &[-1e30, -1e4, 1e4, 1e30]);
            assert!(values.iter().chain(&gradients).all(|v| v.is_finite()), "{values:?} {gradients:?}");
        }
    }

    #[test]
    fn an_exponential_less_one_keeps_its_precision() {
        let at = [-100.0, -5.0, -0.1, -1e-4, 0.0, 1e-6, 1e-3, 2.0, 30.0];
        let (values, gradients) = values_and_gradients(exp_minus_one, &at);
        for ((x, value), gradient) in at.into_iter().map(f64::from).zip(values).zip(gradients) {
            close(value, x.exp_m1());
            close(gradient, x.exp());
        }
        let (values, gradients) = values_and_gradients(exp_minus_one, &[100.0]);
        assert!(values[0].is_finite() && gradients[0] == 0.0);
    }

    #[test]
    fn one_minus_a_probability_keeps_its_precision() {
        let at = [-1e-6, -1e-3, -0.1, -0.69, -0.7, -3.0, -20.0];
        let (values, gradients) = values_and_gradients(log_one_minus_exp, &at);
        for ((x, value), gradient) in at.into_iter().map(f64::from).zip(values).zip(gradients) {
            let expected = (-x.exp_m1()).ln();
            assert!(
                (value - expected).abs() <= 2e-6 * expected.abs() + 2e-7,
                "{value} for {expected} at {x}"
            );
            let expected = x.exp() / x.exp_m1();
            assert!((gradient - expected).abs() <= 3e-6 * expected.abs() + 2e-7, "{gradient} for {expected}");
        }
        let (values, gradients) = values_and_gradients(log_one_minus_exp, &[0.0]);
        assert!(values[0].is_finite() && gradients[0].is_finite());
    }
}
