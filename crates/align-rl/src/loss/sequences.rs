//! Sums and means over the sequences of a packed batch.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

/// Which of a batch's tokens belong to which sequence.
#[derive(Debug, Clone)]
pub(crate) struct Sequences {
    /// The sequence of each token. `[targets]`
    owners: Tensor<1, Int>,
    /// One over the tokens of each sequence. `[sequences]`
    inverse_counts: Tensor<1>,
}

impl Sequences {
    /// Sequences of so many tokens each, beside tensors like `like`.
    pub(crate) fn new(counts: &[usize], like: &Tensor<1>) -> Self {
        let device = like.device();
        let owners: Vec<i64> = counts
            .iter()
            .enumerate()
            .flat_map(|(index, &count)| std::iter::repeat_n(index as i64, count))
            .collect();
        let inverse: Vec<f32> = counts.iter().map(|&count| 1.0 / count.max(1) as f32).collect();
        let (tokens, sequences) = (owners.len(), inverse.len());
        Self {
            owners: Tensor::from_data(TensorData::new(owners, [tokens]), &device),
            inverse_counts: Tensor::from_data(TensorData::new(inverse, [sequences]), &device),
        }
    }

    /// The sum over each token's sequence, at each of its tokens. `[targets]`
    pub(crate) fn spread_sum(&self, values: Tensor<1>) -> Tensor<1> {
        self.sum(values).select(0, self.owners.clone())
    }

    /// The mean over each token's sequence, at each of its tokens. `[targets]`
    pub(crate) fn spread_mean(&self, values: Tensor<1>) -> Tensor<1> {
        (self.sum(values) * self.inverse_counts.clone()).select(0, self.owners.clone())
    }

    /// As [`spread_mean`](Self::spread_mean), over the tokens that `kept` marks; 0 where it marks none.
    pub(crate) fn spread_mean_of(&self, values: Tensor<1>, kept: Tensor<1>) -> Tensor<1> {
        let counts = self.sum(kept.clone()).clamp_min(1.0);
        (self.sum(values * kept) / counts).select(0, self.owners.clone())
    }

    /// `[sequences]`
    fn sum(&self, values: Tensor<1>) -> Tensor<1> {
        self.inverse_counts.zeros_like().select_assign(0, self.owners.clone(), values, IndexingUpdateOp::Add)
    }
}
