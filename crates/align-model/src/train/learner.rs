//! The part of a trainer that is the same for all: a model, and what updates it.

use burn::{module::Module, optim::GradientsParams, tensor::Device};

use super::{ScheduleError, Update, UpdateConfig, UpdateError, Updates, restore_trained, save_trained};
use crate::checkpoint::{Resumable, State, StateError};

/// A model in training, its optimiser and their place in the run.
///
/// ```
/// # fn f<M: burn::module::Module>(model: M, gradients: burn::optim::GradientsParams) {
/// use align_model::train::{Learner, UpdateConfig};
///
/// let mut learner = Learner::new(model, UpdateConfig::default(), 100).unwrap();
/// let update = learner.update(gradients).unwrap();
/// assert_eq!(learner.made(), 1);
/// println!("step 1 of 100, gradient norm {}", update.grad_norm);
/// # }
/// ```
#[derive(Debug)]
pub struct Learner<M> {
    /// Away only while an update consumes it.
    model: Option<M>,
    updates: Updates,
}

impl<M: Module> Learner<M> {
    /// A model at the start of a run of `total_updates`. Its parameters are made trainable, on the device where they are.
    ///
    /// # Errors
    /// If the schedule contradicts itself.
    pub fn new(model: M, config: UpdateConfig, total_updates: u64) -> Result<Self, ScheduleError> {
        let is_trainable = model.devices().iter().any(Device::is_autodiff);
        let model = if is_trainable { model } else { model.train() };
        Ok(Self { model: Some(model), updates: Updates::new(config, total_updates)? })
    }

    /// The model as it is now.
    #[must_use]
    pub fn model(&self) -> &M {
        let Some(model) = &self.model else { unreachable!("the model is away only during an update") };
        model
    }

    /// Updates made so far.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.updates.made()
    }

    /// Multiplies the schedule's rates from here on, on top of earlier factors.
    pub fn scale_rate(&mut self, factor: f64) {
        self.updates.scale_rate(factor);
    }

    /// Updates the model.
    ///
    /// # Errors
    /// If the gradients are not finite; the model is as it was.
    pub fn update(&mut self, gradients: GradientsParams) -> Result<Update, UpdateError> {
        let model = self.take();
        let (model, update) = match self.updates.apply(model, gradients) {
            Ok((model, update)) => (model, Ok(update)),
            Err((model, error)) => (model, Err(error)),
        };
        self.model = Some(model);
        update
    }

    fn take(&mut self) -> M {
        let Some(model) = self.model.take() else { unreachable!("the model is away only during an update") };
        model
    }
}

impl<M: Module> Resumable for Learner<M> {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        let (mut parameters, mut updates) = (State::new(), State::new());
        save_trained(self.model(), &mut parameters);
        self.updates.save(&mut updates)?;
        state.insert_state("parameters", parameters);
        state.insert_state("updates", updates);
        Ok(())
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
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
}
