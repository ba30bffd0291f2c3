//! Where the numbers of a run go: JSON lines, and whatever else implements [`Recorder`].

use std::path::Path;

use serde_json::{Map, Value};

use super::{Flow, Hook, HookError, Metrics, Progress, StepEvent, json_lines::JsonLines};

/// Receives every number of a run as (step, name, value): those of the trainer and those that hooks measured.
pub trait Recorder {
    /// Called once before the first step that is made. What was recorded after `step`, by a run that ended without a
    /// checkpoint of it, is forgotten: those steps are made again.
    ///
    /// # Errors
    /// If it cannot be.
    fn begin(&mut self, step: u64) -> Result<(), HookError>;

    /// Records all numbers of one step.
    ///
    /// # Errors
    /// If it cannot be.
    fn record(&mut self, step: u64, metrics: &Metrics) -> Result<(), HookError>;

    /// Sends what was recorded to the disk; called before a checkpoint is made, and at the end.
    ///
    /// # Errors
    /// If it cannot be.
    fn sync(&mut self) -> Result<(), HookError> {
        Ok(())
    }
}

/// A hook that hands every number to recorders. It stands behind the hooks whose numbers it is to record.
#[derive(Default)]
pub struct Recording<'a> {
    recorders: Vec<&'a mut dyn Recorder>,
}

impl<'a> Recording<'a> {
    /// Hands numbers to these.
    #[must_use]
    pub fn new(recorders: Vec<&'a mut dyn Recorder>) -> Self {
        Self { recorders }
    }

    fn each(
        &mut self,
        mut act: impl FnMut(&mut dyn Recorder) -> Result<(), HookError>,
    ) -> Result<(), HookError> {
        self.recorders.iter_mut().try_for_each(|recorder| act(&mut **recorder))
    }
}

impl std::fmt::Debug for Recording<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording").field("recorders", &self.recorders.len()).finish()
    }
}

impl<S, R> Hook<S, R> for Recording<'_> {
    fn begin(&mut self, progress: Progress, metrics: &mut Metrics, _trainer: &S) -> Result<(), HookError> {
        self.each(|recorder| {
            recorder.begin(progress.step)?;
            if progress.step == 0 && !metrics.is_empty() { recorder.record(0, metrics) } else { Ok(()) }
        })
    }

    fn after_step(&mut self, event: &mut StepEvent<'_, R>, _trainer: &S) -> Result<Flow, HookError> {
        self.each(|recorder| recorder.record(event.progress.step, event.metrics))?;
        Ok(Flow::Continue)
    }

    fn before_checkpoint(&mut self) -> Result<(), HookError> {
        self.each(|recorder| recorder.sync())
    }

    fn at_end(&mut self, _outcome: &super::Outcome, _trainer: &S) -> Result<(), HookError> {
        self.each(|recorder| recorder.sync())
    }
}

/// Records every step as a line of JSON: `{"step": 1, "loss": …}`. A number that is not finite becomes `null`.
#[derive(Debug)]
pub struct JsonlRecorder(JsonLines);

impl JsonlRecorder {
    /// Opens a file, which is made if need be. Its lines up to the step that a run is resumed after stay, all others
    /// are removed when the run begins.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, HookError> {
        JsonLines::open(path).map(Self).map_err(|error| failed(path, "open", &error))
    }

    fn then(&self, action: &str, result: std::io::Result<()>) -> Result<(), HookError> {
        result.map_err(|error| failed(self.0.path(), action, &error))
    }
}

fn failed(path: &Path, action: &str, error: &std::io::Error) -> HookError {
    HookError { hook: "recorder", reason: format!("cannot {action} {}: {error}", path.display()) }
}

impl Recorder for JsonlRecorder {
    fn begin(&mut self, step: u64) -> Result<(), HookError> {
        let cut = self.0.cut_after(step);
        self.then("shorten", cut)
    }

    fn record(&mut self, step: u64, metrics: &Metrics) -> Result<(), HookError> {
        let mut line = Map::from_iter([("step".to_string(), Value::from(step))]);
        line.extend(metrics.iter().map(|(name, value)| (name.to_string(), Value::from(value))));
        let written = self.0.append([Value::Object(line)]);
        self.then("write", written)
    }

    fn sync(&mut self) -> Result<(), HookError> {
        let synced = self.0.sync();
        self.then("write", synced)
    }
}
