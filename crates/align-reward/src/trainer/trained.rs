//! A module under training, with its optimiser.

use align_model::{
    checkpoint::{State, StateError},
    train::{ScheduleError, Update, UpdateConfig, UpdateError, Updates, restore_trained, save_trained},
};
use burn::{module::Module, optim::GradientsParams};

/// A module, its optimiser and their place in the run.
#[derive(Debug)]
pub(crate) struct Trained<M> {
    /// Away only while an update consumes it.
    model: Option<M>,
    updates: Updates,
}

impl<M: Module> Trained<M> {
    pub(crate) fn new(model: M, update: UpdateConfig, total_steps: u64) -> Result<Self, ScheduleError> {
        Ok(Self { model: Some(model), updates: Updates::new(update, total_steps)? })
    }

    pub(crate) fn model(&self) -> &M {
        let Some(model) = &self.model else { unreachable!("the model is away only during an update") };
        model
    }

    /// Updates made so far.
    pub(crate) fn made(&self) -> u64 {
        self.updates.made()
    }

    /// Updates the model, unless the gradients are not finite.
    pub(crate) fn update(&mut self, gradients: GradientsParams) -> Result<Update, UpdateError> {
        let model = self.take();
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
        let (model, restored) = match restore_trained(self.take(), &mut parameters) {
            Ok(model) => (model, parameters.finish()),
            Err((model, error)) => (model, Err(error)),
        };
        let model = self.model.insert(model);
        restored?;
        let mut updates = state.take_state("updates");
        self.updates.restore(&mut updates, model)?;
        updates.finish()
    }

    fn take(&mut self) -> M {
        let Some(model) = self.model.take() else { unreachable!("the model is away only during an update") };
        model
    }
}
