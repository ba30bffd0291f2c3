//! Sums over the vocabulary: normaliser, entropy, mean log-probability, most likely token.
//!
//! A vocabulary has a hundred thousand entries, and a sum of so many f32 numbers that carries one accumulator along loses
//! three digits. On the CPU the sums here are f64, in one pass on all threads; elsewhere the backend reduces in parallel.

use burn::tensor::{Int, Tensor};

/// What each row of logits sums to. Plain tensors, without a graph.
#[derive(Debug, Clone)]
pub(super) struct RowSums {
    /// softmax of the logits. `[rows, vocab]`
    pub(super) probabilities: Tensor<2>,
    /// `log Σ exp(logits)`. `[rows, 1]`
    pub(super) normaliser: Tensor<2>,
    /// Entropy in nats. `[rows, 1]`
    pub(super) entropies: Tensor<2>,
    /// Mean over the vocabulary of the log-probabilities. `[rows, 1]`
    pub(super) uniform_log_probs: Tensor<2>,
    /// The token with the largest logit. `[rows, 1]`
    pub(super) most_likely: Tensor<2, Int>,
}

impl RowSums {
    /// `logits`: `[rows, vocab]`; they come back, for the CPU reads them without a copy only if it is their one owner.
    pub(super) fn new(logits: Tensor<2>) -> (Tensor<2>, Self) {
        #[cfg(feature = "flex")]
        if in_host_memory::holds(&logits) {
            return in_host_memory::row_sums(logits);
        }
        let sums = Self::by_operations(&logits);
        (logits, sums)
    }

    fn by_operations(logits: &Tensor<2>) -> Self {
        let largest = logits.clone().max_dim(1);
        let shifted = logits.clone() - largest.clone();
        let exponentials = shifted.clone().exp();
        let sum = exponentials.clone().sum_dim(1);
        let probabilities = exponentials / sum.clone();
        let log_sum = sum.log();
        Self {
            entropies: log_sum.clone() - (probabilities.clone() * shifted.clone()).sum_dim(1),
            uniform_log_probs: shifted.mean_dim(1) - log_sum.clone(),
            normaliser: largest + log_sum,
            most_likely: logits.clone().argmax(1),
            probabilities,
        }
    }
}

#[cfg(feature = "flex")]
mod in_host_memory {
    use burn::tensor::{DType, Device, Tensor, TensorData};
    use rayon::prelude::*;

    use super::RowSums;

    /// The sums of one row.
    struct Sums {
        normaliser: f32,
        entropy: f32,
        uniform_log_prob: f32,
        most_likely: i32,
    }

    pub(super) fn holds(logits: &Tensor<2>) -> bool {
        logits.dtype() == DType::F32 && logits.device() == Device::flex() && !logits.is_autodiff()
    }

    pub(super) fn row_sums(logits: Tensor<2>) -> (Tensor<2>, RowSums) {
        let ([rows, vocab], device) = (logits.dims(), logits.device());
        let data = logits.into_data();
        let values: &[f32] =
            data.as_slice().unwrap_or_else(|error| unreachable!("logits are f32 in host memory: {error}"));
        let mut probabilities = vec![0.0f32; rows * vocab];
        let sums: Vec<Sums> = values
            .par_chunks(vocab)
            .zip(probabilities.par_chunks_mut(vocab))
            .map(|(logits, probabilities)| row(logits, probabilities))
            .collect();
        let column = |value: fn(&Sums) -> f32| {
            let values: Vec<f32> = sums.iter().map(value).collect();
            Tensor::from_data(TensorData::new(values, [rows, 1]), &device)
        };
        let most_likely: Vec<i32> = sums.iter().map(|sums| sums.most_likely).collect();
        let sums = RowSums {
            probabilities: Tensor::from_data(TensorData::new(probabilities, [rows, vocab]), &device),
            normaliser: column(|sums| sums.normaliser),
            entropies: column(|sums| sums.entropy),
            uniform_log_probs: column(|sums| sums.uniform_log_prob),
            most_likely: Tensor::from_data(TensorData::new(most_likely, [rows, 1]), &device),
        };
        (Tensor::from_data(data, &device), sums)
    }

    fn row(logits: &[f32], probabilities: &mut [f32]) -> Sums {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let (mut sum, mut weighted, mut shifts) = (0.0f64, 0.0f64, 0.0f64);
        for (p, &logit) in probabilities.iter_mut().zip(logits) {
            let shift = logit - largest;
            *p = shift.exp();
            sum += f64::from(*p);
            weighted += f64::from(*p * shift);
            shifts += f64::from(shift);
        }
        let scale = (1.0 / sum) as f32;
        for p in probabilities.iter_mut() {
            *p *= scale;
        }
        let log_sum = sum.ln();
        Sums {
            normaliser: (f64::from(largest) + log_sum) as f32,
            entropy: (log_sum - weighted / sum) as f32,
            uniform_log_prob: (shifts / logits.len() as f64 - log_sum) as f32,
            most_likely: logits.iter().position(|&logit| logit >= largest).unwrap_or(0) as i32,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn one_pass_equals_the_operations() {
            let values: Vec<f32> = (0..600).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
            let logits = Tensor::<2>::from_data(TensorData::new(values, [3, 200]), &Device::flex());
            let (a, b) = (row_sums(logits.clone()).1, RowSums::by_operations(&logits));
            let close = |a: Tensor<2>, b: Tensor<2>| {
                let (a, b) = (a.into_data(), b.into_data());
                a.iter::<f32>().zip(b.iter::<f32>()).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs() + 1e-7)
            };
            assert!(close(a.probabilities, b.probabilities) && close(a.normaliser, b.normaliser));
            assert!(close(a.entropies, b.entropies) && close(a.uniform_log_probs, b.uniform_log_probs));
            a.most_likely.into_data().assert_eq(&b.most_likely.into_data(), true);
        }

        #[test]
        fn a_nan_reaches_every_sum() {
            let logits =
                Tensor::<2>::from_data(TensorData::new(vec![1.0, f32::NAN], [1, 2]), &Device::flex());
            let (_, sums) = row_sums(logits);
            assert!(sums.normaliser.into_scalar::<f32>().is_nan());
        }
    }
}
