//! The policy that another is held to.

use std::num::NonZeroU64;

use align_model::{
    causal_lm::CausalLm,
    checkpoint::{State, StateError},
    number::{PositiveUnit, ProperFraction},
    train::{FollowPolicy, ReferenceModel},
};
use serde::{Deserialize, Serialize};

use crate::error::RlConfigError;

const SYNC_STEPS: NonZeroU64 = NonZeroU64::MIN.saturating_add(511);

/// What the policy is held to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PolicyReference {
    /// A model that stays as it is: a copy of the one that training begins with, unless another is given.
    Frozen {},
    /// The policy without its adapter, which takes no memory of its own.
    AdapterOff {},
    /// The policy of some updates ago: it begins as the policy does, and every so many updates it moves toward it.
    Moving {
        /// Updates between two moves. TRL's `ref_model_sync_steps`: 512.
        #[serde(default = "sync_steps")]
        every: NonZeroU64,
        /// How far it moves: 1 makes it the policy. TRL's `ref_model_mixup_alpha`: 0.6.
        #[serde(default = "mixup")]
        mixup: PositiveUnit,
    },
    /// A moving average of the policy, taken after each update.
    Averaged {
        /// How much of the average remains at each update.
        decay: ProperFraction,
    },
}

impl PolicyReference {
    /// How it follows the policy; `None` if it never moves.
    fn follows(self) -> Option<FollowPolicy> {
        match self {
            Self::Frozen {} | Self::AdapterOff {} => None,
            Self::Moving { every, mixup } => Some(FollowPolicy::moving(every, mixup)),
            Self::Averaged { decay } => Some(FollowPolicy::averaged(decay)),
        }
    }
}

/// A reference model that may follow its policy, or nothing.
#[derive(Debug)]
pub(crate) struct Anchor<M> {
    reference: Option<ReferenceModel<M>>,
}

impl<M: CausalLm> Anchor<M> {
    /// # Errors
    /// If a model is given that nothing asks for, or none is given although there should be one.
    pub(crate) fn new(
        model: Option<M>,
        asked_for: Option<PolicyReference>,
        policy: &M,
    ) -> Result<Self, RlConfigError> {
        let reference = match (model, asked_for) {
            (None, None) => None,
            (Some(model), Some(kind)) => Some(ReferenceModel::new(model, kind.follows(), policy)),
            (None, Some(_)) => return Err(RlConfigError::MissingReference),
            (Some(_), None) => return Err(RlConfigError::NeedlessReferenceModel),
        };
        Ok(Self { reference })
    }

    /// The reference as it is now, without gradients.
    pub(crate) fn model(&self) -> Option<&M> {
        self.reference.as_ref().map(ReferenceModel::model)
    }

    /// Follows the policy after this many updates.
    pub(crate) fn follow(&mut self, policy: &M, made: u64) {
        if let Some(reference) = &mut self.reference {
            reference.follow(policy, made);
        }
    }

    pub(crate) fn save(&self, state: &mut State) -> Result<(), StateError> {
        let mut of_reference = State::new();
        if let Some(reference) = &self.reference {
            reference.save(&mut of_reference)?;
        }
        state.insert_state("reference", of_reference);
        Ok(())
    }

    pub(crate) fn restore(&mut self, state: &mut State, policy: &M, made: u64) -> Result<(), StateError> {
        let mut of_reference = state.take_state("reference");
        if let Some(reference) = &mut self.reference {
            reference.restore(&mut of_reference, policy, made)?;
        }
        of_reference.finish()
    }
}

fn sync_steps() -> NonZeroU64 {
    SYNC_STEPS
}

fn mixup() -> PositiveUnit {
    PositiveUnit::new(0.6)
}
