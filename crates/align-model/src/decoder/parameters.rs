//! Where a decoder's parameters come from while it is built.

use burn::{
    module::Param,
    tensor::{Device, Tensor, TensorData},
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Hands out parameters by their path in the module, such as `layers.3.attention.query.weight`.
pub trait ParameterSource {
    /// What can go wrong.
    type Error;

    /// The values of one parameter, row-major. A linear layer's weight has shape `[out, in]`.
    ///
    /// # Errors
    /// If there is no such parameter or it has another shape.
    fn parameter(&mut self, path: &str, shape: &[usize]) -> Result<Vec<f32>, Self::Error>;
}

/// Fresh parameters, as transformers initialises a model it trains from nothing: weights from a normal distribution,
/// norm weights 1 (0 where the model adds 1 itself), biases 0.
#[derive(Debug)]
pub struct RandomParameters<'a> {
    /// Where randomness comes from.
    pub rng: &'a mut ChaCha8Rng,
    /// Standard deviation of the weights; transformers' `initializer_range`, 0.02 in most models.
    pub standard_deviation: f32,
    /// What norm weights start at.
    pub norm_weight: f32,
}

impl ParameterSource for RandomParameters<'_> {
    type Error = std::convert::Infallible;

    fn parameter(&mut self, path: &str, shape: &[usize]) -> Result<Vec<f32>, Self::Error> {
        let count = shape.iter().product();
        if path.rsplit('.').next() == Some("bias") {
            return Ok(vec![0.0; count]);
        }
        if shape.len() == 1 {
            return Ok(vec![self.norm_weight; count]);
        }
        Ok((0..count).map(|_| self.standard_deviation * self.normal()).collect())
    }
}

impl RandomParameters<'_> {
    /// A standard normal number by Box and Muller's transform.
    fn normal(&mut self) -> f32 {
        let uniform = |rng: &mut ChaCha8Rng| (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32;
        let radius = (-2.0 * (1.0 - uniform(self.rng)).ln()).sqrt();
        radius * (2.0 * std::f32::consts::PI * uniform(self.rng)).cos()
    }
}

/// Builds modules from a source, keeping track of the path.
#[derive(Debug)]
pub(super) struct Builder<'a, S> {
    pub(super) source: &'a mut S,
    pub(super) device: &'a Device,
    path: Vec<String>,
}

impl<'a, S: ParameterSource> Builder<'a, S> {
    pub(super) fn new(source: &'a mut S, device: &'a Device) -> Self {
        Self { source, device, path: Vec::new() }
    }

    /// Builds what lies under a field of the current module.
    pub(super) fn within<T>(
        &mut self,
        field: impl Into<String>,
        make: impl FnOnce(&mut Self) -> Result<T, S::Error>,
    ) -> Result<T, S::Error> {
        self.path.push(field.into());
        let result = make(self);
        self.path.pop();
        result
    }

    /// A parameter that is a field of the current module.
    pub(super) fn parameter<const D: usize>(
        &mut self,
        field: &str,
        shape: [usize; D],
    ) -> Result<Param<Tensor<D>>, S::Error> {
        let path = self.path.iter().map(String::as_str).chain([field]).collect::<Vec<_>>().join(".");
        let values = self.source.parameter(&path, &shape)?;
        Ok(Param::from_data(TensorData::new(values, shape), self.device))
    }
}
