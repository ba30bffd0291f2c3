//! Ending a run that no longer gets better.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::{Flow, Hook, HookError, Outcome, StepEvent};
use crate::{
    checkpoint::{Direction, State, StateError},
    number::NonNegative,
};

/// When a run ends early.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EarlyStoppingConfig {
    /// The metric that has to get better.
    pub metric: String,
    /// Which way is better.
    pub direction: Direction,
    /// The run ends when the metric was measured so many times in a row without getting better than the best before.
    /// transformers' `early_stopping_patience`: 1.
    pub patience: NonZeroU64,
    /// It has to get better by more than this to count; the best is the last value that did. transformers'
    /// `early_stopping_threshold`: 0.
    pub minimum_improvement: NonNegative,
}

impl Default for EarlyStoppingConfig {
    fn default() -> Self {
        Self {
            metric: "eval_loss".into(),
            direction: Direction::Minimize,
            patience: NonZeroU64::MIN,
            minimum_improvement: NonNegative::new(0.0),
        }
    }
}

/// A hook that ends a run that no longer gets better. It stands behind the evaluation whose metric it watches.
#[derive(Debug)]
pub struct EarlyStopping {
    config: EarlyStoppingConfig,
    state: Watched,
    /// Metrics of the last step, for the error if the one to be watched never came.
    last_names: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Watched {
    best: Option<f64>,
    without_improvement: u64,
    measured: u64,
}

impl EarlyStopping {
    /// Watches a run from its beginning.
    #[must_use]
    pub fn new(config: EarlyStoppingConfig) -> Self {
        Self { config, state: Watched::default(), last_names: String::new() }
    }

    /// The best value so far.
    #[must_use]
    pub fn best(&self) -> Option<f64> {
        self.state.best
    }

    fn unknown(&self) -> HookError {
        let metric = &self.config.metric;
        let reason = format!("`metric` = \"{metric}\" was not measured; the metrics are {}", self.last_names);
        HookError { hook: "early stopping", reason }
    }
}

impl<S, R> Hook<S, R> for EarlyStopping {
    fn name(&self) -> &'static str {
        "early_stopping"
    }

    fn after_step(&mut self, event: &mut StepEvent<'_, R>, _trainer: &S) -> Result<Flow, HookError> {
        let Some(value) = event.metrics.get(&self.config.metric) else {
            self.last_names = event.metrics.names();
            let evaluated = event.metrics.iter().any(|(name, _)| name.starts_with("eval_"));
            // A misspelt name shows at the first evaluation, not when the run is over.
            let misspelt = self.config.metric.starts_with("eval_") && evaluated;
            return if misspelt { Err(self.unknown()) } else { Ok(Flow::Continue) };
        };
        let Watched { best, without_improvement, measured } = &mut self.state;
        *measured += 1;
        let minimum = self.config.minimum_improvement.get();
        let improvement = |best| self.config.direction.improvement(value, best);
        // NaN is no improvement on anything, and anything is one on nothing.
        let is_better = best.map_or(!value.is_nan(), |best| improvement(best) > minimum);
        if is_better {
            *best = Some(value);
            *without_improvement = 0;
        } else {
            *without_improvement += 1;
        }
        let patient = *without_improvement < self.config.patience.get();
        Ok(if patient { Flow::Continue } else { Flow::Stop })
    }

    fn at_end(&mut self, outcome: &Outcome, _trainer: &S) -> Result<(), HookError> {
        let never = self.state.measured == 0 && !self.last_names.is_empty();
        if never && outcome.ending == super::Ending::Completed { Err(self.unknown()) } else { Ok(()) }
    }

    fn save(&self, state: &mut State) -> Result<(), StateError> {
        state.insert("watched", &self.state)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.state = state.take("watched")?;
        Ok(())
    }
}
