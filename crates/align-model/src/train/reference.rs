//! The model that a policy is held to.

use std::num::NonZeroU64;

use super::{Ema, EmaConfig, EmaWarmup};
use crate::{
    causal_lm::CausalLm,
    checkpoint::{Resumable, State, StateError},
    number::{PositiveUnit, ProperFraction},
};

/// How a reference follows its policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FollowPolicy {
    /// Updates of the policy between two moves.
    pub every: NonZeroU64,
    /// How much of the reference remains at each move; 0 makes it the policy.
    pub remaining: ProperFraction,
}

impl FollowPolicy {
    /// Every so many updates it moves so far toward the policy; 1 makes it the policy.
    #[must_use]
    pub fn moving(every: NonZeroU64, mixup: PositiveUnit) -> Self {
        Self { every, remaining: ProperFraction::new(1.0 - mixup.get()) }
    }

    /// A moving average, taken after each update, of which so much remains each time.
    #[must_use]
    pub fn averaged(decay: ProperFraction) -> Self {
        Self { every: NonZeroU64::MIN, remaining: decay }
    }
}

/// A model that stays as it is, or follows the policy that is held to it.
#[derive(Debug)]
pub struct ReferenceModel<M> {
    model: M,
    follows: Option<Follows>,
}

/// What a reference is, as an average of policies, and how often it moves.
#[derive(Debug)]
struct Follows {
    every: NonZeroU64,
    average: Ema,
}

impl<M: CausalLm> ReferenceModel<M> {
    /// A reference that begins as `model`, and, if it follows, as an average that begins as `policy`.
    pub fn new(model: M, follow: Option<FollowPolicy>, policy: &M) -> Self {
        let follows = follow.map(|FollowPolicy { every, remaining }| {
            let config = EmaConfig { decay: remaining, warmup: EmaWarmup::None };
            Follows { every, average: Ema::new(config, policy) }
        });
        Self { model: model.valid(), follows }
    }

    /// The reference as it is now, without gradients.
    #[must_use]
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Follows the policy after this many updates.
    pub fn follow(&mut self, policy: &M, made: u64) {
        if let Some(follows) = &mut self.follows
            && made.is_multiple_of(follows.every.get())
        {
            follows.average.update(policy);
            self.model = follows.average.apply(policy.clone()).valid();
        }
    }

    /// Writes down what a resumed run needs.
    ///
    /// # Errors
    /// If a value cannot be written.
    pub fn save(&self, state: &mut State) -> Result<(), StateError> {
        self.follows.as_ref().map_or(Ok(()), |follows| follows.average.save(state))
    }

    /// Goes on from what was saved. The average begins as the policy did, so one that was never moved is put back as well.
    ///
    /// # Errors
    /// If the state is not that of this reference.
    pub fn restore(&mut self, state: &mut State, policy: &M, made: u64) -> Result<(), StateError> {
        if let Some(follows) = &mut self.follows {
            follows.average.restore(state)?;
            if made >= follows.every.get() {
                self.model = follows.average.apply(policy.clone()).valid();
            }
        }
        Ok(())
    }
}
