//! Dropout whose masks follow from a seed alone.

use burn::tensor::{Bool, Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::causal_lm::DropoutSeed;

/// Leaves out a share of the entries of `x` and scales the others so that the mean stays. `x`: `[tokens, in]`.
///
/// The mask depends on the seed, the stream and the shape: a layer that is computed a second time on the way back drops
/// the same entries again.
pub(super) fn dropout(x: Tensor<2>, probability: f64, seed: DropoutSeed, stream: u64) -> Tensor<2> {
    let device = x.device().without_autodiff();
    let mask = dropped(x.dims(), probability, seed, stream, &device);
    x.mask_fill(mask, 0.0) / (1.0 - probability)
}

/// True where an entry is left out.
fn dropped(
    shape: [usize; 2],
    probability: f64,
    seed: DropoutSeed,
    stream: u64,
    device: &Device,
) -> Tensor<2, Bool> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed.0);
    rng.set_stream(stream);
    let border = (probability * 2f64.powi(32)) as u64;
    let mask: Vec<bool> = (0..shape[0] * shape[1]).map(|_| u64::from(rng.next_u32()) < border).collect();
    Tensor::from_data(TensorData::new(mask, shape), device)
}
