//! The part of a trainer that is the same for all: a model, and what updates it.

use align_model::{
    causal_lm::CausalLm,
    checkpoint::{State, StateError},
    train::{ScheduleError, Update, UpdateConfig, UpdateError, Updates, restore_trained, save_trained},
};
use burn::optim::GradientsParams;

/// A model in training.
#[derive(Debug)]
pub(crate) struct Learner<M> {
    /// Away only while an update consumes it.
    model: Option<M>,
    updates: Updates,
}

impl<M: CausalLm> Learner<M> {
    pub(crate) fn new(model: M, config: UpdateConfig, total_steps: u64) -> Result<Self, ScheduleError> {
        let model = if model.device().is_autodiff() { model } else { model.train() };
        Ok(Self { model: Some(model), updates: Updates::new(config, total_steps)? })
    }

    pub(crate) fn model(&self) -> &M {
        let Some(model) = &self.model else { unreachable!("the model is away only during an update") };
        model
    }

    /// Updates made so far.
    pub(crate) fn made(&self) -> u64 {
        self.updates.made()
    }

    pub(crate) fn update(&mut self, gradients: GradientsParams) -> Result<Update, UpdateError> {
        let Some(model) = self.model.take() else { unreachable!("the model is away only during an update") };
        let (model, update) = match self.updates.apply(model, gradients) {
            Ok((model, update)) => (model, Ok(update)),
            Err((model, error)) => (model, Err(error)),
        };
        self.model = Some(model);
        update
    }

    pub(crate) fn save(&self, state: &mut State) -> Result<(), StateError> {
        let (mut parameters, mut updates) = (State::new(), State::new());
        save_trained(self.model(), &mut parameters);
        self.updates.save(&mut updates)?;
        state.insert_state("parameters", parameters);
        state.insert_state("updates", updates);
        Ok(())
    }

    pub(crate) fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        let mut parameters = state.take_state("parameters");
        let Some(model) = self.model.take() else { unreachable!("the model is away only during an update") };
        let (model, restored) = match restore_trained(model, &mut parameters) {
            Ok(model) => (model, parameters.finish()),
            Err((model, error)) => (model, Err(error)),
        };
        let mut updates = state.take_state("updates");
        let restored = restored.and_then(|()| self.updates.restore(&mut updates, &model));
        self.model = Some(model);
        restored?;
        updates.finish()
    }
}
