//! The trainer of a run together with how far it has come in its data.

use std::{error::Error, fmt, sync::Arc};

use align_model::{
    checkpoint::{Resumable, State, StateError},
    decoder::Decoder,
    sft::{SftError, SftReport, SftRow, SftTrainer},
    train::{Averaged, Step},
};

use super::{
    batches::{Origin, SftBatch},
    stream::{SharedPosition, StreamError},
};

const POSITION: &str = "stream_position";

/// A trainer that keeps in its checkpoints how far it has come in a stream.
#[derive(Debug)]
pub(super) struct Learner {
    trainer: Averaged<SftTrainer<Decoder>>,
    /// Of data in memory nothing: the number of steps tells.
    position: Option<SharedPosition>,
}

/// Why a step could not be made.
#[derive(Debug)]
pub(super) enum LearnerError {
    /// Its batch cannot be read.
    Batch(Arc<StreamError>),
    /// The trainer's reason.
    Step(SftError),
}

impl fmt::Display for LearnerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(error) => error.fmt(f),
            Self::Step(error) => error.fmt(f),
        }
    }
}

impl Error for LearnerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Batch(error) => error.source(),
            Self::Step(error) => error.source(),
        }
    }
}

impl Learner {
    /// A trainer at the beginning of its data.
    pub(super) fn new(trainer: Averaged<SftTrainer<Decoder>>, position: Option<SharedPosition>) -> Self {
        Self { trainer, position }
    }

    /// The model that is evaluated and saved.
    pub(super) fn result(&self) -> Decoder {
        self.trainer.result()
    }
}

impl Step<SftBatch> for Learner {
    type Report = SftReport;
    type Error = LearnerError;

    fn step(&mut self, batch: &SftBatch) -> Result<SftReport, LearnerError> {
        let rows = batch.rows.as_ref().map_err(|error| LearnerError::Batch(error.clone()))?;
        let report = Step::<[SftRow]>::step(&mut self.trainer, rows).map_err(LearnerError::Step)?;
        if let (Some(position), Origin::Stream(_, reached)) = (&self.position, &batch.origin) {
            position.set(*reached);
        }
        Ok(report)
    }
}

impl Resumable for Learner {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        self.trainer.save(state)?;
        match &self.position {
            Some(position) => state.insert(POSITION, &position.get()),
            None => Ok(()),
        }
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        if let Some(position) = &self.position {
            position.set(state.take(POSITION)?);
        }
        self.trainer.restore(state)
    }
}
