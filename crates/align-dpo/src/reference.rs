//! The policy that another is held to.

mod cache;
mod precomputed;

use std::num::NonZeroU64;

use align_model::{
    causal_lm::CausalLm,
    checkpoint::{Resumable, State, StateError},
    logprob::token_log_probs,
    train::{Ema, EmaConfig, EmaWarmup},
};
use burn::tensor::Tensor;

use crate::{
    config::{PreferenceConfigError, ReferencePolicy},
    layout::{Layout, Prompted},
};
pub use cache::{CacheError, CacheKey};
pub use precomputed::{MissingLogProbs, ReferenceLogProbs};

/// What a trainer is given as its reference.
#[derive(Debug)]
pub enum Reference<M> {
    /// Nothing, for an objective that needs none.
    Nothing,
    /// A model: a copy of the policy, the policy without its adapter, or any other.
    Model(M),
    /// What a model said before.
    Precomputed(ReferenceLogProbs),
}

impl<M> Reference<M> {
    /// Checks that this is what the settings ask for.
    pub(crate) fn check(&self, policy: Option<ReferencePolicy>) -> Result<(), PreferenceConfigError> {
        let given = match self {
            Self::Nothing => "none",
            Self::Model(_) => "a model",
            Self::Precomputed(_) => "precomputed log-probabilities",
        };
        let expected = match policy {
            None => "none",
            Some(ReferencePolicy::Precomputed {}) => "precomputed log-probabilities",
            Some(_) => "a model",
        };
        if given == expected {
            Ok(())
        } else {
            Err(PreferenceConfigError::OtherReference { expected, given })
        }
    }
}

/// A reference that may follow its policy.
#[derive(Debug)]
pub(crate) struct Anchor<M> {
    reference: Reference<M>,
    follows: Option<Follows>,
}

/// A reference that follows: what it is, as an average of policies, and how often it moves.
#[derive(Debug)]
struct Follows {
    every: NonZeroU64,
    average: Ema,
}

impl<M: CausalLm> Anchor<M> {
    pub(crate) fn new(reference: Reference<M>, policy: Option<ReferencePolicy>, model: &M) -> Self {
        let follows = policy.and_then(ReferencePolicy::moves).map(|(every, decay)| {
            let config = EmaConfig { decay, warmup: EmaWarmup::None };
            Follows { every, average: Ema::new(config, model) }
        });
        Self { reference, follows }
    }

    /// Log-probabilities of the layout's targets, without gradients; `None` without a reference. `[targets]`
    pub(crate) fn log_probs(
        &self,
        layout: &Layout,
        items: &[Prompted<'_>],
        policy: &M,
    ) -> Result<Option<Tensor<1>>, MissingLogProbs> {
        Ok(match &self.reference {
            Reference::Nothing => None,
            Reference::Model(model) => Some(token_log_probs(model, &layout.batch, &layout.targets).values),
            Reference::Precomputed(known) => Some(known.of(items, &policy.valid().device())?),
        })
    }

    /// Follows the policy after this many updates.
    pub(crate) fn follow(&mut self, policy: &M, made: u64) {
        if let Some(follows) = &mut self.follows
            && made.is_multiple_of(follows.every.get())
        {
            follows.average.update(policy);
            self.reference = Reference::Model(follows.average.apply(policy.clone()).valid());
        }
    }

    pub(crate) fn save(&self, state: &mut State) -> Result<(), StateError> {
        let mut reference = State::new();
        if let Some(follows) = &self.follows {
            follows.average.save(&mut reference)?;
        }
        state.insert_state("reference", reference);
        Ok(())
    }

    /// Goes on from what was saved. The average begins as the policy did, so one that was never moved is put back as well.
    pub(crate) fn restore(&mut self, state: &mut State, policy: &M, made: u64) -> Result<(), StateError> {
        let mut reference = state.take_state("reference");
        if let Some(follows) = &mut self.follows {
            follows.average.restore(&mut reference)?;
            if made >= follows.every.get() {
                self.reference = Reference::Model(follows.average.apply(policy.clone()).valid());
            }
        }
        reference.finish()
    }
}
