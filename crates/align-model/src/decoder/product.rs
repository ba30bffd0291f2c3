//! The product of activations and a weight matrix.

use burn::tensor::Tensor;

/// Up to so many rows a product is computed the other way round. Two registers of the widest kind hold as many numbers.
const FEW_ROWS: usize = 16;

/// `x · weightᵀ`. `x`: `[rows, in]`; `weight`: `[out, in]`; result: `[rows, out]`.
///
/// Of few rows, such as the newest tokens of a batch that is generated, the transposed product is computed. On a CPU a matrix product
/// rearranges its left factor for the registers; that is then the activations and not the weights, which are so read once,
/// as they lie.
pub(super) fn with_transposed(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let rows = x.dims()[0];
    if rows > 1 && rows <= FEW_ROWS && !x.is_autodiff() && !weight.is_autodiff() {
        weight.matmul(x.transpose()).transpose()
    } else {
        x.matmul(weight.transpose())
    }
}
