//! The policy that another is held to.

mod cache;
mod precomputed;

use align_model::{
    causal_lm::CausalLm,
    checkpoint::{State, StateError},
    logprob::{CompletionLayout, Prompted, token_log_probs},
    train::ReferenceModel,
};
use burn::tensor::Tensor;

use crate::config::{PreferenceConfigError, ReferencePolicy};
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
pub(crate) enum Anchor<M> {
    Nothing,
    Model(ReferenceModel<M>),
    Precomputed(ReferenceLogProbs),
}

impl<M: CausalLm> Anchor<M> {
    pub(crate) fn new(reference: Reference<M>, policy: Option<ReferencePolicy>, model: &M) -> Self {
        match reference {
            Reference::Nothing => Self::Nothing,
            Reference::Precomputed(known) => Self::Precomputed(known),
            Reference::Model(reference) => {
                let follow = policy.and_then(ReferencePolicy::follows);
                Self::Model(ReferenceModel::new(reference, follow, model))
            }
        }
    }

    /// Log-probabilities of the layout's targets, without gradients; `None` without a reference. `[targets]`
    pub(crate) fn log_probs(
        &self,
        layout: &CompletionLayout,
        items: &[Prompted<'_>],
        policy: &M,
    ) -> Result<Option<Tensor<1>>, MissingLogProbs> {
        Ok(match self {
            Self::Nothing => None,
            Self::Model(reference) => {
                Some(token_log_probs(reference.model(), &layout.batch, &layout.targets).values)
            }
            Self::Precomputed(known) => Some(known.of(items, &policy.valid().device())?),
        })
    }

    /// Follows the policy after this many updates.
    pub(crate) fn follow(&mut self, policy: &M, made: u64) {
        if let Self::Model(reference) = self {
            reference.follow(policy, made);
        }
    }

    pub(crate) fn save(&self, state: &mut State) -> Result<(), StateError> {
        let mut of_reference = State::new();
        if let Self::Model(reference) = self {
            reference.save(&mut of_reference)?;
        }
        state.insert_state("reference", of_reference);
        Ok(())
    }

    pub(crate) fn restore(&mut self, state: &mut State, policy: &M, made: u64) -> Result<(), StateError> {
        let mut of_reference = state.take_state("reference");
        if let Self::Model(reference) = self {
            reference.restore(&mut of_reference, policy, made)?;
        }
        of_reference.finish()
    }
}
