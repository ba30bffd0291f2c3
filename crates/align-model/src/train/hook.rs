//! The seams between trainers, the loop and everything that watches it.

use std::convert::Infallible;

use burn::module::Module;

use super::{Metrics, Outcome};
use crate::checkpoint::{CheckpointError, Manifest, State, StateError};

/// One optimiser step of some algorithm on a batch of its own kind.
pub trait Step<B: ?Sized> {
    /// What the step measured.
    type Report: Report;
    /// Why a step could not be made.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Makes one step.
    ///
    /// # Errors
    /// If the batch cannot be trained on or the result is not finite. The model is then as it was before.
    fn step(&mut self, batch: &B) -> Result<Self::Report, Self::Error>;
}

/// Something that trains a model.
pub trait Trains {
    /// The model.
    type Model: Module;

    /// The model as it is now.
    fn model(&self) -> &Self::Model;
}

/// Named measurements of a step.
pub trait Report {
    /// Names as TRL logs them, and values.
    fn metrics(&self) -> Vec<(&'static str, f64)>;

    /// Further measurements whose names depend on the data, such as `rewards/accuracies/SLICE`.
    fn named_metrics(&self) -> Vec<(String, f64)> {
        Vec::new()
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The step just made; the first is 1. Before a step: the one that is to be made. At the beginning: 0, or the step
    /// that the run was resumed after.
    pub step: u64,
    /// Steps in all.
    pub total_steps: u64,
}

impl Progress {
    /// Whether something that happens every so many steps, and after the last, happens after this one.
    #[must_use]
    pub fn is_due(self, every: std::num::NonZeroU64) -> bool {
        self.step.is_multiple_of(every.get()) || self.step == self.total_steps
    }
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// With the next step.
    Continue,
    /// No further: the run ends as if it had been this long.
    Stop,
}

/// A step that was made.
#[derive(Debug)]
pub struct StepEvent<'a, R> {
    /// Where the run stands.
    pub progress: Progress,
    /// What the trainer said.
    pub report: &'a R,
    /// What was measured so far: the report's metrics and those of the hooks before. A hook may add its own.
    pub metrics: &'a mut Metrics,
}

/// A step that was not made, or what followed one.
#[derive(Debug)]
pub struct Failure<'a> {
    /// The step that failed, or the last one made.
    pub step: u64,
    /// What happened, with what it was because of, in one text.
    pub reason: &'a str,
}

/// Sees every step: recorders, evaluation, early stopping, progress bars.
pub trait Hook<S, R> {
    /// What its state is saved under; two hooks with a state need different names.
    fn name(&self) -> &'static str {
        "hook"
    }

    /// Called once before the first step that is made. Metrics that are added belong to the place where the run begins;
    /// they are recorded if that is step 0.
    ///
    /// # Errors
    /// If the hook cannot do its work; the run then does not begin.
    fn begin(&mut self, _progress: Progress, _metrics: &mut Metrics, _trainer: &S) -> Result<(), HookError> {
        Ok(())
    }

    /// Called before each step.
    ///
    /// # Errors
    /// If the hook cannot do its work; the run then ends.
    fn before_step(&mut self, _progress: Progress, _trainer: &S) -> Result<(), HookError> {
        Ok(())
    }

    /// Called after each step.
    ///
    /// # Errors
    /// If the hook cannot do its work; the run then ends.
    fn after_step(&mut self, event: &mut StepEvent<'_, R>, trainer: &S) -> Result<Flow, HookError>;

    /// Called before a checkpoint is made: what lies in files of the hook's own has to be on the disk by then.
    ///
    /// # Errors
    /// If the hook cannot do its work; the run then ends.
    fn before_checkpoint(&mut self) -> Result<(), HookError> {
        Ok(())
    }

    /// Called when a checkpoint was made or could not be made.
    fn after_checkpoint(&mut self, _made: Result<&Manifest, &CheckpointError>) {}

    /// Called when the run is over or was asked to stop, after the last checkpoint.
    ///
    /// # Errors
    /// If the hook cannot do its work.
    fn at_end(&mut self, _outcome: &Outcome, _trainer: &S) -> Result<(), HookError> {
        Ok(())
    }

    /// Called when a step, a hook or a checkpoint failed and the run ends for it.
    fn on_failure(&mut self, _failure: &Failure<'_>, _trainer: &S) {}

    /// Puts everything that a later step depends on into `state`, as [`Resumable::save`](crate::checkpoint::Resumable).
    ///
    /// # Errors
    /// If it cannot be.
    fn save(&self, _state: &mut State) -> Result<(), StateError> {
        Ok(())
    }

    /// Takes out of `state` what [`save`](Self::save) put in. Called only if that was anything, before
    /// [`begin`](Self::begin).
    ///
    /// # Errors
    /// If something is missing or does not fit.
    fn restore(&mut self, _state: &mut State) -> Result<(), StateError> {
        Ok(())
    }
}

/// A hook could not do its work.
#[derive(Debug, thiserror::Error)]
#[error("{hook}: {reason}")]
pub struct HookError {
    /// Which hook.
    pub hook: &'static str,
    /// What it was doing, where, and what happened.
    pub reason: String,
}

/// A run ended early. `E` is the trainer's error, `B` that of batches which [may be
/// unreadable](super::TrainingLoop::try_run).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError<E: std::error::Error + 'static, B: std::error::Error + 'static = Infallible> {
    /// A batch could not be read.
    #[error("the batch of step {step} cannot be read{}", kept(*last_checkpoint))]
    Batch {
        /// The step that it was for; the first is 1. Of a resumed run that cannot read what it has learnt: the last one
        /// made.
        step: u64,
        /// The step of the last checkpoint, where checkpoints are made.
        last_checkpoint: Option<u64>,
        /// Why.
        #[source]
        source: B,
    },
    /// A step failed.
    #[error("step {step}{} failed{}", on(batch.as_ref()), kept(*last_checkpoint))]
    Step {
        /// The step; the first is 1.
        step: u64,
        /// Its batch in the caller's words, where the caller can describe one.
        batch: Option<String>,
        /// The step of the last checkpoint, where checkpoints are made.
        last_checkpoint: Option<u64>,
        /// Why.
        #[source]
        source: E,
    },
    /// A hook failed.
    #[error("after step {step}")]
    Hook {
        /// The last step made; 0 before the first.
        step: u64,
        /// Why.
        #[source]
        source: HookError,
    },
    /// A checkpoint could not be made.
    #[error("no checkpoint was made after step {step}{}", kept(*last_checkpoint))]
    Checkpoint {
        /// The last step made.
        step: u64,
        /// The step of the last checkpoint, which stands.
        last_checkpoint: Option<u64>,
        /// Why.
        #[source]
        source: Box<CheckpointError>,
    },
}

impl<E: std::error::Error + 'static, B: std::error::Error + 'static> FitError<E, B> {
    /// The step that failed, or the last one made.
    #[must_use]
    pub fn step(&self) -> u64 {
        match self {
            Self::Batch { step, .. }
            | Self::Step { step, .. }
            | Self::Hook { step, .. }
            | Self::Checkpoint { step, .. } => *step,
        }
    }
}

fn on(batch: Option<&String>) -> String {
    batch.map_or_else(String::new, |batch| format!(" on {batch}"))
}

fn kept(checkpoint: Option<u64>) -> String {
    checkpoint.map_or_else(String::new, |step| format!("; the checkpoint of step {step} stands"))
}
