//! Which positions predict which tokens, and what belongs to which sequence.

use burn::tensor::{Device, Tensor, TensorData};

use crate::causal_lm::TokenBatch;

/// The tokens of a batch whose probability matters: responses, or everything but each sequence's first token.
///
/// Each target is predicted at the position before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    positions: Vec<usize>,
    tokens: Vec<u32>,
    counts: Vec<usize>,
}

impl Targets {
    /// The tokens of `batch` that `selected` marks. A sequence's first token has nothing before it and is never a
    /// target.
    ///
    /// # Panics
    /// If `selected` has another length than the batch has tokens.
    #[must_use]
    pub fn selected(batch: &TokenBatch, selected: &[bool]) -> Self {
        assert_eq!(selected.len(), batch.tokens().len(), "one mark for each token");
        let mut targets = Self::default();
        for (start, &length) in batch.starts().into_iter().zip(batch.lengths()) {
            let before = targets.tokens.len();
            for index in (start + 1..start + length).filter(|&index| selected[index]) {
                targets.positions.push(index - 1);
                targets.tokens.push(batch.tokens()[index]);
            }
            targets.counts.push(targets.tokens.len() - before);
        }
        targets
    }

    /// Every token but each sequence's first.
    #[must_use]
    pub fn all(batch: &TokenBatch) -> Self {
        Self::selected(batch, &vec![true; batch.tokens().len()])
    }

    /// Number of targets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no target at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Index, among the batch's tokens, of the position that predicts each target.
    #[must_use]
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// The target tokens.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many targets each sequence has.
    #[must_use]
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }
}

/// Log-probabilities of response tokens, sequence after sequence, without padding.
#[derive(Debug, Clone)]
pub struct TokenLogProbs {
    /// `log π(token | what precedes it)`. `[targets]`
    pub values: Tensor<1>,
    /// How many of the values belong to each sequence.
    pub counts: Vec<usize>,
}

impl TokenLogProbs {
    /// `log π(y|x)`: the sum over each sequence's response. Shape `[sequences]`; 0 for a sequence without targets.
    #[must_use]
    pub fn summed(&self) -> Tensor<1> {
        self.weighted(|_| 1.0)
    }

    /// The mean over each sequence's response. Shape `[sequences]`; 0 for a sequence without targets.
    #[must_use]
    pub fn averaged(&self) -> Tensor<1> {
        self.weighted(|count| 1.0 / count as f32)
    }

    fn weighted(&self, weight: impl Fn(usize) -> f32) -> Tensor<1> {
        let weights = membership(&self.counts, weight, &self.values.device());
        weights.matmul(self.values.clone().unsqueeze_dim(1)).squeeze_dim(1)
    }
}

/// Row i holds sequence i's weight at its own targets and 0 elsewhere. Shape `[sequences, targets]`.
fn membership(counts: &[usize], weight: impl Fn(usize) -> f32, device: &Device) -> Tensor<2> {
    let total: usize = counts.iter().sum();
    let mut values = vec![0.0f32; counts.len() * total];
    let mut start = 0;
    for (row, &count) in counts.iter().enumerate() {
        values[row * total + start..row * total + start + count].fill(weight(count));
        start += count;
    }
    Tensor::from_data(TensorData::new(values, [counts.len(), total]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_token_of_a_sequence_is_never_a_target() {
        let batch = TokenBatch::from_sequences(&[vec![7, 8, 9], vec![5], vec![3, 4]]);
        let targets = Targets::all(&batch);
        assert_eq!(targets.positions(), [0, 1, 4]);
        assert_eq!(targets.tokens(), [8, 9, 4]);
        assert_eq!(targets.counts(), [2, 0, 1]);
    }

    #[test]
    fn sums_and_means_stay_inside_their_sequence() {
        let device = Device::flex();
        let log_probs =
            TokenLogProbs { values: Tensor::from_floats([-1.0, -2.0, -4.0], &device), counts: vec![2, 0, 1] };
        let read = |t: Tensor<1>| t.into_data().iter::<f32>().collect::<Vec<_>>();
        assert_eq!(read(log_probs.summed()), [-3.0, 0.0, -4.0]);
        assert_eq!(read(log_probs.averaged()), [-1.5, 0.0, -4.0]);
    }
}
