//! The weights of a decoder that is not trained as a whole.

use burn::{
    module::{Module, Param},
    tensor::{DType, Tensor, TensorData},
};

use super::{
    Decoder,
    quantized::{BaseWeights, QuantizedFormat, QuantizedMatrix},
    weight::Weight,
};
use crate::pretrained::LoadError;

impl Decoder {
    /// The same model with the weights of its blocks' linear layers in fewer bits; embeddings, norms, biases, the head and
    /// adapters stay as they are. The rounded weights cannot be trained.
    ///
    /// A layer computes with its weight as [`dequantize`](QuantizedMatrix::dequantize) gives it, in f32, made for each use
    /// and forgotten after it: one matrix exists in f32 at a time.
    ///
    /// # Errors
    /// If a weight cannot be read from its device.
    pub fn quantize_base(mut self, base: BaseWeights) -> Result<Self, LoadError> {
        let format = match base {
            BaseWeights::Full => return Ok(self),
            BaseWeights::Int8 => QuantizedFormat::Int8,
            BaseWeights::NormalFloat4 => QuantizedFormat::NormalFloat4,
        };
        for (index, block) in self.layers.iter_mut().enumerate() {
            for layer in block.linear_layers_mut() {
                if let Weight::Full(parameter) = &layer.weight {
                    let device = parameter.lazy_device();
                    let values = read(parameter).map_err(|reason| LoadError::Device {
                        parameter: format!("layers.{index}, a matrix of {:?}", layer.weight.shape()),
                        reason,
                    })?;
                    let matrix = QuantizedMatrix::new(&values, layer.weight.shape(), format, &device);
                    layer.weight = Weight::Quantized(matrix);
                }
            }
        }
        Ok(self)
    }

    /// The same model with the rounded weights as ordinary ones, in f32 and frozen: what rounding lost stays lost.
    #[must_use]
    pub fn dequantize_base(mut self) -> Self {
        let device = self.embedding.lazy_device();
        for block in &mut self.layers {
            for layer in block.linear_layers_mut() {
                if let Weight::Quantized(matrix) = &layer.weight {
                    let values = matrix.dequantize();
                    let values = if device.is_autodiff() { values.autodiff() } else { values };
                    layer.weight = Weight::Full(Param::from_tensor(values).no_grad());
                }
            }
        }
        self
    }

    /// Whether any weight is kept in fewer bits.
    #[must_use]
    pub fn is_quantized(&self) -> bool {
        self.quantized().next().is_some()
    }

    /// Memory that the weights take, adapters included.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        let quantized: usize = self.quantized().map(QuantizedMatrix::bytes).sum();
        self.num_params() * size_of::<f32>() + quantized
    }

    /// The weights that are kept in fewer bits.
    pub(super) fn quantized(&self) -> impl Iterator<Item = &QuantizedMatrix> {
        self.layers.iter().flat_map(super::Block::linear_layers).filter_map(|layer| match &layer.weight {
            Weight::Full(_) => None,
            Weight::Quantized(matrix) => Some(matrix),
        })
    }
}

fn read(parameter: &Param<Tensor<2>>) -> Result<Vec<f32>, String> {
    let data: TensorData = parameter.val().cast(DType::F32).try_into_data().map_err(|e| e.to_string())?;
    data.try_into_vec::<f32>().map_err(|e| format!("{e:?}"))
}
