//! Which positions predict which tokens, and what belongs to which sequence.

use burn::tensor::{Device, Tensor, TensorData};

use crate::causal_lm::TokenBatch;

/// The tokens of a batch whose probability matters: responses, or everything but each sequence's first token.
///
/// Each target is predicted at the position before it: the first token of a continuation at the last of its prompt, which
/// may so predict several targets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    positions: Vec<usize>,
    tokens: Vec<u32>,
    counts: Vec<usize>,
}

impl Targets {
    /// The tokens of `batch` that `selected` marks. A sequence's first token has nothing before it and is never a
    /// target; a continuation's first token has its prompt.
    ///
    /// # Panics
    /// If `selected` has another length than the batch has tokens.
    #[must_use]
    pub fn selected(batch: &TokenBatch, selected: &[bool]) -> Self {
        assert_eq!(selected.len(), batch.tokens().len(), "one mark for each token");
        let mut targets = Self::default();
        let (starts, lengths) = (batch.starts(), batch.lengths());
        for ((&start, &length), continues) in starts.iter().zip(lengths).zip(batch.continues()) {
            let before = targets.tokens.len();
            if let (&Some(prompt), true) = (continues, selected[start]) {
                targets.positions.push(starts[prompt] + lengths[prompt] - 1);
                targets.tokens.push(batch.tokens()[start]);
            }
            for index in (start + 1..start + length).filter(|&index| selected[index]) {
                targets.positions.push(index - 1);
                targets.tokens.push(batch.tokens()[index]);
            }
            targets.counts.push(targets.tokens.len() - before);
        }
        targets
    }

    /// Every token but each sequence's first. A prompt's tokens count once, however many continuations share it.
    #[must_use]
    pub fn all(batch: &TokenBatch) -> Self {
        Self::selected(batch, &vec![true; batch.tokens().len()])
    }

    /// Every token of every continuation, and nothing else: sequences and prompts have a count of 0.
    #[must_use]
    pub fn continuations(batch: &TokenBatch) -> Self {
        let segments = batch.lengths().iter().zip(batch.continues());
        let marks =
            segments.flat_map(|(&length, continues)| std::iter::repeat_n(continues.is_some(), length));
        Self::selected(batch, &marks.collect::<Vec<_>>())
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

    /// Index, among the batch's tokens, of the position that predicts each target. An index occurs more than once where a
    /// prompt has several continuations.
    #[must_use]
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// The target tokens.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many targets each of the batch's segments has: one number a sequence, a prompt and a continuation.
    #[must_use]
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }
}

/// Log-probabilities of response tokens, sequence after sequence, without padding.
///
/// Where a batch shares prompts, "sequence" is each of its segments: a prompt and each of its continuations count for
/// themselves, in the batch's order.
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
    fn the_first_token_of_a_continuation_is_predicted_by_its_prompt() {
        let mut batch = TokenBatch::from_sequences(&[vec![7, 8]]);
        batch.push_sharing(&[1, 2, 3], &[&[4][..], &[5, 6]]);
        let all = Targets::all(&batch);
        assert_eq!(all.positions(), [0, 2, 3, 4, 4, 6]);
        assert_eq!(all.tokens(), [8, 2, 3, 4, 5, 6]);
        assert_eq!(all.counts(), [1, 2, 1, 2]);
        let continuations = Targets::continuations(&batch);
        assert_eq!(continuations.positions(), [4, 4, 6]);
        assert_eq!(continuations.tokens(), [4, 5, 6]);
        assert_eq!(continuations.counts(), [0, 0, 1, 2]);
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
