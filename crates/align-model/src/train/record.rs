//! Metrics as JSON lines, one object a step.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{Flow, Hook, HookError, Progress, Report};

/// Writes every report as a line of JSON: `{"step": 1, "loss": …}`.
#[derive(Debug)]
pub struct JsonlRecorder {
    path: PathBuf,
    file: BufWriter<File>,
}

impl JsonlRecorder {
    /// Starts a new file.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create(path: &Path) -> Result<Self, HookError> {
        let file = File::create(path).map_err(|e| failed(path, "create", &e))?;
        Ok(Self { path: path.into(), file: BufWriter::new(file) })
    }
}

fn failed(path: &Path, action: &str, error: &std::io::Error) -> HookError {
    HookError { hook: "recorder", reason: format!("cannot {action} {}: {error}", path.display()) }
}

impl<S, R: Report> Hook<S, R> for JsonlRecorder {
    fn after_step(&mut self, progress: Progress, report: &R, _trainer: &S) -> Result<Flow, HookError> {
        let mut line = Map::from_iter([("step".to_string(), Value::from(progress.step))]);
        line.extend(report.metrics().into_iter().map(|(name, value)| (name.to_string(), Value::from(value))));
        // Flushed at once: a run that dies leaves the metrics of every step it made.
        writeln!(self.file, "{}", Value::Object(line))
            .and_then(|()| self.file.flush())
            .map_err(|e| failed(&self.path, "write", &e))?;
        Ok(Flow::Continue)
    }
}
