//! Ending a run when an alarm says so.

use align_model::train::{Flow, Hook, HookError, StepEvent};

use super::{Alarm, AlarmAction};
use crate::report::RlReport;

/// A hook that ends the run where an alarm's action is to stop, and shows every alarm to a function.
#[derive(Debug)]
pub struct StopOnAlarm<F> {
    show: F,
}

impl<F: FnMut(&Alarm)> StopOnAlarm<F> {
    /// Shows alarms to this function, such as one that prints them.
    #[must_use]
    pub fn showing(show: F) -> Self {
        Self { show }
    }
}

impl<S, F: FnMut(&Alarm)> Hook<S, RlReport> for StopOnAlarm<F> {
    fn after_step(&mut self, event: &mut StepEvent<'_, RlReport>, _trainer: &S) -> Result<Flow, HookError> {
        let alarms = &event.report.alarms;
        alarms.iter().for_each(&mut self.show);
        event.metrics.add("alarms", alarms.len() as f64);
        let ends = alarms.iter().any(|alarm| alarm.action == AlarmAction::Stop);
        Ok(if ends { Flow::Stop } else { Flow::Continue })
    }
}
