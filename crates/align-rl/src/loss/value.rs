//! What a critic is trained on.

use align_model::number::Positive;
use burn::tensor::Tensor;

/// Half the squared error of values; with a range, the worse of it and that of a value which has moved no further than the range
/// from what it was.
///
/// ```text
/// L = ½·max((v − R)², (clip(v, v_old − range, v_old + range) − R)²)
/// ```
///
/// # Source
/// Schulman et al. 2017, [arXiv:1707.06347](https://arxiv.org/abs/1707.06347), as implemented beside it; Huang et al. 2024,
/// *The N+ Implementation Details of RLHF with PPO*, [arXiv:2403.17031](https://arxiv.org/abs/2403.17031).
///
/// # Shapes
/// - `values`, `old_values`, `returns`, result: `[targets]`; nothing is reduced
///
/// # Gradient
/// Flows through `values`.
#[must_use]
pub fn clipped_value_loss(
    values: Tensor<1>,
    old_values: Tensor<1>,
    returns: Tensor<1>,
    range: Option<Positive>,
) -> Tensor<1> {
    let free = (values.clone() - returns.clone()).powi_scalar(2);
    let Some(range) = range else { return free * 0.5 };
    let moved = (values - old_values.clone()).clamp(-range.get(), range.get());
    let held = (old_values + moved - returns).powi_scalar(2);
    let is_worse = held.clone().greater(free.clone());
    free.mask_where(is_worse, held) * 0.5
}

/// 1 where [`clipped_value_loss`] counts the clipped value, else 0: TRL's `val/clipfrac_avg` is its mean.
///
/// # Shapes
/// - `values`, `old_values`, `returns`, result: `[targets]`
///
/// # Gradient
/// None.
#[must_use]
pub fn value_is_clipped(
    values: Tensor<1>,
    old_values: Tensor<1>,
    returns: Tensor<1>,
    range: Positive,
) -> Tensor<1> {
    let (values, old_values) = (values.detach(), old_values.detach());
    let moved = (values.clone() - old_values.clone()).clamp(-range.get(), range.get());
    let free = (values - returns.clone()).powi_scalar(2);
    (old_values + moved - returns).powi_scalar(2).greater(free).float()
}

#[cfg(test)]
mod tests {
    use align_model::logprob::vector;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn the_worse_of_two_errors_counts() {
        let device = Device::flex().autodiff();
        // Moved by 1 with a range of 0.5: toward the return, away from it, and little.
        let values = vector([1.0, 1.0, 0.25], &device).require_grad();
        let (old, returns) = (vector([0.0; 3], &device), vector([2.0, -1.0, 1.0], &device));
        let range = Positive::new(0.5);
        let loss = clipped_value_loss(values.clone(), old.clone(), returns.clone(), Some(range));
        let gradients = loss.clone().sum().backward();
        let read = |x: Tensor<1>| x.into_data().iter::<f64>().collect::<Vec<_>>();
        assert_eq!(read(loss), [1.125, 2.0, 0.28125]);
        assert_eq!(read(values.grad(&gradients).unwrap()), [0.0, 2.0, -0.75]);
        let is_clipped = value_is_clipped(values.clone(), old.clone(), returns.clone(), range);
        assert_eq!(read(is_clipped), [1.0, 0.0, 0.0]);
        assert_eq!(read(clipped_value_loss(values, old, returns, None)), [0.5, 2.0, 0.28125]);
    }
}
