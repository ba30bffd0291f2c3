//! From summed gradients to new weights: clipping, the schedule's rate, `AdamW`.

use burn::{module::Module, optim::GradientsParams};
use serde::{Deserialize, Serialize};

use super::{AdamW, AdamWConfig, Schedule, ScheduleError, clip_gradient_norm};
use crate::{
    checkpoint::{State, StateError},
    number::Positive,
};

/// The settings of an update, the same for every trainer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpdateConfig {
    /// Peak learning rate. TRL's SFT: 2e-5.
    pub learning_rate: Positive,
    /// How the rate changes over the run. transformers: linear decay to 0 without warm-up.
    pub schedule: Schedule,
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// Ceiling of the global gradient norm. transformers: 1.
    pub max_grad_norm: Positive,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            learning_rate: Positive::new(2e-5),
            schedule: Schedule::Linear { warmup: super::Span::default() },
            optimizer: AdamWConfig::default(),
            max_grad_norm: Positive::new(1.0),
        }
    }
}

/// The optimiser with its place in the schedule.
#[derive(Debug)]
pub struct Updates {
    config: UpdateConfig,
    optimizer: AdamW,
    total_steps: u64,
    made: u64,
    /// What the schedule's rates are multiplied by.
    rate_factor: f64,
}

/// What an update did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// The rate it was made with.
    pub learning_rate: f64,
    /// The global norm of the gradients before clipping.
    pub grad_norm: f64,
}

/// An update could not be made.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The gradients overflowed or are NaN; the weights were left alone.
    #[error("the gradient norm is {norm}: lower `learning_rate`, or look at this step's samples")]
    NotFinite {
        /// The norm.
        norm: f64,
    },
}

impl Updates {
    /// An optimiser at the start of a run of `total_steps`.
    ///
    /// # Errors
    /// If the schedule cannot be computed from this rate.
    pub fn new(config: UpdateConfig, total_steps: u64) -> Result<Self, ScheduleError> {
        config.schedule.check(config.learning_rate.get())?;
        let optimizer = AdamW::new(config.optimizer.clone());
        Ok(Self { config, optimizer, total_steps, made: 0, rate_factor: 1.0 })
    }

    /// Updates a model with the gradients of one step.
    ///
    /// # Errors
    /// If the gradients are not finite. The model comes back with the error, unchanged.
    pub fn apply<M: Module>(
        &mut self,
        model: M,
        gradients: GradientsParams,
    ) -> Result<(M, Update), (M, UpdateError)> {
        let (gradients, grad_norm) = clip_gradient_norm(gradients, &model, self.config.max_grad_norm.get());
        if !grad_norm.is_finite() {
            return Err((model, UpdateError::NotFinite { norm: grad_norm }));
        }
        let peak = self.config.learning_rate.get();
        let scheduled = self.config.schedule.learning_rate(self.made, self.total_steps, peak);
        let learning_rate = scheduled * self.rate_factor;
        self.made += 1;
        Ok((self.optimizer.step(learning_rate, model, gradients), Update { learning_rate, grad_norm }))
    }

    /// Puts the optimiser's moments and the place in the schedule into `state`.
    ///
    /// # Errors
    /// If they cannot be read from their device.
    pub fn save(&self, state: &mut State) -> Result<(), StateError> {
        state.insert("updates", &self.made)?;
        state.insert("rate_factor", &self.rate_factor)?;
        let mut optimizer = State::new();
        self.optimizer.save(&mut optimizer)?;
        state.insert_state("optimizer", optimizer);
        Ok(())
    }

    /// Goes on with `model` from what [`save`](Self::save) put into `state`.
    ///
    /// # Errors
    /// If something is missing or belongs to another model.
    pub fn restore<M: Module>(&mut self, state: &mut State, model: &M) -> Result<(), StateError> {
        let mut optimizer = state.take_state("optimizer");
        self.optimizer.restore(&mut optimizer, model)?;
        self.made = state.take("updates")?;
        self.rate_factor = state.take("rate_factor")?;
        optimizer.finish()
    }

    /// Multiplies the schedule's rates from here on, on top of earlier factors.
    pub fn scale_rate(&mut self, factor: f64) {
        self.rate_factor *= factor;
    }

    /// Updates made so far.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made
    }
}
