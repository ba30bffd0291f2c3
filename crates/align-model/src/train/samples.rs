//! What a model says while it learns.

use std::{num::NonZeroU64, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Flow, Hook, HookError, Metrics, Progress, StepEvent, json_lines::JsonLines};

/// When samples are generated: before the first step, every so many steps and after the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplesConfig {
    /// Steps from one time to the next.
    pub every: NonZeroU64,
}

impl Default for SamplesConfig {
    fn default() -> Self {
        Self { every: NonZeroU64::MIN.saturating_add(499) }
    }
}

/// A text that a model wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratedSample {
    /// What it was given.
    pub prompt: String,
    /// What it wrote.
    pub completion: String,
}

/// A hook that writes generated samples as lines of JSON: `{"step": 100, "prompt": …, "completion": …}`.
#[derive(Debug)]
pub struct SamplesDuringTraining<F> {
    config: SamplesConfig,
    lines: JsonLines,
    generate: F,
}

impl<F> SamplesDuringTraining<F> {
    /// Opens the file, which is made if need be; lines after the step that a run is resumed after are removed when it
    /// begins. `generate` is given the trainer.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open<S>(config: SamplesConfig, path: &Path, generate: F) -> Result<Self, HookError>
    where
        F: FnMut(&S) -> Result<Vec<GeneratedSample>, HookError>,
    {
        let lines = JsonLines::open(path).map_err(|error| failed(path, "open", &error))?;
        Ok(Self { config, lines, generate })
    }

    fn write<S>(&mut self, step: u64, trainer: &S) -> Result<(), HookError>
    where
        F: FnMut(&S) -> Result<Vec<GeneratedSample>, HookError>,
    {
        let samples = (self.generate)(trainer)?;
        let rows = samples
            .into_iter()
            .map(|sample| json!({ "step": step, "prompt": sample.prompt, "completion": sample.completion }));
        self.lines.append(rows).map_err(|error| failed(self.lines.path(), "write", &error))
    }
}

fn failed(path: &Path, action: &str, error: &std::io::Error) -> HookError {
    HookError { hook: "samples", reason: format!("cannot {action} {}: {error}", path.display()) }
}

impl<S, R, F> Hook<S, R> for SamplesDuringTraining<F>
where
    F: FnMut(&S) -> Result<Vec<GeneratedSample>, HookError>,
{
    fn begin(&mut self, progress: Progress, _metrics: &mut Metrics, trainer: &S) -> Result<(), HookError> {
        let cut = self.lines.cut_after(progress.step);
        cut.map_err(|error| failed(self.lines.path(), "shorten", &error))?;
        if progress.step == 0 { self.write(0, trainer) } else { Ok(()) }
    }

    fn after_step(&mut self, event: &mut StepEvent<'_, R>, trainer: &S) -> Result<Flow, HookError> {
        if event.progress.is_due(self.config.every) {
            self.write(event.progress.step, trainer)?;
        }
        Ok(Flow::Continue)
    }

    fn before_checkpoint(&mut self) -> Result<(), HookError> {
        self.lines.sync().map_err(|error| failed(self.lines.path(), "write", &error))
    }
}
