//! The arithmetic of one step on one parameter: in one pass over memory on the CPU, as tensor operations elsewhere.

use burn::tensor::{DType, Tensor};

use super::{AdamWConfig, Row};

/// The running means of one parameter.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    /// Steps that went into them.
    pub(super) step: u64,
    /// Mean gradient.
    pub(super) mean: Row,
    /// Mean squared gradient.
    pub(super) mean_square: Row,
}

impl Moments {
    /// Those of a parameter before its first step.
    pub(super) fn zeros(values: &Row) -> Self {
        let zeros = || Tensor::zeros(values.dims(), (&values.device(), DType::F32));
        Self { step: 0, mean: zeros(), mean_square: zeros() }
    }
}

/// The numbers of one step, computed in `f64` and used in `f32`, as PyTorch does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coefficients {
    keep: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    root_correction: f32,
    epsilon: f32,
    minus_step_size: f32,
}

impl Coefficients {
    /// `decays` says whether this parameter shrinks by weight decay; `step` counts from 1.
    pub(super) fn new(config: &AdamWConfig, decays: bool, learning_rate: f64, step: u64) -> Self {
        let (beta1, beta2) = (config.beta1.get(), config.beta2.get());
        let decay = if decays { config.weight_decay.get() } else { 0.0 };
        let exponent = step as f64;
        Self {
            keep: (1.0 - learning_rate * decay) as f32,
            beta1: beta1 as f32,
            one_minus_beta1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            root_correction: (1.0 - beta2.powf(exponent)).sqrt() as f32,
            epsilon: config.epsilon.get() as f32,
            minus_step_size: (-learning_rate / (1.0 - beta1.powf(exponent))) as f32,
        }
    }
}

/// The updated values and moments.
///
/// # Panics
/// If gradient or moments have another size than the values.
pub(super) fn update(c: &Coefficients, values: Row, gradient: Row, mut moments: Moments) -> (Row, Moments) {
    let size = values.dims();
    assert!(
        gradient.dims() == size && moments.mean.dims() == size && moments.mean_square.dims() == size,
        "a parameter, its gradient and its moments differ in size"
    );
    let device = values.device();
    if moments.mean.device() != device {
        moments.mean = moments.mean.to_device(&device);
        moments.mean_square = moments.mean_square.to_device(&device);
    }
    #[cfg(feature = "flex")]
    if device == burn::tensor::Device::flex() {
        return in_one_pass::update(c, values, gradient, moments);
    }
    by_operations(c, values, gradient, moments)
}

fn by_operations(c: &Coefficients, values: Row, gradient: Row, moments: Moments) -> (Row, Moments) {
    let values = values.mul_scalar(c.keep);
    // The two forms of a linear interpolation, chosen as `torch.lerp` does so that either end is reached exactly.
    let difference = gradient.clone() - moments.mean.clone();
    let mean = if c.one_minus_beta1 < 0.5 {
        moments.mean + difference.mul_scalar(c.one_minus_beta1)
    } else {
        gradient.clone() - difference.mul_scalar(c.beta1)
    };
    let square = (gradient.clone() * gradient).mul_scalar(c.one_minus_beta2);
    let mean_square = moments.mean_square.mul_scalar(c.beta2) + square;
    let denominator = mean_square.clone().sqrt().div_scalar(c.root_correction).add_scalar(c.epsilon);
    let updated = values + mean.clone().mul_scalar(c.minus_step_size) / denominator;
    (updated, Moments { step: moments.step, mean, mean_square })
}

/// burn's CPU backend walks over memory once an operation, on one thread. Its tensors give their memory away and
/// take it back without a copy, so the whole step can be one pass on all threads.
#[cfg(feature = "flex")]
mod in_one_pass {
    use burn::tensor::{DType, Device, Tensor, TensorData};
    use rayon::prelude::*;

    use super::{Coefficients, Moments, Row};

    /// Elements that one task handles: its four pieces stay in the second-level cache.
    const PIECE: usize = 1 << 14;

