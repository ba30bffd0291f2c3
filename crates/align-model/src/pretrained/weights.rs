//! Named weights on the host, whatever file they come from.

use super::LoadError;

/// A tensor on the host: row-major f32 values and their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` values.
    pub values: Vec<f32>,
}

/// A model's weights under their Hugging Face names and in the Hugging Face layout, read one at a time.
pub trait WeightSource {
    /// Every tensor's name, in the file's order.
    fn names(&self) -> Vec<String>;

    /// The shape of a tensor, or `None` if there is none of that name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Reads one tensor and converts it to f32.
    ///
    /// # Errors
    /// If the tensor is missing, its data lies outside the file, or its number format is not supported.
    fn read(&self, name: &str) -> Result<HostTensor, LoadError>;
}
