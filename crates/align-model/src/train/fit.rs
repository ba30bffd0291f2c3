//! The seam between trainers and their surroundings, and the loop for those who want one.

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

/// Named measurements of a step.
pub trait Report {
    /// Names as TRL logs them, and values.
    fn metrics(&self) -> Vec<(&'static str, f64)>;
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The step just made; the first is 1.
    pub step: u64,
    /// Steps in all.
    pub total_steps: u64,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// With the next step.
    Continue,
    /// No further: the run ends as if it had been this long.
    Stop,
}

/// Sees every step: recorders, checkpoints, evaluation, early stopping, progress bars.
pub trait Hook<S, R> {
    /// Called after each step with its report and the trainer.
    ///
    /// # Errors
    /// If the hook cannot do its work; the run then ends.
    fn after_step(&mut self, progress: Progress, report: &R, trainer: &S) -> Result<Flow, HookError>;
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

/// A run ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError<E: std::error::Error + 'static> {
    /// A step failed.
    #[error("step {step} failed")]
    Step {
        /// The step; the first is 1.
        step: u64,
        /// Why.
        #[source]
        source: E,
    },
    /// A hook failed.
    #[error("after step {step}")]
    Hook {
        /// The step; the first is 1.
        step: u64,
        /// Why.
        #[source]
        source: HookError,
    },
}

/// Makes a step for each batch and shows it to the hooks. Returns the number of steps made.
///
/// # Errors
/// If a step or a hook fails.
pub fn fit<S, B: ?Sized, I: std::borrow::Borrow<B>>(
    trainer: &mut S,
    batches: impl IntoIterator<Item = I>,
    total_steps: u64,
    hooks: &mut [&mut dyn Hook<S, S::Report>],
) -> Result<u64, FitError<S::Error>>
where
    S: Step<B>,
{
    let mut step = 0;
    for batch in batches.into_iter().take(total_steps as usize) {
        step += 1;
        let report = trainer.step(batch.borrow()).map_err(|source| FitError::Step { step, source })?;
        let mut flow = Flow::Continue;
        for hook in hooks.iter_mut() {
            let progress = Progress { step, total_steps };
            let asked = hook
                .after_step(progress, &report, trainer)
                .map_err(|source| FitError::Hook { step, source })?;
            if asked == Flow::Stop {
                flow = Flow::Stop;
            }
        }
        if flow == Flow::Stop {
            break;
        }
    }
    Ok(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counter(u64);
    struct Count(u64);

    #[derive(Debug, thiserror::Error)]
    #[error("refused")]
    struct Refused;

    impl Report for Count {
        fn metrics(&self) -> Vec<(&'static str, f64)> {
            vec![("count", self.0 as f64)]
        }
    }

    impl Step<u64> for Counter {
        type Report = Count;
        type Error = Refused;

        fn step(&mut self, batch: &u64) -> Result<Count, Refused> {
            self.0 += batch;
            if *batch == 13 { Err(Refused) } else { Ok(Count(self.0)) }
        }
    }

    struct StopAt(u64);

    impl Hook<Counter, Count> for StopAt {
        fn after_step(&mut self, progress: Progress, _: &Count, _: &Counter) -> Result<Flow, HookError> {
            Ok(if progress.step == self.0 { Flow::Stop } else { Flow::Continue })
        }
    }

    #[test]
    fn a_hook_ends_the_run() {
        let mut counter = Counter(0);
        assert_eq!(fit::<_, u64, _>(&mut counter, [1u64, 1, 1, 1], 4, &mut [&mut StopAt(2)]).unwrap(), 2);
        assert_eq!(counter.0, 2);
    }

    #[test]
    fn a_failed_step_is_named() {
        let error = fit::<_, u64, _>(&mut Counter(0), [1u64, 13, 1], 3, &mut []).unwrap_err();
        assert!(matches!(error, FitError::Step { step: 2, .. }));
    }
}
