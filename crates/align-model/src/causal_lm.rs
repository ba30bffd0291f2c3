//! The seam between language models and everything that trains, samples or scores them.

mod batch;
mod pass;

use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Device, Tensor},
};

pub use batch::TokenBatch;
pub(crate) use batch::index_tensor;
pub use pass::{DropoutSeed, HiddenPass, LogitsBackward, LogitsPass, PassOptions, Recompute};
pub(crate) use pass::{add_gradient, backward_through, leading_rows, plain};

/// A language model that predicts each token from those before it.
///
/// Hidden states and logits are two calls on purpose: trainers need logits at response positions alone, and those in
/// chunks, so that no `[sequences, length, vocab]` tensor ever exists.
pub trait CausalLm: Module + ModuleDisplay {
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

    /// Whether [`hidden`](Self::hidden) and [`training_pass`](Self::training_pass) know what
    /// [continues](TokenBatch::continues) what: only then may a batch have prompts that are shared. For any other model a
    /// trainer lays every sequence out whole, its prompt before it.
    fn shares_prompts(&self) -> bool {
        false
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
    ///
    /// # Panics
    /// If one of them [continues](TokenBatch::continues) another.
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
