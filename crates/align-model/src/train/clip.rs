//! Clipping of gradients by their global norm, as `torch.nn.utils.clip_grad_norm_`.

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{DType, Tensor},
};

/// Scales the gradients of `model` so that their norm, all taken as one vector, is at most `max_norm`, which may be
/// infinite. Returns them and the norm that they had before.
///
/// ```text
/// g ← g · min(1, c / (‖g‖ + 10⁻⁶))
/// ```
///
/// If the norm is not finite the gradients are returned as they are: there is no scale that repairs them, and the
/// caller sees it in the norm.
#[must_use]
pub fn clip_gradient_norm<M: Module>(
    mut gradients: GradientsParams,
    model: &M,
    max_norm: f64,
) -> (GradientsParams, f64) {
    let norm = gradient_norm(&mut gradients, model);
    let factor = max_norm / (norm + 1e-6);
    if norm.is_finite() && factor < 1.0 {
        model.visit(&mut Scale { gradients: &mut gradients, factor: factor as f32 });
    }
    (gradients, norm)
}

/// The norm of all gradients of `model` as one vector; 0 if there are none. One read from the device.
///
/// The gradients do not change: they are lent mutably because the CPU takes them out and puts them back to read them
/// without a copy.
#[must_use]
pub fn gradient_norm<M: Module>(gradients: &mut GradientsParams, model: &M) -> f64 {
    let mut squares = Squares { gradients, on_host: 0.0, on_device: Vec::new() };
    model.visit(&mut squares);
    let mut sum = squares.on_host;
    if !squares.on_device.is_empty() {
        sum += Tensor::cat(squares.on_device, 0).into_data().iter::<f64>().sum::<f64>();
    }
    sum.sqrt()
}

/// Sums of squares: of a tensor in host memory at once, of another as a tensor of one element to be read later.
struct Squares<'a> {
    gradients: &'a mut GradientsParams,
    on_host: f64,
    on_device: Vec<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.remove::<D>(parameter.id) else { return };
        #[cfg(feature = "flex")]
        if in_host_memory::holds(&gradient) {
            let (gradient, sum) = in_host_memory::square_sum(gradient);
            self.on_host += sum;
            self.gradients.register(parameter.id, gradient);
            return;
        }
        self.on_device.push(gradient.clone().cast(DType::F32).powi_scalar(2).sum());
        self.gradients.register(parameter.id, gradient);
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f32,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.remove::<D>(parameter.id) else { return };
        #[cfg(feature = "flex")]
        if in_host_memory::holds(&gradient) {
            self.gradients.register(parameter.id, in_host_memory::scale(gradient, self.factor));
            return;
        }
        self.gradients.register(parameter.id, gradient.mul_scalar(self.factor));
    }
}

/// burn's CPU backend gives its memory away and takes it back without a copy; so the sum can be `f64` and both
/// passes run on all threads.
#[cfg(feature = "flex")]
mod in_host_memory {
    use burn::tensor::{DType, Device, Tensor, TensorData};
    use rayon::prelude::*;

    /// Elements that one task handles. The order of summation depends on it alone, not on the number of threads.
    const PIECE: usize = 1 << 16;

    pub(super) fn holds<const D: usize>(gradient: &Tensor<D>) -> bool {
        gradient.dtype() == DType::F32 && gradient.device() == Device::flex() && !gradient.is_autodiff()
    }

    pub(super) fn square_sum<const D: usize>(gradient: Tensor<D>) -> (Tensor<D>, f64) {
        let device = gradient.device();
        let data = gradient.into_data();
        let sums: Vec<f64> = slice(&data)
            .par_chunks(PIECE)
            .map(|piece| piece.iter().map(|&x| f64::from(x) * f64::from(x)).sum())
            .collect();
        (Tensor::from_data(data, (&device, DType::F32)), sums.into_iter().sum())
    }

    pub(super) fn scale<const D: usize>(gradient: Tensor<D>, factor: f32) -> Tensor<D> {
        let device = gradient.device();
        let mut data = gradient.into_data();
        let values: &mut [f32] = data
            .as_mut_slice()
            .unwrap_or_else(|error| unreachable!("gradients are f32 in host memory: {error}"));
        values.par_chunks_mut(PIECE).for_each(|piece| piece.iter_mut().for_each(|x| *x *= factor));
        Tensor::from_data(data, (&device, DType::F32))
    }

