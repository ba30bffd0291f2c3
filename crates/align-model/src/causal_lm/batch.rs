//! What a model is given to read.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Token sequences laid end to end, without padding.
///
/// Every layer but attention treats positions independently, so padded positions would only be computed to be thrown
/// away. The lengths are the mask: a position attends to itself and to what precedes it *in its own sequence*.
///
/// Sequences that begin alike may share that beginning: [`push_sharing`](Self::push_sharing) lays a prompt down once and
/// what follows it as further segments, each of which attends to the prompt and to itself. A segment that
/// [continues](Self::continues) nothing is a sequence, and in an ordinary batch every segment is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenBatch {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    lengths: Vec<usize>,
    continues: Vec<Option<usize>>,
}

impl TokenBatch {
    /// A batch of whole sequences, each starting at position 0.
    ///
    /// # Panics
    /// If a sequence is empty.
    #[must_use]
    pub fn from_sequences<S: AsRef<[u32]>>(sequences: &[S]) -> Self {
        let mut batch = Self::default();
        for sequence in sequences {
            batch.push(sequence.as_ref(), 0);
        }
        batch
    }

    /// Appends a sequence whose first token stands at `first_position`.
    ///
    /// # Panics
    /// If the sequence is empty.
    pub fn push(&mut self, tokens: &[u32], first_position: usize) {
        self.push_segment(tokens, first_position, None);
    }

    /// Appends a prompt and its continuations, each a segment of its own. The prompt starts at position 0 and is computed
    /// once; each continuation goes on where it ends, and does not see the others. A prompt without continuations is a
    /// sequence like any other.
    ///
    /// The hidden states are those of the sequences laid out whole, prompt and continuation, one by one; the state at the
    /// prompt's last token predicts the first token of every continuation. Only a model that
    /// [`shares_prompts`](super::CausalLm::shares_prompts) can read such a batch.
    ///
    /// # Panics
    /// If the prompt or a continuation is empty.
    pub fn push_sharing(&mut self, prompt: &[u32], continuations: &[impl AsRef<[u32]>]) {
        let index = self.lengths.len();
        self.push_segment(prompt, 0, None);
        for continuation in continuations {
            self.push_segment(continuation.as_ref(), prompt.len(), Some(index));
        }
    }

    fn push_segment(&mut self, tokens: &[u32], first_position: usize, continues: Option<usize>) {
        assert!(!tokens.is_empty(), "a sequence needs at least one token");
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((first_position..first_position + tokens.len()).map(|p| p as u32));
        self.lengths.push(tokens.len());
        self.continues.push(continues);
    }

    /// All token ids, segment after segment.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The position of each token in its sequence; that of a continuation counts its prompt.
    #[must_use]
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// The length of each segment.
    #[must_use]
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The segment whose tokens come before each segment's own: the prompt of a continuation, `None` for a sequence. A
    /// prompt precedes its continuations and continues nothing itself.
    #[must_use]
    pub fn continues(&self) -> &[Option<usize>] {
        &self.continues
    }

    /// Whether any segment continues another.
    #[must_use]
    pub fn shares_prompts(&self) -> bool {
        self.continues.iter().any(Option::is_some)
    }

    /// Number of segments.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.lengths.len()
    }

    /// The index of each segment's first token among [`tokens`](Self::tokens).
    #[must_use]
    pub fn starts(&self) -> Vec<usize> {
        let mut start = 0;
        self.lengths
            .iter()
            .map(|length| {
                start += length;
                start - length
            })
            .collect()
    }

    /// Token ids on a device. Shape `[tokens]`.
    #[must_use]
    pub fn token_tensor(&self, device: &Device) -> Tensor<1, Int> {
        index_tensor(self.tokens.iter().map(|&t| t as usize), device)
    }
}

/// Indices on a device. Shape `[indices]`.
pub(crate) fn index_tensor(indices: impl IntoIterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = indices.into_iter().map(|i| i as i32).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuations_go_on_where_their_prompt_ends() {
        let mut batch = TokenBatch::from_sequences(&[[9u32, 8]]);
        batch.push_sharing(&[1, 2, 3], &[&[4][..], &[5, 6]]);
        batch.push(&[7], 0);
        assert_eq!(batch.tokens(), [9, 8, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(batch.positions(), [0, 1, 0, 1, 2, 3, 3, 4, 0]);
        assert_eq!(batch.lengths(), [2, 3, 1, 2, 1]);
        assert_eq!(batch.continues(), [None, None, Some(1), Some(1), None]);
        assert_eq!(batch.starts(), [0, 2, 5, 6, 8]);
    }

    #[test]
    fn a_prompt_that_nothing_follows_is_a_sequence() {
        let mut batch = TokenBatch::default();
        batch.push_sharing(&[1, 2], &[] as &[&[u32]]);
        assert_eq!(batch, TokenBatch::from_sequences(&[[1, 2]]));
        assert!(!batch.shares_prompts());
    }

    #[test]
    #[should_panic(expected = "at least one token")]
    fn an_empty_continuation_is_refused() {
        TokenBatch::default().push_sharing(&[1, 2], &[&[3][..], &[]]);
    }
}
