//! A critic in training.

use align_model::{
    causal_lm::CausalLm,
    checkpoint::{Resumable, State, StateError},
    train::{Learner, ScheduleError, Update, UpdateConfig, UpdateError, gradient_norm},
};
use align_reward::model::{RewardModel, ScoreHead};
use burn::optim::GradientsParams;

use super::Critic;

/// A critic and what updates it.
#[derive(Debug)]
pub(crate) enum CriticLearner<M: CausalLm> {
    Separate(Learner<RewardModel<M>>),
    /// The head alone; the hidden states are the policy's to change.
    Shared(Learner<ScoreHead>),
}

impl<M: CausalLm> CriticLearner<M> {
    pub(crate) fn new(
        critic: Critic<M>,
        config: UpdateConfig,
        total_updates: u64,
    ) -> Result<Self, ScheduleError> {
        Ok(match critic {
            Critic::Separate(model) => Self::Separate(Learner::new(model, config, total_updates)?),
            Critic::Shared(head) => Self::Shared(Learner::new(head, config, total_updates)?),
        })
    }

    /// The critic as a model of its own, given the policy. Parameters are shared with it, not copied.
    pub(crate) fn model(&self, policy: &M) -> RewardModel<M> {
        match self {
            Self::Separate(learner) => learner.model().clone(),
            Self::Shared(learner) => RewardModel::new(policy.clone(), learner.model().clone()),
        }
    }

    /// The longest sequence that it can read.
    pub(crate) fn max_positions(&self, policy: &M) -> usize {
        match self {
            Self::Separate(learner) => learner.model().backbone.max_positions(),
            Self::Shared(_) => policy.max_positions(),
        }
    }

    /// The norm of its gradients, which do not change.
    pub(crate) fn gradient_norm(&self, gradients: &mut GradientsParams) -> f64 {
        match self {
            Self::Separate(learner) => gradient_norm(gradients, learner.model()),
            Self::Shared(learner) => gradient_norm(gradients, learner.model()),
        }
    }

    pub(crate) fn update(&mut self, gradients: GradientsParams) -> Result<Update, UpdateError> {
        match self {
            Self::Separate(learner) => learner.update(gradients),
            Self::Shared(learner) => learner.update(gradients),
        }
    }

    pub(crate) fn scale_rate(&mut self, factor: f64) {
        match self {
            Self::Separate(learner) => learner.scale_rate(factor),
            Self::Shared(learner) => learner.scale_rate(factor),
        }
    }
}

impl<M: CausalLm> Resumable for CriticLearner<M> {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        match self {
            Self::Separate(learner) => learner.save(state),
            Self::Shared(learner) => learner.save(state),
        }
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        match self {
            Self::Separate(learner) => learner.restore(state),
            Self::Shared(learner) => learner.restore(state),
        }
    }
}