    pub(super) fn update(c: &Coefficients, values: Row, gradient: Row, moments: Moments) -> (Row, Moments) {
        let device = values.device();
        let (mut values, gradient) = (values.into_data(), gradient.into_data());
        let (mut mean, mut square) = (moments.mean.into_data(), moments.mean_square.into_data());
        let pieces = slice_mut(&mut values)
            .par_chunks_mut(PIECE)
            .zip(slice(&gradient).par_chunks(PIECE))
            .zip(slice_mut(&mut mean).par_chunks_mut(PIECE))
            .zip(slice_mut(&mut square).par_chunks_mut(PIECE));
        pieces.for_each(|(((values, gradient), mean), square)| piece(c, values, gradient, mean, square));
        let moments =
            Moments { step: moments.step, mean: row(mean, &device), mean_square: row(square, &device) };
        (row(values, &device), moments)
    }

    fn piece(c: &Coefficients, values: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32]) {
        let small = c.one_minus_beta1 < 0.5;
        for (((value, &g), m), v) in values.iter_mut().zip(gradient).zip(mean).zip(square) {
            let difference = g - *m;
            *m = if small { *m + difference * c.one_minus_beta1 } else { g - difference * c.beta1 };
            *v = *v * c.beta2 + (g * g) * c.one_minus_beta2;
            let denominator = v.sqrt() / c.root_correction + c.epsilon;
            *value = *value * c.keep + *m * c.minus_step_size / denominator;
        }
    }

    fn row(data: TensorData, device: &Device) -> Row {
        Tensor::from_data(data, (device, DType::F32))
    }

    fn slice(data: &TensorData) -> &[f32] {
        data.as_slice().unwrap_or_else(|error| unreachable!("rows are f32 in host memory: {error}"))
    }

    fn slice_mut(data: &mut TensorData) -> &mut [f32] {
        data.as_mut_slice().unwrap_or_else(|error| unreachable!("rows are f32 in host memory: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    use crate::number::{NonNegative, Positive, ProperFraction};

    fn row(values: &[f32]) -> Row {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), (&Device::flex(), DType::F32))
    }

    fn values(row: Row) -> Vec<f32> {
        row.into_data().try_into_vec().unwrap()
    }

    proptest! {
        #[test]
        fn both_ways_give_the_same_numbers(
            numbers in prop::collection::vec((-3.0f32..3.0, -5.0f32..5.0, -1.0f32..1.0, 0.0f32..2.0), 1..70),
            beta1 in 0.0f64..0.999,
            beta2 in 0.0f64..0.999,
            weight_decay in 0.0f64..0.5,
            step in 1u64..100,
        ) {
            let config = AdamWConfig {
                beta1: ProperFraction::new(beta1),
                beta2: ProperFraction::new(beta2),
                epsilon: Positive::new(1e-6),
                weight_decay: NonNegative::new(weight_decay),
                ..AdamWConfig::default()
            };
            let c = Coefficients::new(&config, true, 0.01, step);
            let column = |pick: fn(&(f32, f32, f32, f32)) -> f32| row(&numbers.iter().map(pick).collect::<Vec<_>>());
            let start = || Moments { step, mean: column(|n| n.2), mean_square: column(|n| n.3) };
            let (fused, one) = in_one_pass::update(&c, column(|n| n.0), column(|n| n.1), start());
            let (plain, other) = by_operations(&c, column(|n| n.0), column(|n| n.1), start());
            for (a, b) in [(fused, plain), (one.mean, other.mean), (one.mean_square, other.mean_square)] {
                for (a, b) in values(a).into_iter().zip(values(b)) {
                    prop_assert!((a - b).abs() <= 1e-6 * b.abs() + 1e-7, "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn an_unshared_row_keeps_its_memory() {
        let address = |row: &Row| {
            // Cloning shares the memory; reading through the clone copies, so ask for the address by giving it away.
            row.clone().into_data().as_slice::<f32>().unwrap().as_ptr()
        };
        let values = vec![1.0f32; 1 << 16];
        let before = values.as_ptr();
        let row = Tensor::<1>::from_data(TensorData::new(values, [1 << 16]), (&Device::flex(), DType::F32));
        assert_ne!(address(&row), before, "a shared row is copied");
        let data = row.reshape([256, 256]).reshape([1 << 16]).into_data();
        assert_eq!(data.as_slice::<f32>().unwrap().as_ptr(), before, "an unshared one is not");
    }
}
