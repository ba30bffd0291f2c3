//! The product of activations and a weight matrix.

use burn::tensor::Tensor;

/// `x · weightᵀ`. `x`: `[rows, in]`; `weight`: `[out, in]`; result: `[rows, out]`.
pub(super) fn with_transposed(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if few_rows::are(&x) && !weight.is_autodiff() {
        return weight.matmul(x.transpose()).transpose();
    }
    x.matmul(weight.transpose())
}

/// Of few rows, such as the newest tokens of a batch that is generated, a CPU computes the transposed product: it rearranges the
/// left factor of a product for its registers, which is then the activations and not the weights. These are read once, as they lie.
#[cfg(feature = "flex")]
mod few_rows {
    use burn::tensor::{Device, Tensor};

    /// As many numbers of 32 bits as two registers of 256 bits hold.
    const MOST: usize = 16;

    pub(super) fn are(x: &Tensor<2>) -> bool {
        let rows = x.dims()[0];
        rows > 1 && rows <= MOST && !x.is_autodiff() && x.device() == Device::flex()
    }
}
