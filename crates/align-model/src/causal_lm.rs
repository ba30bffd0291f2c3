//! The seam between language models and everything that trains, samples or scores them.

mod pass;

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};

pub use pass::{DropoutSeed, HiddenPass, LogitsBackward, LogitsPass, PassOptions, Recompute};
pub(crate) use pass::{add_gradient, backward_through, plain};

/// Token sequences laid end to end, without padding.
///
/// Every layer but attention treats positions independently, so padded positions would only be computed to be thrown
/// away. The lengths are the mask: a position attends to itself and to what precedes it *in its own sequence*.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenBatch {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    lengths: Vec<usize>,
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
        assert!(!tokens.is_empty(), "a sequence needs at least one token");
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((first_position..first_position + tokens.len()).map(|p| p as u32));
        self.lengths.push(tokens.len());
    }

    /// All token ids, sequence after sequence.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The position of each token in its sequence.
    #[must_use]
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// The length of each sequence.
    #[must_use]
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Number of sequences.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.lengths.len()
    }

    /// The index of each sequence's first token among [`tokens`](Self::tokens).
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

/// A language model that predicts each token from those before it.
///
/// Hidden states and logits are two calls on purpose: trainers need logits at response positions alone, and those in
/// chunks, so that no `[sequences, length, vocab]` tensor ever exists.
pub trait CausalLm: Module {
    /// Final hidden states, normalised and ready for the head. Shape `[tokens, hidden]`, in the batch's order.
    ///
    /// # Panics
    /// If a token id is not below [`vocab_size`](Self::vocab_size) or a position not below
    /// [`max_positions`](Self::max_positions); both are checked on the host, before anything reaches the device.
    fn hidden(&self, batch: &TokenBatch) -> Tensor<2>;

    /// Final hidden states of a training step, with the way back from them to the model's parameters.
    ///
    /// The default keeps the graph of [`hidden`](Self::hidden), whatever `options` say of recomputation: that decides
    /// memory and not numbers. A model with dropout has to look at [`PassOptions::dropout`].
    ///
    /// # Panics
    /// As [`hidden`](Self::hidden) does.
    fn training_pass<'a>(&'a self, batch: &'a TokenBatch, options: PassOptions) -> HiddenPass<'a> {
        let _ = options;
        HiddenPass::keeping_graph(self, self.hidden(batch))
    }

    /// Next-token logits. `hidden`: `[positions, hidden]`; result: `[positions, vocab]`.
    fn logits(&self, hidden: Tensor<2>) -> Tensor<2>;

    /// Next-token logits of a training step, with the way back from them. `hidden`: `[positions, hidden]`, without a graph.
    ///
    /// The default keeps the graph of [`logits`](Self::logits).
    fn training_logits(&self, hidden: Tensor<2>) -> LogitsPass<'_> {
        LogitsPass::keeping_graph(self, hidden, |hidden| self.logits(hidden))
    }

    /// Number of logits, and one more than the largest token id.
    fn vocab_size(&self) -> usize;

    /// One more than the largest position, where the model has such a limit.
    fn max_positions(&self) -> usize;

    /// Where the weights are.
    fn device(&self) -> Device;
}

/// A model that can go on from where it stopped, keeping keys and values.
pub trait IncrementalLm: CausalLm {
    /// Keys and values of some sequences.
    type Cache: Cache;

    /// Reads whole prompts. Returns their hidden states `[tokens, hidden]` and a cache with a row for each.
    fn prefill(&self, prompts: &TokenBatch) -> (Tensor<2>, Self::Cache);

    /// Appends one token to every row. Returns hidden states `[rows, hidden]`.
    ///
    /// # Panics
    /// If `tokens` has another length than the cache has rows.
    fn extend(&self, tokens: &[u32], cache: &mut Self::Cache) -> Tensor<2>;
}

/// What generation asks of a cache.
pub trait Cache {
    /// Keeps the named rows, in that order; a row may be named several times (samples of one prompt) or left out
    /// (finished sequences).
    fn select(&mut self, rows: &[usize]);

    /// Number of rows.
    fn rows(&self) -> usize;
}
