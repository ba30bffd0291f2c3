//! What a policy wrote while it learnt and what it got for it, and what alarms said.

use std::{cell::RefCell, mem, path::Path, rc::Rc};

use align_model::train::{Flow, Hook, HookError, Metrics, Progress, StepEvent};
use align_rl::{
    rollout::{RolloutLog, RolloutLogError},
    watch::AlarmAction,
};

use crate::method::News;

/// What a report says besides its measurements.
pub(crate) type ReadNews<R> = fn(&R) -> News<'_>;

/// What alarms said and nobody has shown yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Alarms(Rc<RefCell<Said>>);

#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    /// Why the run ends.
    end: Option<String>,
}

impl Alarms {
    /// What was said since the last time.
    pub(crate) fn take(&self) -> Vec<String> {
        mem::take(&mut self.0.borrow_mut().lines)
    }

    /// Why the run ends, if an alarm ends it.
    pub(crate) fn end(&self) -> Option<String> {
        self.0.borrow().end.clone()
    }
}

/// A hook that appends a step's rollouts to a file, a line each, and ends the run where an alarm says so.
#[derive(Debug)]
pub(crate) struct RolloutsDuringTraining<R> {
    log: RolloutLog,
    read: ReadNews<R>,
    alarms: Alarms,
}

impl<R> RolloutsDuringTraining<R> {
    /// Opens the file, which is made if need be; lines after the step that a run is resumed after are removed when it
    /// begins.
    pub(crate) fn open(path: &Path, read: ReadNews<R>, alarms: Alarms) -> Result<Self, RolloutLogError> {
        Ok(Self { log: RolloutLog::open(path)?, read, alarms })
    }
}

impl<S, R> Hook<S, R> for RolloutsDuringTraining<R> {
    fn begin(&mut self, progress: Progress, _metrics: &mut Metrics, _trainer: &S) -> Result<(), HookError> {
        self.log.cut_after(progress.step).map_err(failed)
    }

    fn after_step(&mut self, event: &mut StepEvent<'_, R>, _trainer: &S) -> Result<Flow, HookError> {
        let News { rollouts, alarms } = (self.read)(event.report);
        self.log.append(rollouts).map_err(failed)?;
        let mut said = self.alarms.0.borrow_mut();
        said.lines.extend(alarms.iter().map(ToString::to_string));
        let ends = alarms.iter().find(|alarm| alarm.action == AlarmAction::Stop);
        said.end = ends.map(ToString::to_string);
        Ok(if ends.is_some() { Flow::Stop } else { Flow::Continue })
    }

    fn before_checkpoint(&mut self) -> Result<(), HookError> {
        self.log.sync().map_err(failed)
    }
}

fn failed(error: RolloutLogError) -> HookError {
    let because = std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
    HookError { hook: "rollouts", reason: format!("{error}{because}") }
}
