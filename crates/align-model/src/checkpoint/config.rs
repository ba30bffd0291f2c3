//! When checkpoints are made and which are kept.

use std::num::{NonZeroU64, NonZeroUsize};

use serde::{Deserialize, Serialize};

/// When checkpoints are made and which are kept. One is always made at the end of a run and when it is asked to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Steps from one checkpoint to the next. transformers' `save_steps`: 500.
    pub every: NonZeroU64,
    /// Checkpoints that are kept, the newest ones; the best is kept besides. While one is written, there is one more.
    pub keep_last: NonZeroUsize,
    /// Which one is kept however old it is; none unless given.
    pub keep_best: Option<KeepBest>,
    /// What happens if one cannot be written, the disk being full for instance.
    pub on_failure: OnSaveFailure,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            every: NonZeroU64::MIN.saturating_add(499),
            keep_last: NonZeroUsize::MIN.saturating_add(1),
            keep_best: None,
            on_failure: OnSaveFailure::default(),
        }
    }
}

/// What makes a checkpoint the best.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepBest {
    /// The metric, such as `eval_loss`, of the checkpoint's own step; a checkpoint whose step has none is no candidate.
    pub metric: String,
    /// Which way is better.
    #[serde(default)]
    pub direction: Direction,
}

/// Which way a metric gets better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Lower is better, as for a loss.
    #[default]
    Minimize,
    /// Higher is better, as for an accuracy.
    Maximize,
}

impl Direction {
    /// By how much `value` is better than `than`; negative if it is worse, NaN if either is.
    #[must_use]
    pub fn improvement(self, value: f64, than: f64) -> f64 {
        match self {
            Self::Minimize => than - value,
            Self::Maximize => value - than,
        }
    }
}

/// What a run does if a checkpoint cannot be written. The earlier ones stand in either case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSaveFailure {
    /// It ends with the error; it can be resumed from the checkpoint before.
    #[default]
    Stop,
    /// It goes on and tries again when the next one is due. The last one of the run must succeed nevertheless.
    Continue,
}

/// The settings of checkpoints do not fit those of the run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointConfigError {
    /// The best checkpoint is chosen by an evaluation that does not happen where checkpoints are made.
    #[error(
        "`keep_best.metric` = \"{metric}\" is measured every {evaluation} steps, and checkpoints are made every {every}: make `every` a multiple of the evaluation's"
    )]
    BestWithoutEvaluation {
        /// `keep_best.metric`
        metric: String,
        /// Steps from one checkpoint to the next.
        every: u64,
        /// Steps from one evaluation to the next.
        evaluation: u64,
    },
    /// The best checkpoint is chosen by an evaluation, and there is none.
    #[error("`keep_best.metric` = \"{metric}\" needs an evaluation, and the run has none")]
    BestOfNothing {
        /// `keep_best.metric`
        metric: String,
    },
}

impl CheckpointConfig {
    /// Checks the settings against those of evaluation, which happens every so many steps, if at all.
    ///
    /// # Errors
    /// If the best checkpoint is to be chosen by an `eval_…` metric that checkpoints do not have.
    pub fn check(&self, evaluation_every: Option<NonZeroU64>) -> Result<(), CheckpointConfigError> {
        let Some(KeepBest { metric, .. }) = &self.keep_best else { return Ok(()) };
        if !metric.starts_with("eval_") {
            return Ok(());
        }
        let metric = metric.clone();
        let Some(evaluation) = evaluation_every else {
            return Err(CheckpointConfigError::BestOfNothing { metric });
        };
        let (every, evaluation) = (self.every.get(), evaluation.get());
        if !every.is_multiple_of(evaluation) {
            return Err(CheckpointConfigError::BestWithoutEvaluation { metric, every, evaluation });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best_by(metric: &str) -> CheckpointConfig {
        let keep_best = Some(KeepBest { metric: metric.into(), direction: Direction::Minimize });
        CheckpointConfig { keep_best, ..CheckpointConfig::default() }
    }

    #[test]
    fn the_best_needs_an_evaluation_at_every_checkpoint() {
        let check = |metric, every| best_by(metric).check(NonZeroU64::new(every));
        assert!(check("eval_loss", 100).is_ok());
        assert!(check("loss", 0).is_ok());
        assert!(matches!(
            check("eval_loss", 300),
            Err(CheckpointConfigError::BestWithoutEvaluation { every: 500, evaluation: 300, .. })
        ));
        assert!(matches!(check("eval_loss", 0), Err(CheckpointConfigError::BestOfNothing { .. })));
    }

    #[test]
    fn a_direction_tells_better_from_worse() {
        assert!(Direction::Minimize.improvement(1.0, 2.0) > 0.0);
        assert!(Direction::Maximize.improvement(1.0, 2.0) < 0.0);
        assert!(Direction::Maximize.improvement(f64::NAN, 2.0).is_nan());
    }
}