    fn slice(data: &TensorData) -> &[f32] {
        data.as_slice().unwrap_or_else(|error| unreachable!("gradients are f32 in host memory: {error}"))
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // the numbers are exact in binary
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    #[derive(Module, Debug)]
    struct Pair {
        w: Param<Tensor<2>>,
        b: Param<Tensor<1>>,
        unused: Param<Tensor<1>>,
    }

    fn pair(w: &[f32], b: &[f32]) -> (Pair, GradientsParams) {
        let device = Device::flex();
        let tensor = |x: &[f32]| Tensor::<1>::from_data(TensorData::new(x.to_vec(), [x.len()]), &device);
        let model = Pair {
            w: Param::from_tensor(tensor(w).unsqueeze()),
            b: Param::from_tensor(tensor(b)),
            unused: Param::from_tensor(tensor(&[1.0])),
        };
        let mut gradients = GradientsParams::new();
        gradients.register(model.w.id, tensor(w).unsqueeze::<2>());
        gradients.register(model.b.id, tensor(b));
        (model, gradients)
    }

    fn read(model: &Pair, gradients: &GradientsParams) -> Vec<f32> {
        let w = gradients.get::<2>(model.w.id).unwrap().into_data().try_into_vec::<f32>().unwrap();
        let b = gradients.get::<1>(model.b.id).unwrap().into_data().try_into_vec::<f32>().unwrap();
        [w, b].concat()
    }

    #[test]
    fn the_norm_spans_all_tensors() {
        let (model, gradients) = pair(&[3.0], &[4.0]);
        let (gradients, norm) = clip_gradient_norm(gradients, &model, 1.0);
        assert_eq!(norm, 5.0);
        assert_eq!(gradients.len(), 2);
        let clipped = read(&model, &gradients);
        assert!((clipped[0] - 0.6).abs() < 1e-6 && (clipped[1] - 0.8).abs() < 1e-6);
    }

    #[test]
    fn a_gradient_that_is_no_number_shows_in_the_norm() {
        let (model, gradients) = pair(&[f32::NAN, 1.0], &[2.0]);
        let (gradients, norm) = clip_gradient_norm(gradients, &model, 1.0);
        assert!(norm.is_nan());
        assert_eq!(read(&model, &gradients)[1..], [1.0, 2.0]);
        let (model, gradients) = pair(&[f32::INFINITY], &[2.0]);
        assert_eq!(clip_gradient_norm(gradients, &model, 1.0).1, f64::INFINITY);
    }

    #[test]
    fn no_gradients_have_norm_zero() {
        let (model, _) = pair(&[1.0], &[1.0]);
        let (gradients, norm) = clip_gradient_norm(GradientsParams::new(), &model, 1.0);
        assert_eq!((gradients.len(), norm), (0, 0.0));
    }

    #[test]
    fn many_numbers_do_not_wear_the_sum_out() {
        let (model, mut gradients) = pair(&vec![1e-3; 3_000_000], &[0.0]);
        let expected = f64::from(1e-3f32) * 3_000_000f64.sqrt();
        assert!((gradient_norm(&mut gradients, &model) / expected - 1.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn clipping_keeps_the_direction_and_never_grows(
            w in prop::collection::vec(-10.0f32..10.0, 1..20),
            b in prop::collection::vec(-10.0f32..10.0, 1..20),
            max_norm in 0.01f64..30.0,
        ) {
            let (model, gradients) = pair(&w, &b);
            let before = read(&model, &gradients);
            let (mut gradients, norm) = clip_gradient_norm(gradients, &model, max_norm);
            let after = read(&model, &gradients);
            prop_assert!(gradient_norm(&mut gradients, &model) <= max_norm.min(norm) * (1.0 + 1e-6));
            let factor = (max_norm / (norm + 1e-6)).min(1.0);
            for (a, b) in after.iter().zip(&before) {
                prop_assert!((f64::from(*a) - f64::from(*b) * factor).abs() <= 1e-6 * f64::from(b.abs()));
            }
        }
    }
}
