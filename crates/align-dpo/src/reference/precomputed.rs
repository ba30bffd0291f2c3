//! What a reference says of examples, computed once.

use std::{collections::BTreeMap, num::NonZeroUsize};

use align_model::{
    causal_lm::CausalLm,
    logprob::{CompletionLayout, Prompted, Prompts, token_log_probs, vector},
    preference::{PreferenceExample, UnpairedExample},
};
use burn::tensor::{Device, Tensor};
use sha2::{Digest, Sha256};

use crate::{config::KtoConfig, unpaired::Exchange};

/// Log-probabilities of completions' tokens under a reference policy, found by prompt and completion.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReferenceLogProbs {
    pub(super) of_completions: BTreeMap<CompletionKey, Vec<f32>>,
}

/// The first half of the SHA-256 of a prompt and its completion.
pub(super) type CompletionKey = [u8; 16];

/// A completion was not among those that the reference was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the precomputed log-probabilities have nothing on completion {completion} of example {index} of this batch: compute them anew for these data"
)]
pub struct MissingLogProbs {
    /// The example's place in its forward pass.
    pub index: usize,
    /// Which of its completions; the first is 0.
    pub completion: usize,
}

impl ReferenceLogProbs {
    /// Asks `reference` about all completions of some pairs, so many pairs in a forward pass.
    #[must_use]
    pub fn of_pairs<M: CausalLm>(
        reference: &M,
        examples: &[PreferenceExample],
        micro_batch_size: NonZeroUsize,
    ) -> Self {
        let items = examples.iter().map(|example| Prompted {
            prompt: &example.prompt,
            completions: vec![(&example.chosen).into(), (&example.rejected).into()],
        });
        let mut known = Self::default();
        known.ask(reference, items.collect(), micro_batch_size);
        known
    }

    /// Asks `reference` about all completions of judged examples, so many examples in a forward pass.
    #[must_use]
    pub fn of_unpaired<M: CausalLm>(
        reference: &M,
        examples: &[UnpairedExample],
        micro_batch_size: NonZeroUsize,
    ) -> Self {
        let items = examples.iter().map(|example| Prompted {
            prompt: &example.prompt,
            completions: vec![(&example.completion).into()],
        });
        let mut known = Self::default();
        known.ask(reference, items.collect(), micro_batch_size);
        known
    }

    /// Asks `reference` also about the completions that [`KtoTrainer`](crate::KtoTrainer) exchanges in a step over this
    /// batch, where its loss [does so](KtoConfig::exchanges_completions). Which these are depends on the examples that meet:
    /// ask for every batch of the run, in its order. TRL's `reference_KL_logps`.
    ///
    /// # Panics
    /// If a prompt is as long as the reference's context.
    pub fn ask_for_step<M: CausalLm, E: AsRef<UnpairedExample>>(
        &mut self,
        reference: &M,
        batch: &[E],
        config: &KtoConfig,
    ) {
        for group in Exchange::new(config, reference.max_positions()).groups(batch) {
            self.ask_for_evaluation(reference, group, config);
        }
    }

    /// Asks `reference` also about the completions that [`KtoTrainer::evaluate`](crate::KtoTrainer::evaluate) exchanges
    /// among these examples, where its loss [does so](KtoConfig::exchanges_completions).
    ///
    /// # Panics
    /// If a prompt is as long as the reference's context.
    pub fn ask_for_evaluation<M: CausalLm, E: AsRef<UnpairedExample>>(
        &mut self,
        reference: &M,
        examples: &[E],
        config: &KtoConfig,
    ) {
        if config.exchanges_completions() {
            let exchanged = Exchange::new(config, reference.max_positions()).within(examples);
            self.ask(reference, exchanged, config.micro_batch_size);
        }
    }

    /// How many completions are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.of_completions.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of_completions.is_empty()
    }

    /// Asks about what is not known yet.
    fn ask<M: CausalLm>(
        &mut self,
        reference: &M,
        mut items: Vec<Prompted<'_>>,
        micro_batch_size: NonZeroUsize,
    ) {
        items.retain(|item| {
            !keys(std::slice::from_ref(item)).all(|key| self.of_completions.contains_key(&key))
        });
        for items in items.chunks(micro_batch_size.get()) {
            let layout = CompletionLayout::new(
                items,
                Prompts { are_shared: reference.shares_prompts(), are_read: false },
            );
            let values = token_log_probs(reference, &layout.batch, &layout.targets).values;
            let values: Vec<f32> = values.into_data().iter::<f32>().collect();
            for (range, key) in layout.completions.iter().zip(keys(items)) {
                self.of_completions.insert(key, values[range.clone()].to_vec());
            }
        }
    }

    /// What is known of the items' completions. `[targets]`
    pub(super) fn of(&self, items: &[Prompted<'_>], device: &Device) -> Result<Tensor<1>, MissingLogProbs> {
        let mut values = Vec::new();
        for (index, item) in items.iter().enumerate() {
            for (completion, key) in keys(std::slice::from_ref(item)).enumerate() {
                let known = self.of_completions.get(&key);
                values.extend_from_slice(known.ok_or(MissingLogProbs { index, completion })?);
            }
        }
        Ok(vector(values, device))
    }
}

fn keys<'a>(items: &'a [Prompted<'_>]) -> impl Iterator<Item = CompletionKey> + 'a {
    items
        .iter()
        .flat_map(|item| item.completions.iter().map(|completion| key(item.prompt, completion.tokens)))
}

fn key(prompt: &[u32], completion: &[u32]) -> CompletionKey {
    let mut hasher = Sha256::new();
    hasher.update((prompt.len() as u64).to_le_bytes());
    for token in prompt.iter().chain(completion) {
        hasher.update(token.to_le_bytes());
    }
    let digest = hasher.finalize();
    std::array::from_fn(|byte| digest[byte])
}
