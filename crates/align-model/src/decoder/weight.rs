//! The weight of a linear layer, whole or in a few bits a number.

use burn::{
    module::{
        Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param,
    },
    tensor::{Device, Tensor},
};

use super::quantized::QuantizedMatrix;

/// A weight of `[out, in]`.
#[derive(Debug, Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "a model has a few hundred of them, each with megabytes elsewhere"
)]
pub enum Weight {
    /// As it is trained and stored.
    Full(Param<Tensor<2>>),
    /// Rounded to a few bits a number; never trained, no parameter to visitors and optimisers.
    Quantized(QuantizedMatrix),
}

impl Weight {
    /// The numbers that the layer computes with. `[out, in]`
    #[must_use]
    pub fn val(&self) -> Tensor<2> {
        match self {
            Self::Full(parameter) => parameter.val(),
            Self::Quantized(matrix) => matrix.dequantize(),
        }
    }

    /// Rows and columns.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Full(parameter) => {
                let shape = parameter.lazy_shape();
                [shape[0], shape[1]]
            }
            Self::Quantized(matrix) => matrix.shape(),
        }
    }

    /// Memory that the numbers take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Full(parameter) => parameter.lazy_shape().num_elements() * parameter.dtype().size(),
            Self::Quantized(matrix) => matrix.bytes(),
        }
    }
}

/// Does in both cases what the module inside does, without a step of the path for the case.
macro_rules! inside {
    ($weight:expr, $inner:ident => $call:expr) => {
        match $weight {
            Weight::Full($inner) => $call,
            Weight::Quantized($inner) => $call,
        }
    };
    (into $weight:expr, $inner:ident => $call:expr) => {
        match $weight {
            Weight::Full($inner) => Weight::Full($call),
            Weight::Quantized($inner) => Weight::Quantized($call),
        }
    };
}

impl Module for Weight {
    fn collect_devices(&self, devices: Devices) -> Devices {
        inside!(self, inner => inner.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        inside!(into self, inner => inner.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        inside!(into self, inner => inner.to_device(device))
    }

    fn train(self) -> Self {
        inside!(into self, inner => inner.train())
    }

    fn valid(&self) -> Self {
        inside!(into self, inner => inner.valid())
    }

    fn materialize(self) -> Self {
        inside!(into self, inner => inner.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        inside!(self, inner => Module::visit(inner, visitor));
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        inside!(into self, inner => Module::map(inner, mapper))
    }
}

impl ModuleDisplayDefault for Weight {
    fn content(&self, content: Content) -> Option<Content> {
        inside!(self, inner => inner.content(content))
    }
}

impl ModuleDisplay for Weight {}
