//! Completions of other prompts, on which `kto` measures its point of reference.

use std::num::NonZeroUsize;

use align_model::{logprob::Prompted, preference::UnpairedExample};

use crate::config::KtoConfig;

/// How completions are exchanged among examples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange {
    group_size: Option<NonZeroUsize>,
    /// Tokens of a prompt with its completion, at most.
    max_length: usize,
    /// What the model reads.
    max_positions: usize,
}

impl Exchange {
    pub(crate) fn new(config: &KtoConfig, max_positions: usize) -> Self {
        let max_length = config.max_length.get().min(max_positions);
        Self { group_size: config.loss_batch_size, max_length, max_positions }
    }

    /// The groups of a batch that is trained on.
    pub(crate) fn groups<E>(self, batch: &[E]) -> std::slice::Chunks<'_, E> {
        batch.chunks(self.group_size.map_or(batch.len().max(1), NonZeroUsize::get))
    }

    /// Each prompt with the completion of the example before it; the first has the last one's.
    pub(crate) fn within<E: AsRef<UnpairedExample>>(self, group: &[E]) -> Vec<Prompted<'_>> {
        let previous = group.iter().cycle().skip(group.len().saturating_sub(1));
        let pairs = group.iter().map(AsRef::as_ref).zip(previous.map(AsRef::as_ref));
        pairs
            .map(|(UnpairedExample { prompt, .. }, UnpairedExample { completion, .. })| {
                let limit = self.max_length.max(prompt.len() + 2).min(self.max_positions);
                let left = limit.saturating_sub(prompt.len());
                let completion = &completion[..completion.len().min(left)];
                Prompted { prompt, completions: vec![completion.into()] }
            })
            .collect()
    }
}
