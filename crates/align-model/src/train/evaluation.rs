//! Measuring a model on data that it is not trained on, now and then.

use std::{fmt::Display, num::NonZeroU64};

use serde::{Deserialize, Serialize};

use super::{Flow, Hook, HookError, Metrics, Progress, StepEvent};

/// When evaluation happens. It always does after the last step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Steps from one evaluation to the next. transformers' `eval_steps` with its default `logging_steps`: 500.
    pub every: NonZeroU64,
    /// Whether the model is evaluated before its first step as well; recorded as step 0. transformers'
    /// `eval_on_start`: not.
    pub at_start: bool,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { every: NonZeroU64::MIN.saturating_add(499), at_start: false }
    }
}

/// A hook that evaluates and adds what it measures to the step's metrics, each name with `eval_` before it.
#[derive(Debug)]
pub struct Evaluation<F> {
    config: EvaluationConfig,
    prefix: &'static str,
    evaluate: F,
}

impl<F> Evaluation<F> {
    /// Evaluates by a function of the trainer.
    #[must_use]
    pub fn new<S, M, N>(config: EvaluationConfig, evaluate: F) -> Self
    where
        F: FnMut(&S) -> Result<M, HookError>,
        M: IntoIterator<Item = (N, f64)>,
        N: Display,
    {
        Self { config, prefix: "eval_", evaluate }
    }

    /// Puts something else before names, where there are several evaluations.
    #[must_use]
    pub fn prefixed(mut self, prefix: &'static str) -> Self {
        self.prefix = prefix;
        self
    }

    fn add<S, M, N>(&mut self, metrics: &mut Metrics, trainer: &S) -> Result<(), HookError>
    where
        F: FnMut(&S) -> Result<M, HookError>,
        M: IntoIterator<Item = (N, f64)>,
        N: Display,
    {
        let measured = (self.evaluate)(trainer)?;
        metrics.extend(measured.into_iter().map(|(name, value)| (format!("{}{name}", self.prefix), value)));
        Ok(())
    }
}

impl<S, R, F, M, N> Hook<S, R> for Evaluation<F>
where
    F: FnMut(&S) -> Result<M, HookError>,
    M: IntoIterator<Item = (N, f64)>,
    N: Display,
{
    fn begin(&mut self, progress: Progress, metrics: &mut Metrics, trainer: &S) -> Result<(), HookError> {
        if progress.step == 0 && self.config.at_start { self.add(metrics, trainer) } else { Ok(()) }
    }

    fn after_step(&mut self, event: &mut StepEvent<'_, R>, trainer: &S) -> Result<Flow, HookError> {
        if event.progress.is_due(self.config.every) {
            self.add(event.metrics, trainer)?;
        }
        Ok(Flow::Continue)
    }
}
